"""The peers' adapters: cases go through files unchanged, and every method knows good from bad.

The adapters run in environments of their own, which a clean checkout does not have; those tests are
skipped then. `python -m benchmarks.peers --install` makes them.
"""

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import peers
from benchmarks.peers import (
    METHODS,
    PEERS,
    PeerFailed,
    PeerMethod,
    _install as installing,
    _run as running,
    load_case,
    run_peer,
    save_case,
)

CLASSES = 4


def mlp():
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES)
    )


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 3, (3, 3), stride=2, padding=1, bias=False),
        nn.GELU(),
        nn.MaxPool2d(2),
        nn.Identity(),
        nn.Flatten(),
        nn.Linear(3 * 2 * 2, CLASSES),
    )


def rows(count, *shape):
    generator = torch.Generator().manual_seed(count)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return torch.randn(count, *shape, generator=generator), labels


@pytest.mark.parametrize(("make", "shape"), [(mlp, (3, 4)), (cnn, (1, 8, 8))])
def test_a_case_comes_back_as_it_was(tmp_path, make, shape):
    models = [make().eval(), make().eval()]
    train, queries = rows(10, *shape), rows(5, *shape)
    case = load_case(save_case(tmp_path / "case", models, train, queries))
    assert case.classes == CLASSES
    for (x, y), (found_x, found_y) in ((train, case.train), (queries, case.queries)):
        assert torch.equal(x, found_x) and torch.equal(y, found_y)
    for model, found in zip(models, case.models(), strict=True):
        assert repr(model) == repr(found)
        assert torch.equal(model(queries[0]), found(queries[0]))


def test_the_first_networks_of_a_case(tmp_path):
    models = [mlp(), mlp(), mlp()]
    save_case(tmp_path, models, rows(4, 12), rows(2, 12))
    assert len(load_case(tmp_path, runs=2).states) == 2
    with pytest.raises(ValueError, match="4 networks are asked for"):
        load_case(tmp_path, runs=4)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.PReLU(), "no word for"),
        (nn.Sequential(nn.ReLU()), "no word for"),
        (nn.Conv2d(2, 2, 3, groups=2), "would build"),
        (nn.Flatten(0), "would build"),
    ],
)
def test_a_layer_that_a_case_cannot_say_is_refused(tmp_path, layer, words):
    with pytest.raises(ValueError, match=words):
        save_case(tmp_path, [nn.Sequential(layer)], rows(4, 12), rows(2, 12))


def test_networks_of_two_kinds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one architecture"):
        save_case(tmp_path, [mlp(), cnn()], rows(4, 12), rows(2, 12))


def test_rows_without_labels_are_refused(tmp_path):
    x, y = rows(4, 12)
    with pytest.raises(ValueError, match="4 rows of x and 3 labels"):
        save_case(tmp_path, [mlp()], (x, y[:3]), rows(2, 12))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_an_adapter_and_a_grid(name):
    method = METHODS[name]
    source = (installing.ROOT / "benchmarks" / "peers" / f"{method.peer}.py").read_text()
    assert f'"{method.method}": ' in source
    assert method.peer in PEERS and not PEERS[method.peer].reason
    points = sum(len(s.get("damping", ())) for s in method.settings())
    assert points >= 5 or "damping" not in method.grid
    assert method.runs and method.tasks


def test_settings_are_all_combinations_with_the_dampings_together():
    method = PeerMethod("p", "m", "M", {"damping": (1.0, 2.0), "a": (1, 2), "b": ("x",)})
    both = (1.0, 2.0)
    assert list(method.settings()) == [
        {"a": 1, "b": "x", "damping": both},
        {"a": 2, "b": "x", "damping": both},
    ]
    assert list(method.settings({"a": (3,)})) == [{"a": 3, "b": "x", "damping": both}]
    assert list(PeerMethod("p", "m", "M", {}).settings()) == [{}]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_there_or_has_a_reason(name):
    found = peers.record(name)
    assert found["peer"] == name
    assert (peers.python_of(name) is None) == bool(found.get("reason"))


