"""Rows of a corpus against a target: the kernel's scores, streamed."""

import gc
import weakref

import pytest
import torch

import turnover
from tests.unit.estimators.kernel.small import SGD, build, data, loss
from turnover import GradientKernel, Rows
from turnover.errors import ConfigError, DataError, ScoreError
from turnover.training import Recipe, fit, fit_split_ensemble

TRAIN, TARGET = data(40, 1), data(5, 2)
# Single precision in the factorisation; the twin solves the same matrix in double.
ROUNDING = {"rtol": 2e-3, "atol": 1e-5}


@pytest.fixture(scope="module")
def trained():
    model = build(0)
    fit(model, TRAIN, loss, Recipe(3, 20, optimizer=SGD))
    return model


@pytest.fixture(scope="module")
def ensemble():
    return fit_split_ensemble(build, TRAIN, loss, Recipe(4, 20, optimizer=SGD), pairs=3)


KINDS = {
    "in the space of rows": {},
    "of all classes": {"link": "classes"},
    "of another loss": {"link": "none"},
    "from landmarks": {"landmarks": 20},
}


@pytest.mark.parametrize("kind", KINDS)
def test_of_training_rows_it_is_the_mean_of_their_scores(trained, ensemble, kind):
    for model in (trained, ensemble):
        fitted = GradientKernel(model, loss, damping=0.5, **KINDS[kind]).fit(TRAIN)
        found = turnover.select(fitted, TARGET, TRAIN, len(TRAIN))
        wanted = fitted.scores(TARGET).values.mean(dim=0)
        rounding = {**ROUNDING, "atol": 3e-3 * float(wanted.abs().max())}  # Z in half precision
        torch.testing.assert_close(found.scores.float(), wanted[found.positions], **rounding)
        assert found.scores.diff().max() <= 0 and torch.equal(TRAIN.ids[found.positions], found.ids)
        if model is trained:
            assert found.stderr is None and found.agreement is None
            continue
        pairs = fitted.by_pair(TARGET).mean(dim=1)
        error = (pairs.std(dim=0) / 3**0.5)[found.positions]
        torch.testing.assert_close(found.stderr.float(), error, rtol=0.02, atol=0.01 * error.max())


def test_in_the_space_of_features_it_is_the_same():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Flatten(), torch.nn.Linear(6, 3))
    model[2].requires_grad_(False)
    rows, target = (Rows((torch.randn(n, 2, 6), torch.randint(0, 3, (n,)))) for n in (120, 5))
    fitted = GradientKernel(model, loss, damping=0.5).fit(rows)
    assert not fitted.solves[0].dual
    found = turnover.select(fitted, target, rows, 120)
    wanted = fitted.scores(target).values.mean(dim=0)
    torch.testing.assert_close(found.scores.float(), wanted[found.positions], **ROUNDING)


def test_of_new_rows_it_is_the_equation(trained):
    """Explicit gradients of all parameters, in double precision."""
    fitted = GradientKernel(trained, loss, damping=0.5).fit(TRAIN)
    corpus = data(30, 4)

    def features(rows):
        model = trained.double()
        found, wrong = [], []
        for row in range(len(rows)):
            x, y = (part[row : row + 1] for part in rows.batch)
            value = loss(model, (x.double(), y))[0]
            wrong.append(-torch.expm1(-value.detach()))
            gradients = torch.autograd.grad(value, list(model.parameters()))
            found.append(-torch.cat([g.flatten() for g in gradients]) / wrong[-1])
        model.float()
        return torch.stack(found), torch.stack(wrong)

    (q, rq), (t, rt), (z, rz) = map(features, (TARGET, TRAIN, corpus))
    w = (rt * (1 - rt)).clamp_min(1e-4)
    h = (t * w[:, None]).T @ t
    h += 0.5 * (w * t.square().sum(dim=1)).mean() * torch.eye(len(h)).double()
    wanted = ((q * rq[:, None]).mean(dim=0) @ torch.linalg.solve(h, z.T)) * rz
    found = turnover.select(fitted, TARGET, corpus, 30)
    torch.testing.assert_close(found.scores, wanted[found.positions], **ROUNDING)


def test_a_stream_gives_what_the_whole_gives_and_keeps_no_part(ensemble):
    fitted = GradientKernel(ensemble, loss).fit(TRAIN)
    corpus = data(60, 5)
    alive = []

    def parts():
        for start in range(0, 60, 13):
            gc.collect()
            assert sum(part() is not None for part in alive) <= 1
            part = corpus.select(slice(start, start + 13))
            alive.append(weakref.ref(part))
            yield part

    whole = turnover.select(fitted, TARGET, corpus, 9)
    found = turnover.select(fitted, TARGET, parts(), 9, rows_at_once=5)
    assert found.positions.tolist() == whole.positions.tolist() and found.rows == whole.rows == 60
    torch.testing.assert_close(found.scores, whole.scores)
    assert len(turnover.select(fitted, TARGET, corpus, 100)) == 60
    assert turnover.select(fitted, TARGET, corpus, 9).sources == ()


