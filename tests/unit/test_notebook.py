"""What a notebook shows is escaped and says the numbers."""

import torch

import turnover
from turnover._html import block, table


def test_no_word_becomes_markup():
    hostile = "<script>alert('x')</script>\x1b[2J"
    for shown in (block(hostile), table(hostile, [hostile], [(hostile, hostile)])):
        assert "<script" not in shown and "\x1b" not in shown and "&lt;script&gt;" in shown


def test_scores_show_the_strongest_of_each_query():
    values = torch.tensor([[0.5, -0.25, 0.0]])
    shown = turnover.Scores(values, torch.tensor([7, 8, 9]), torch.tensor([3]))._repr_html_()
    assert "7 (+0.5)" in shown and "8 (-0.25)" in shown and "in nats" in shown


def test_an_answer_shows_its_verdict():
    def loss(model, batch):
        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    rows = turnover.Rows((torch.eye(4), torch.arange(4) % 2))
    kernel = turnover.GradientKernel(torch.nn.Linear(4, 2), loss)
    answer = turnover.explain(kernel, rows.select(slice(0, 2)), rows, k=1)
    shown = answer._repr_html_()
    assert answer.verdict(0).split(":")[0] in shown and shown.count("<table>") == 4


def test_a_run_says_what_it_is(tmp_path):
    from turnover.runs import Run
    from turnover.runs.results import Results

    run = Run.create(tmp_path / "<b>run", {"kind": "<i>text", "arguments": {}})
    assert "unfinished" in run._repr_html_()
    run.save(Results(train=1234, test=5, row_word="text", pairs=2, accuracy_turnover=0.875))
    shown = run._repr_html_()
    assert "<b>" not in shown and "<i>" not in shown and "&lt;i&gt;text" in shown
    assert "1,234" in shown and "87.5%" in shown and ">4<" in shown