def test_a_failed_installation_is_recorded_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(installing, "HOME", tmp_path / "peers")
    monkeypatch.setitem(PEERS, "nothing", installing.Peer("nothing", (("nothing==0",),)))
    monkeypatch.setattr(installing, "_make", lambda _: "ERROR: there is no such thing")
    assert installing.install("nothing") == installing.record("nothing")
    assert "no such thing" in json.loads((tmp_path / "peers/nothing.json").read_text())["reason"]


def test_a_peer_that_is_missing_says_why(tmp_path):
    with pytest.raises(PeerFailed, match=r"Python < 3\.11"):
        run_peer("logix-ai", "any", tmp_path)


def test_of_what_pip_says_the_last_error_is_kept():
    said = (
        "WARNING: a\nERROR: could not find\nERROR: No matching distribution\n\n[notice] new pip\n"
    )
    assert installing._last_line(said) == "ERROR: No matching distribution"
    assert installing._last_line("Traceback\nImportError: no x\n") == "ImportError: no x"
    assert installing._last_line("")


COPIED = 5


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Networks for four clusters that overlap; the first queries copy the first instances.

    Those are the instances of highest loss: the others have gradients near zero, and little to say.
    """
    torch.manual_seed(0)
    centres = torch.randn(CLASSES, 12)
    y, new_y = torch.arange(80) % CLASSES, torch.arange(20) % CLASSES
    x, new_x = (centres[labels] + torch.randn(len(labels), 12) for labels in (y, new_y))
    models = [trained(x, y, seed) for seed in range(2)]
    losses = sum(nn.functional.cross_entropy(m(x), y, reduction="none") for m in models)
    order = losses.argsort(descending=True)
    x, y = x[order], y[order]
    queries = (torch.cat([x[:COPIED], new_x]), torch.cat([y[:COPIED], new_y]))
    return save_case(tmp_path_factory.mktemp("clusters"), models, (x, y), queries)


def trained(x, y, seed):
    torch.manual_seed(seed)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for _ in range(30):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_scores_of_a_peer_are_positive_for_what_helped(name, clusters):
    method = METHODS[name]
    if reason := peers.record(method.peer).get("reason"):
        pytest.skip(reason)
    damping = {"damping": (0.1,)} if "damping" in method.grid else {}
    (found,) = running.outcomes(method.peer, method.method, clusters, damping, own=method.own)
    assert found.scores is not None, found.cost
    case = load_case(clusters)
    copies = found.scores[:COPIED, :COPIED].diagonal()
    assert (copies > 0).all()
    assert (copies > np.quantile(found.scores[:COPIED], 0.9, axis=1)).all()
    same = (case.queries[1][:, None] == case.train[1]).numpy()
    assert found.scores[same].mean() > found.scores[~same].mean()
    if method.own:  # an instance and its copy among the queries are one to the method
        np.testing.assert_allclose(found.own[:COPIED], copies, rtol=1e-3)
    cost = found.cost
    assert cost["threads"] == 1 and cost["runs"] == 2 and cost["versions"]["torch"]
    assert cost["cache_seconds"] + cost["query_seconds"] > 0
    assert cost["bytes_per_instance"] >= 0 and 0 < cost["peak_mb"] < cost["peak_mb_absolute"]


@pytest.mark.slow
def test_several_dampings_share_what_they_can(clusters):
    if reason := peers.record("traker").get("reason"):
        pytest.skip(reason)
    knobs = {"damping": (1.0, 10.0), "dimension": 256}
    together = running.outcomes("traker", "TRAK", clusters, knobs)
    alone, cost = run_peer("traker", "TRAK", clusters, knobs | {"damping": 10.0})
    np.testing.assert_allclose(together[1].scores, alone, rtol=1e-4, atol=1e-6)
    assert not np.allclose(together[0].scores, alone)
    assert cost["bytes_per_instance"] == 2 * (256 + 1) * 4


@pytest.mark.slow
def test_a_method_that_is_not_there_ends_with_its_reason(clusters):
    if reason := peers.record("traker").get("reason"):
        pytest.skip(reason)
    with pytest.raises(PeerFailed, match="invalid choice"):
        run_peer("traker", "KART", clusters)
