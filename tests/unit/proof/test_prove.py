"""Proofs about a mistake whose cause was planted."""

import json
from functools import cache

import pytest
import torch

import turnover
from tests.unit.proof.planted import HOW, build, data, kernel, logits, loss
from turnover import _memory
from turnover.data import Rows
from turnover.errors import ConfigError, DataError, ScoreError
from turnover.estimators import GradientKernel
from turnover.proof import Retrainings, prove_all, similarity_to
from turnover.scores import Scores
from turnover.training import fit


class Given:
    """An estimator with given support ``d [train]``, all of it in the score for what is said."""

    def __init__(self, support, train):
        self.support, self.ids = torch.as_tensor(support, dtype=torch.float32), train.ids

    def scores(self, queries):
        values = torch.stack([self.support, torch.zeros_like(self.support)])
        return Scores(values, self.ids, queries.ids)


@cache
def planted(copies):
    train, query = data(copies=copies)
    return train, query, kernel(train)


def prove(copies, **more):
    train, query, fitted = planted(copies)
    return turnover.prove(fitted, query, train, **HOW, **more)


proved = cache(prove)
"""The same, once for all tests that only read it."""


@pytest.mark.parametrize("copies", [1, 2, 3, 5])
def test_a_planted_cause_is_found_with_hardly_a_row_more(copies):
    proof = proved(copies)
    assert proof.verdict == "flipped"
    assert set(range(100, 100 + copies)) <= set(proof.rows)
    assert len(proof.rows) <= copies + 1
    assert proof.flipped == proof.trainings == 8
    assert proof.before.flipped == 0


def test_controls_do_not_flip_it_and_tests_say_so():
    train, query, _ = planted(3)
    model = build(0)
    fit(model, train, loss, HOW["recipe"])
    similar = similarity_to(model, loss, query, train).masked_fill(train.batch["label"] == 0, -2)
    proof = prove(3, against={"similar": similar})
    assert set(proof.controls) == {"random", "same-label", "similar"}
    for control in proof.controls.values():
        assert len(control.rows) == len(proof.rows)
        assert control.answers.flipped == 0
        assert control.p == control.p_log_odds == 2 / 2**8
    labels = dict(zip(train.ids.tolist(), train.batch["label"].tolist(), strict=True))
    wanted = sorted(labels[row] for row in proof.rows)
    assert sorted(labels[row] for row in proof.controls["same-label"].rows) == wanted


def test_the_fewest_rows_that_flip_are_reported():
    proof = proved(3)
    tried = {removed: flipped for removed, flipped in proof.tried}
    assert tried[len(proof.rows)] >= proof.needed
    assert tried[len(proof.rows) - 1] < proof.needed


def test_a_query_that_no_row_supports_is_said_to_have_none():
    train, query = data(copies=3)
    proof = turnover.prove(Given([-1.0] * len(train), train), query, train, **HOW)
    assert proof.verdict == "no support" and proof.rows == () and proof.after is None
    assert "no row of the 63 rows speaks for" in " ".join(str(proof).split())


def test_rows_that_do_nothing_are_said_not_to_flip_it():
    train, query = data(copies=3)
    support = [0.0] * 3 + [1.0] * 8 + [0.0] * 52
    proof = turnover.prove(Given(support, train), query, train, **HOW)
    assert proof.verdict == "not flipped"
    assert len(proof.rows) == 8 and proof.flipped == 0
    assert "No set up to 8 rows does it" in str(proof)


def test_what_trainings_on_all_rows_say_anyway_needs_no_rows():
    train, query = data()
    proof = turnover.prove(Given([1.0] * len(train), train), query, train, said=0, **HOW)
    assert proof.verdict == "already" and proof.before.flipped == 8


def test_less_confidence_can_be_asked_for():
    proof = prove(2, until=0.5)
    assert proof.verdict == "flipped" and proof.after.said <= 0.5
    assert proof.question.until == 0.5


