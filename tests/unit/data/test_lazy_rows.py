"""Rows that stay in their data set: every method says what it says of rows in memory."""

import threading
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler, Subset, SubsetRandomSampler

from turnover.baselines import GradDot, Retraining, Similarity, half_subsets
from turnover.data import Indexed, Rows
from turnover.errors import DataError, RunError
from turnover.estimators import FirstOrder, GradientKernel, TwoPass, attribute, explain
from turnover.leaks import check
from turnover.nn import convert
from turnover.training import Recipe, accuracy, fit, fit_split_ensemble, losses_of

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
# Blocks have other sizes, and round otherwise.
ROUNDING = {"atol": 1e-6, "rtol": 1e-4}


class Points(Dataset):
    """Numbered points, which count how many were fetched, and by which threads."""

    def __init__(self, rows, seed):
        generator = torch.Generator().manual_seed(seed)
        self.y = torch.arange(rows) % 3
        self.x = torch.randn(rows, 6, generator=generator) + 2 * F.one_hot(self.y, 6)
        self.fetched, self.threads = 0, set()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, row):
        self.fetched += 1
        self.threads.add(threading.get_ident())
        return self.x[row], self.y[row]


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


TRAIN, ASKED = Points(60, 0), Points(9, 1)
NUMBERS = torch.arange(60) + 500
RECIPE = Recipe(4, 16, optimizer=SGD)


@pytest.fixture(scope="module")
def lazy():
    return Rows.of(TRAIN, NUMBERS, lazy=True), Rows.of(ASKED, lazy=True)


@pytest.fixture(scope="module")
def held():
    return Rows.of(TRAIN, NUMBERS), Rows.of(ASKED)


@pytest.fixture(scope="module")
def model(held):
    found = build(0)
    fit(found, held[0], loss, RECIPE)
    return found


@pytest.mark.parametrize("stacked", [True, False])
def test_training_is_the_same(lazy, held, stacked):
    one, other = (
        fit_split_ensemble(build, rows[0], loss, RECIPE, pairs=2, stacked=stacked)
        for rows in (lazy, held)
    )
    for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def masked(held):
    found = build(0)
    convert(found, ["1"], seed=0)
    fit(found, held[0], loss, RECIPE)
    return found