def test_sums_over_sources_have_errors_by_the_pairs(ensemble):
    fitted = GradientKernel(ensemble, loss).fit(TRAIN)
    corpus, names = data(40, 1), ["one" if row % 3 else "two" for row in range(40)]
    half = (corpus.select(slice(0, 25)), names[:25]), (corpus.select(slice(25, 40)), names[25:])
    found = turnover.select(fitted, TARGET, half, 1)
    pairs = fitted.by_pair(TARGET).mean(dim=1)
    assert {one.source for one in found.sources} == {"one", "two"}
    for one in found.sources:
        sums = pairs[:, [name == one.source for name in names]].sum(dim=1)
        assert one.rows == names.count(one.source)
        assert one.total == pytest.approx(float(sums.mean()), rel=1e-2, abs=1e-5)
        assert one.stderr == pytest.approx(float(sums.std() / 3**0.5), rel=2e-2)
        assert one.mean == one.total / one.rows
    assert found.sources[0].total >= found.sources[1].total


def test_what_cannot_be_selected_is_told(trained):
    fitted = GradientKernel(trained, loss).fit(TRAIN)
    with pytest.raises(ScoreError, match="At least one row"):
        turnover.select(fitted, TARGET, TRAIN, 0)
    with pytest.raises(DataError, match="no rows to select from"):
        turnover.select(fitted, TARGET, [], 3)
    with pytest.raises(DataError, match="40 rows and 2 sources"):
        turnover.select(fitted, TARGET, [(TRAIN, ["a", "b"])], 3)
    broken = Rows((torch.full((1, 6), torch.inf), torch.zeros(1, dtype=torch.int64)), [7])
    with pytest.raises((ScoreError, turnover.LossError)):
        turnover.select(fitted, TARGET, broken, 3)


def known():
    return GradientKernel(build(0), loss, damping=0.5).fit(TRAIN)


def test_sources_may_be_of_any_kind_of_column():
    numpy, pandas = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    numbers = [0, 1] * 20
    fitted = known()
    wanted = turnover.select(fitted, TARGET, [(TRAIN, numbers)], 3).sources
    assert {one.source for one in wanted} == {0, 1}
    for given in (numpy.array(numbers), torch.tensor(numbers), pandas.Series(numbers)):
        assert turnover.select(fitted, TARGET, [(TRAIN, given)], 3).sources == wanted
    words = pandas.Series(["a", "b"] * 20, index=range(40, 0, -1))
    found = turnover.select(fitted, TARGET, [(TRAIN, words)], 3).sources
    assert [(one.source, one.total) for one in found] == [
        ("ab"[int(one.source)], one.total) for one in wanted
    ]


def test_missing_sources_are_one_source_without_a_name():
    given = torch.tensor([0.0, float("nan")] * 20)
    found = turnover.select(known(), TARGET, [(TRAIN, given)], 3).sources
    assert {one.source: one.rows for one in found} == {0.0: 20, None: 20}


def test_one_part_needs_no_list_around_it():
    fitted, names = known(), ["a", "b"] * 20
    alone = turnover.select(fitted, TARGET, (TRAIN, names), 3)
    assert alone.sources == turnover.select(fitted, TARGET, [(TRAIN, names)], 3).sources
    two = (data(4, 5), data(6, 7))
    assert turnover.select(fitted, TARGET, two, 3).rows == 10, "a tuple of rows is a stream"
    marked = ((data(4, 5), ["a"] * 4), (data(6, 7), ["b"] * 6))
    assert turnover.select(fitted, TARGET, marked, 3).rows == 10, "and one of parts"


@pytest.mark.parametrize(
    ("corpus", "k", "kind", "says"),
    [
        (TRAIN.batch, 3, DataError, "Rows"),
        ({"x": torch.eye(3)}, 3, DataError, "Rows"),
        (torch.eye(3), 3, DataError, "Rows"),
        (None, 3, DataError, "Rows"),
        ([TRAIN.batch], 3, DataError, "Rows"),
        ([(TRAIN, "shop")], 3, DataError, "one name for each row"),
        ([(TRAIN, 7)], 3, DataError, "one name for each row"),
        ([(TRAIN, [["a"]] * 40)], 3, DataError, "word or a number"),
        ([(TRAIN, torch.tensor(7))], 3, DataError, "one name for each row"),
        ([(TRAIN, torch.zeros(3))], 3, DataError, "3 sources"),
        (TRAIN, 2.5, ConfigError, "whole"),
        (TRAIN, "3", ConfigError, "whole"),
        (TRAIN, True, ConfigError, "whole"),
    ],
)
def test_what_cannot_be_selected_from_is_said_in_words(corpus, k, kind, says):
    with pytest.raises(kind, match=says):
        turnover.select(known(), TARGET, corpus, k)
