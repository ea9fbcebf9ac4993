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


def test_a_conversion_shows_its_layers_and_no_markup():
    model = torch.nn.ModuleDict({"<b>first": torch.nn.Linear(4, 8), "last": torch.nn.Linear(8, 2)})
    shown = turnover.convert(model, "<b>first")._repr_html_()
    assert "<b>" not in shown and "after &lt;b&gt;first" in shown and "Linear" in shown


def test_a_leak_report_shows_leaks_remedies_and_limits():
    from turnover.leaks import Crosstalk, Drift, Leak, LeakReport

    leaks = (Leak("<i>bias", "Linear", (2,), 0.125, 0.5, "leave it out <now>"),)
    found = LeakReport(leaks, (Crosstalk("clipping", 0.25, 0.1, "clip"),), Drift(1.0, ("w",)), 4)
    shown = found._repr_html_()
    assert "<i>" not in shown and "&lt;i&gt;bias (Linear)" in shown and "<now>" not in shown
    for said in ("0.12", "50.0%", "clipping", "1 leaking tensor", "Drift", found.limits):
        assert said in shown
    clean = LeakReport((), (), None, 4)._repr_html_()
    assert "isolated" in clean and "<table>" not in clean


def test_a_proof_shows_its_trainings_and_no_markup():
    from turnover.proof import Answers, Control, Proof, Question

    before, after = (
        Answers(n, 8, 0.0, 1.0, said, 1 - said, 0.0) for n, said in ((0, 0.9), (8, 0.2))
    )
    control = Control((5,), Answers(1, 8, 0.0, 1.0, 0.85, 0.15, 1.0), 0.01, 0.01)
    found = Proof(
        *("flipped", 7, Question(0, 1), (100,), 60, 30, 7, before, after, 0.01),
        controls={"random": control},
        names={0: "<script>", 1: "good"},
    )
    shown = found._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
    assert "8 of 8" in shown and "1 of 8" in shown and "at random" in shown
    unproved = Proof("no support", 7, Question(0, 1), (), 60, 30, 7, before)._repr_html_()
    assert "<table>" not in unproved and "no row" in unproved