def test_all_rows_of_a_class_are_refused():
    train, query = data(rows=60, copies=2)
    few = train.select(torch.cat([torch.arange(5), torch.arange(5, 62)[train.ids[5:] % 2 == 1]]))
    zeros = few.batch["label"] == 0
    with pytest.raises(DataError, match=r"all rows of class 0.*Remove at most"):
        turnover.prove(
            Given(zeros.float() + 0.1, few), query, few, said=0, most=int(zeros.sum()), **HOW
        )


def test_by_default_a_class_is_left_with_a_row():
    train, query = data(rows=60, copies=3)
    few = train.select(train.batch["label"].bool() | (train.ids < 103))
    proof = turnover.prove(Given((few.ids < 103).float(), few), query, few, said=0, **HOW)
    assert len(proof.rows) <= 2


def test_the_same_seed_gives_the_same_proof():
    assert json.dumps(prove(2).to_dict()) == json.dumps(proved(2).to_dict())
    assert prove(2, seed=1).before != proved(2).before


@cache
def uninterrupted(stacked):
    return prove(3, stacked=stacked, trainings=3)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("after", [1, 8, 15])
def test_a_proof_interrupted_anywhere_ends_with_the_same_bits(tmp_path, stacked, after):
    class Interruption(Exception):
        pass

    def interrupt(finished, total):
        if finished >= after:
            raise Interruption

    how = {"stacked": stacked, "trainings": 3}
    wanted = uninterrupted(stacked)
    with pytest.raises(Interruption):
        prove(3, **how, folder=tmp_path / "parts", progress=interrupt)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    resumed = prove(3, **how, folder=tmp_path / "parts")
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items())
    assert json.dumps(resumed.to_dict()) == json.dumps(wanted.to_dict())


def test_finished_trainings_answer_later_questions(tmp_path):
    train, query, fitted = planted(1)
    other = Rows({"x": -query.batch["x"], "label": torch.tensor([0])}, torch.tensor([8]))
    batch = {name: torch.cat([query.batch[name], other.batch[name]]) for name in query.batch}
    both = Rows(batch, torch.tensor([7, 8]))
    turnover.prove(fitted, query, train, beside=both, folder=tmp_path, **HOW)
    count = len(list(tmp_path.iterdir()))
    turnover.prove(fitted, other, train, said=1, beside=both, folder=tmp_path, **HOW)
    assert len(list(tmp_path.iterdir())) == count


def test_other_recipes_are_trained_anew(tmp_path):
    prove(1, folder=tmp_path)
    count = len(list(tmp_path.iterdir()))
    prove(1, folder=tmp_path, trainings=4)
    assert len(list(tmp_path.iterdir())) > count


def test_progress_ends_below_the_most_there_can_be():
    told = []
    prove(3, progress=lambda done, total: told.append((done, total)))
    done, total = zip(*told, strict=True)
    assert list(done) == sorted(done) and done[-1] <= total[0] and len(set(total)) == 1


def test_a_forecast_comes_first_and_a_small_budget_is_refused():
    told = []
    prove(1, forecast=lambda least, most: told.append((least, most)))
    ((least, most),) = told
    assert 0 < least < most < 600
    with pytest.raises(DataError, match="budget of 1e-09 seconds does not suffice"):
        prove(1, budget=1e-9)


def test_a_budget_that_suffices_changes_nothing():
    assert prove(2, budget=600.0).to_dict() == proved(2).to_dict()


class Hurried:
    """A clock on which every look takes ten seconds."""

    now = 0.0

    def monotonic(self):
        self.now += 10.0
        return self.now


@pytest.mark.parametrize("copies", [3, 5])
def test_a_budget_that_runs_out_ends_the_search_and_says_so(copies, monkeypatch):
    monkeypatch.setattr("turnover.proof._prove.time", Hurried())
    monkeypatch.setattr("turnover.proof.Retrainings.seconds", lambda farm: 1.0)
    proof = prove(copies, budget=5.0)
    assert len(proof.tried) == 1 and not proof.complete
    assert len(proof.rows) == proof.first_guess
    assert set(proof.controls) == {"random", "same-label"}, "their time was left"
    more = "fewer" if proof.verdict == "flipped" else "more"
    assert f"The budget ended the search: {more} may do it." in " ".join(str(proof).split())