ESTIMATORS = {
    "kernel": lambda model, _: GradientKernel(model, loss),
    "kernel of all classes": lambda model, _: GradientKernel(model, loss, link="classes"),
    "landmarks": lambda model, _: GradientKernel(model, loss, landmarks=20),
    "Grad-Dot": lambda model, _: GradDot(model, loss),
    "embeddings": lambda model, _: Similarity(model, loss, "1", labels=lambda batch: batch[1]),
    "first order": lambda _, masked: FirstOrder(masked, loss),
    "two passes": lambda _, masked: TwoPass(masked, loss),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scores_are_the_same(name, lazy, held, model):
    estimator = ESTIMATORS[name](model, masked(held))
    found, wanted = (
        explain(estimator, queries, rows, k=5).helpful
        for rows, queries in ((lazy[0], lazy[1]), (held[0], held[1]))
    )
    assert torch.equal(found.ids, wanted.ids)
    torch.testing.assert_close(found.scores, wanted.scores, **ROUNDING)


def test_attribution_and_an_index_take_them(lazy, held, model, tmp_path):
    found, wanted = (attribute(model, loss, queries, rows).scores for rows, queries in (lazy, held))
    torch.testing.assert_close(found.values, wanted.values, **ROUNDING)
    kernel = GradientKernel(model, loss)
    kernel.fit(lazy[0], folder=tmp_path)
    kernel.fit(lazy[0], folder=tmp_path)
    other = Points(60, 5)
    with pytest.raises(RunError, match="are not those"):
        kernel.fit(Rows.of(other, NUMBERS, lazy=True), folder=tmp_path)


def test_retrainings_take_them(lazy, held):
    members = half_subsets(60, 4, seed=0)
    one, other = (
        Retraining(build, loss, RECIPE).truth(rows, queries, members, (0,)).losses
        for rows, queries in (lazy, held)
    )
    torch.testing.assert_close(one, other, **ROUNDING)


def test_no_more_than_a_block_is_fetched_at_once(model):
    data, calls = Points(3000, 0), []

    def collate(examples):
        calls.append(len(examples))
        return torch.stack([x for x, _ in examples]), torch.stack([y for _, y in examples])

    rows = Rows.of(data, lazy=True, collate=collate)
    losses_of(model, loss, rows)
    GradientKernel(model, loss, landmarks=32).fit(rows)
    assert max(calls) <= 512 and data.fetched >= 3 * 3000


def test_workers_fetch_in_order(held, model):
    data = Points(60, 0)
    rows = Rows.of(data, NUMBERS, lazy=True, workers=3)
    torch.testing.assert_close(losses_of(model, loss, rows), losses_of(model, loss, held[0]))
    assert len(data.threads) > 1 or threading.get_ident() not in data.threads


def test_ids_collators_and_selections_are_kept(held):
    loader = DataLoader(Indexed(TRAIN, NUMBERS), batch_size=7)
    rows = Rows.of(loader, lazy=True)
    assert torch.equal(rows.ids, NUMBERS)
    few = rows.select(torch.tensor([5, 3]))
    assert len(few) == 2 and torch.equal(few.batch.fetch()[0], held[0].batch[0][[5, 3]])
    assert repr(rows) == "Rows(60 rows: of a Points, fetched when they are needed)"


class Random(Points):
    def __getitem__(self, row):
        return torch.randn(6), self.y[row]


def test_what_cannot_be_lazy_is_refused():
    with pytest.raises(DataError, match="others each time"):
        Rows.of(Random(9, 0), lazy=True)
    with pytest.raises(DataError, match="map-style"):
        Rows.of(iter([1, 2, 3]), lazy=True)
    with pytest.raises(DataError, match="no examples"):
        Rows.of(Points(0, 0), lazy=True)
    joined = lambda examples: torch.stack([x for x, _ in examples]).mean(0, keepdim=True)  # noqa: E731
    with pytest.raises(DataError, match="batch of 1 rows of 8 examples"):
        Rows.of(Points(9, 0), lazy=True, collate=joined)


class Words(Dataset):
    """Rows of one to six tokens, which a collator pads to the longest of a block."""

    def __init__(self, rows, lengths):
        generator = torch.Generator().manual_seed(3)
        self.ids = [torch.randint(1, 20, (n,), generator=generator) for n in lengths[:rows]]
        self.y = torch.arange(rows) % 2

    def __len__(self):
        return len(self.y)

    def __getitem__(self, row):
        return self.ids[row], self.y[row]


def padded(examples):
    ids = nn.utils.rnn.pad_sequence([ids for ids, _ in examples], batch_first=True)
    return ids, torch.stack([y for _, y in examples])


class MeanOfWords(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.look_up, self.head = nn.Embedding(20, 8), nn.Linear(8, 1)
        self.look_up.requires_grad_(False)

    def forward(self, ids):
        mask = (ids > 0).float()[..., None]
        return (self.head(torch.tanh(self.look_up(ids))) * mask).sum(1) / mask.sum(1)


def logistic(model, batch):
    z = model(batch[0])[:, 0] * (2 * batch[1] - 1)
    return F.softplus(-z)


@pytest.mark.parametrize("landmarks", [0, 20])
def test_blocks_of_one_position_have_the_gradients_of_others(landmarks):
    """300 rows of which a whole block is one token long, and queries alone and padded."""
    lengths = [1 + n % 6 for n in range(256)] + [1] * 44
    data, model = Words(300, lengths), MeanOfWords()
    kernel = GradientKernel(model, logistic, landmarks=landmarks)
    lazy = kernel.fit(Rows.of(data, lazy=True, collate=padded))
    held = kernel.fit(Rows.of(data, collate=padded))
    short = (torch.tensor([[5]]), torch.tensor([0]))
    long = (torch.tensor([[5, 0, 0]]), torch.tensor([0]))
    wanted = held.scores(long).values
    for fitted in (lazy, held):
        for query in (short, long):
            found = fitted.scores(query).values
            torch.testing.assert_close(found, wanted, atol=2e-3 * float(wanted.abs().max()), rtol=0)


def test_arrays_and_texts_count_in_an_index(model, tmp_path):
    x, y = TRAIN.x, TRAIN.y
    array, texts = x.numpy().copy(), [f"row {n}" for n in range(60)]

    def told(model, batch):
        return F.cross_entropy(model(torch.as_tensor(batch["x"])), batch["y"], reduction="none")

    kernel = GradientKernel(model, told)
    kernel.fit(Rows({"x": array, "y": y, "text": texts}), folder=tmp_path)
    changed = array.copy()
    changed[40:] += 1
    for other in ({"x": changed, "text": texts}, {"x": array, "text": [*texts[:59], "another"]}):
        with pytest.raises(RunError, match="are not those"):
            kernel.fit(Rows({**other, "y": y}), folder=tmp_path)


class Scaled(nn.Module):
    """With a parameter that no rule reads."""

    def __init__(self):
        super().__init__()
        self.inner, self.scale = build(0), nn.Parameter(torch.tensor([1.5]))

    def forward(self, x):
        return self.inner(x) * self.scale


def test_all_classes_of_a_model_that_is_read_row_by_row(lazy, held):
    kernel = GradientKernel(Scaled(), loss, link="classes")
    found, wanted = (kernel.fit(rows[0]).scores(rows[1]).values for rows in (lazy, held))
    torch.testing.assert_close(found, wanted, **ROUNDING)


def test_leaks_labels_and_accuracy_take_them(lazy, held):
    model = masked(held)
    report = check(model, lazy[0].select(slice(0, 16)).batch, loss)
    assert report.ok == check(model, held[0].select(slice(0, 16)).batch, loss).ok
    named = [{"x": x, "label": y} for x, y in zip(TRAIN.x, TRAIN.y, strict=True)]
    said = lambda model, batch: model(batch["x"])  # noqa: E731
    right = [accuracy(model, said, Rows.of(named, lazy=how)) for how in (True, False)]
    assert right[0] == right[1]


def test_loaders_that_leave_rows_out_are_refused():
    some = DataLoader(TRAIN, sampler=SubsetRandomSampler([1, 2, 3]))
    twice = DataLoader(TRAIN, sampler=RandomSampler(TRAIN, replacement=True))
    for loader in (some, twice):
        with pytest.raises(DataError, match="may leave rows out"):
            Rows.of(loader)
    assert len(Rows.of(DataLoader(TRAIN, batch_size=7, shuffle=True))) == 60
    below = Rows.of(Subset(Subset(Indexed(TRAIN, NUMBERS), [9, 8, 7]), [2, 0]), lazy=True)
    assert below.ids.tolist() == [507, 509]
    assert torch.equal(below.batch.fetch()[0], TRAIN.x[[7, 9]])


def test_a_collator_without_words_is_named():
    def wordless(examples):
        raise ValueError

    with pytest.raises(DataError, match="ValueError"):
        Rows.of(TRAIN, collate=wordless)


class Sometimes(Points):
    """A row is turned round in one of two draws."""

    def __getitem__(self, row):
        x, y = super().__getitem__(row)
        return (x.flip(0) if torch.rand(()) < 0.5 else x), y


def test_random_changes_and_random_texts_are_found():
    for seed in range(20):
        torch.manual_seed(seed)
        with pytest.raises(DataError, match="others each time"):
            Rows.of(Sometimes(30, 0), lazy=True)

    def worded(examples):
        x = torch.stack([x for x, _ in examples])
        return {"x": x, "text": [str(float(torch.rand(()))) for _ in examples]}

    with pytest.raises(DataError, match="others each time"):
        Rows.of(TRAIN, lazy=True, collate=worded)