def test_words_fit_into_eighty_columns():
    for copies in (1, 5):
        text = str(proved(copies))
        assert max(map(len, text.splitlines())) <= 80
        assert "trained again without" in text and "8 of 8" in text


def test_numbers_are_plain_json():
    found = json.loads(json.dumps(proved(2).to_dict(), allow_nan=False))
    assert {"rows", "flipped", "trainings", "before", "after", "controls"} <= set(found)
    assert found["flipped"] == found["after"]["flipped"] == 8


def test_the_predicted_effect_has_an_error_over_pairs():
    train, query, fitted = planted(2)
    proof = proved(2)
    batch = {"x": query.batch["x"].expand(2, -1), "label": torch.tensor([0, 1])}
    each = fitted.by_pair(Rows(batch)).double()
    rows = train.rows_of(torch.tensor(proof.rows))
    sums = (each[:, 0] - each[:, 1])[:, rows].sum(dim=1)
    assert proof.predicted == pytest.approx(float(sums.mean()), rel=1e-9)
    assert proof.stderr == pytest.approx(float(sums.std() / len(sums) ** 0.5), rel=1e-9)


def test_scores_by_pair_have_the_scores_as_their_mean():
    _, query, fitted = planted(2)
    scores = fitted.scores(query)
    each = fitted.by_pair(query)
    # float32 sums in another order
    torch.testing.assert_close(each.mean(dim=0), scores.values, rtol=1e-4, atol=1e-6)
    error = each.std(dim=0) / len(each) ** 0.5
    torch.testing.assert_close(error, scores.stderr, rtol=1e-3, atol=1e-6)


def test_a_model_without_pairs_has_no_error():
    train, query = data(copies=1)
    model = build(3)
    fit(model, train, loss, HOW["recipe"])
    proof = turnover.prove(GradientKernel(model, loss).fit(train), query, train, **HOW)
    assert proof.verdict == "flipped" and proof.stderr is None


def test_rows_in_tuples_name_their_label_by_place():
    train, query = data(copies=1)
    as_tuple = [Rows((r.batch["x"], r.batch["label"]), r.ids) for r in (query, train)]
    how = {
        **HOW,
        "logits": lambda model, batch: model(batch[0]),
        "loss": lambda model, batch: loss(model, {"x": batch[0], "label": batch[1]}),
    }
    support = (train.ids == 100).float()
    proof = turnover.prove(Given(support, train), *as_tuple, label=1, **how)
    assert proof.rows == (100,)
    with pytest.raises(DataError, match="no label 'label'"):
        turnover.prove(Given(support, train), *as_tuple, **how)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"said": 5}, "class 5 is none of them"),
        ({"said": 0, "wanted": 0}, "says class 0 already"),
        ({"until": 1.0}, "between 0 and 1"),
        ({"most": 0}, "both begin at 1"),
        ({"trainings": 0}, "both begin at 1"),
        ({"controls": ["nobody"]}, "no control 'nobody'"),
        ({"against": {"mine": torch.ones(3)}}, "one value for each"),
    ],
)
def test_what_cannot_be_asked_is_refused(more, message):
    with pytest.raises(DataError, match=message):
        prove(1, **more)


def test_several_queries_are_refused():
    train, _, fitted = planted(1)
    with pytest.raises(DataError, match="one query, but 61"):
        turnover.prove(fitted, train, train, **HOW)


def test_scores_about_other_rows_are_refused():
    train, query = data(copies=1)
    other = Rows(train.batch, train.ids + 1)
    with pytest.raises(ScoreError, match="other ids"):
        turnover.prove(Given([1.0] * len(train), other), query, train, **HOW)
    with pytest.raises(ScoreError, match="not all finite"):
        turnover.prove(Given([torch.nan] * len(train), train), query, train, **HOW)


def test_stacked_and_single_trainings_agree_on_the_cause():
    one, other = (prove(2, stacked=stacked, trainings=3) for stacked in (True, False))
    assert one.rows == other.rows and one.flipped == other.flipped == 3


def test_similarity_ranks_copies_of_the_query_first():
    train, query = data(copies=4)
    model = build(1)
    fit(model, train, loss, HOW["recipe"])
    found = similarity_to(model, loss, query, train)
    assert found.shape == (64,) and set(found.topk(4).indices.tolist()) == {0, 1, 2, 3}
    assert logits(model, query.batch).shape == (1, 2)


def two_mistakes():
    """A planted cause for each of two queries; ids 100 and 101 are the first's."""
    train, query = data(copies=2)
    asked = torch.zeros_like(query.batch["x"])
    asked[0, 0], asked[0, 2] = -0.7, 3.0
    other = Rows({"x": asked, "label": torch.tensor([0])}, torch.tensor([8]))
    x = torch.cat([train.batch["x"], other.batch["x"].expand(3, -1)])
    label = torch.cat([train.batch["label"], torch.ones(3, dtype=torch.int64)])
    ids = torch.cat([train.ids, torch.tensor([300, 301, 302])])
    both = {name: torch.cat([query.batch[name], other.batch[name]]) for name in query.batch}
    return Rows({"x": x, "label": label}, ids), Rows(both, torch.tensor([7, 8]))


def test_proofs_side_by_side_are_those_of_each_query_by_itself(tmp_path):
    train, queries = two_mistakes()
    fitted, told = kernel(train), []
    together = prove_all(
        fitted, queries, train, folder=tmp_path, progress=lambda *n: told.append(n), **HOW
    )
    assert [set(p.rows) & {100, 101, 300, 301, 302} for p in together] == [
        {100, 101},
        {300, 301, 302},
    ]
    assert all(p.verdict == "flipped" and p.flipped == 8 for p in together)
    alone = [
        turnover.prove(fitted, queries.select(torch.tensor([n])), train, beside=queries, **HOW)
        for n in range(2)
    ]
    assert [p.to_dict() for p in together] == [p.to_dict() for p in alone]
    assert told[-1][0] <= told[-1][1]


def test_classes_are_given_for_every_query_or_for_none():
    train, queries = two_mistakes()
    with pytest.raises(DataError, match="1 classes were given for 2 queries"):
        prove_all(Given([1.0] * len(train), train), queries, train, said=[0], **HOW)


def test_equal_sets_are_trained_once():
    train, queries = two_mistakes()
    farm = Retrainings(build, loss, logits, HOW["recipe"], train, queries, range(2))
    told, some = [], torch.tensor([3, 5])
    found = farm.without_each([some, some.flip(0), torch.arange(30)], told.append)
    assert sum(told) == 4 and torch.equal(found[0], found[1])
    assert torch.equal(found[0], farm.without(some)) and not torch.equal(found[0], found[2])


def test_trainings_that_do_not_fit_into_memory_are_refused_before_they_begin(monkeypatch, tmp_path):
    train, query = data(copies=2)
    how = {**HOW, "train": train, "asked": query, "seeds": range(3), "folder": tmp_path}
    nothing = torch.empty(0, dtype=torch.int64)
    wanted = Retrainings(**how).without(nothing)
    monkeypatch.setattr(_memory, "available", lambda: 1000)
    assert torch.equal(Retrainings(**how).without(nothing), wanted)  # finished ones take none
    with pytest.raises(ConfigError, match=r"Training 3 networks again, at once, .* stacked=False"):
        Retrainings(**how).without(torch.tensor([0]))
    with pytest.raises(ConfigError, match="Training a network again"):
        Retrainings(**how, stacked=False).without(torch.tensor([0]))


def test_lazy_rows_are_proved_as_those_in_memory():
    train, query, fitted = planted(1)
    names = list(train.batch)
    examples = [
        dict(zip(names, part, strict=True)) for part in zip(*train.batch.values(), strict=True)
    ]
    lazy = Rows.of(examples, train.ids, lazy=True)
    asked = Rows.of(
        [{name: tensor[0] for name, tensor in query.batch.items()}], query.ids, lazy=True
    )
    found, wanted = (
        turnover.prove(fitted, *pair, **HOW) for pair in ((asked, lazy), (query, train))
    )
    assert json.dumps(found.to_dict()) == json.dumps(wanted.to_dict())
