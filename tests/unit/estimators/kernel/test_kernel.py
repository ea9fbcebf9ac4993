"""Kernel scores against their closed form, and damping that split ensembles choose."""

import copy
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover._functional import per_example_gradients
from turnover.baselines import CG, KohLiang
from turnover.data import Rows
from turnover.errors import LossError, RunError, ScoreError
from turnover.estimators import GateKernel, GradientKernel, LinkWarning, gate_gradients
from turnover.estimators.kernel import _fitted
from turnover.estimators.kernel._damping import GRID, hill_climb, odd_share, prediction_of_halves
from turnover.estimators.kernel._links import LINKS, link_named
from turnover.estimators.kernel._ridge import Ridge
from turnover.nn import convert
from turnover.training import Recipe, fit, fit_split_ensemble, losses_of

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9, weight_decay=0.001)
# float32 kernels of a few dozen products, factorised with condition numbers of up to 1e3.
ROUNDING = {"atol": 1e-5, "rtol": 2e-3}


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def squared(model, batch):
    return (model(batch[0]).squeeze(1) - batch[1]).square() / 2


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3, bias=False))


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    return Rows((torch.randn(60, 6) + 2 * F.one_hot(y, 6), y), torch.arange(60) + 500)


@pytest.fixture(scope="module")
def queries():
    torch.manual_seed(1)
    y = torch.arange(9) % 3
    return Rows((torch.randn(9, 6) + 2 * F.one_hot(y, 6), y))


@pytest.fixture(scope="module")
def trained(rows):
    model = build(0)
    fit(model, rows, loss, Recipe(3, 20, optimizer=SGD))
    return model


@pytest.fixture(scope="module")
def ensemble(rows):
    return fit_split_ensemble(build, rows, loss, Recipe(5, 20, optimizer=SGD), pairs=3)


def twin(networks, queries, rows, damping):
    """The equation, in float64, with explicit gradients; averaged over networks."""

    def phi(model, part):
        model = model.double()
        batch = (part.batch[0].double(), part.batch[1])
        gradients = torch.cat(list(per_example_gradients(model, loss, batch)))
        wrong = 1 - (-loss(model, batch)).exp().detach()
        model.float()
        return -gradients / wrong[:, None], wrong

    asked, known = ([phi(model, part) for model in networks] for part in (queries, rows))
    r = torch.stack([wrong for _, wrong in known]).mean(dim=0)
    w = (r * (1 - r)).clamp_min(1e-4)
    total = torch.zeros(len(queries), len(rows)).double()
    for (a, _), (k, _) in zip(asked, known, strict=True):
        h = (k * w[:, None]).T @ k
        h += damping * (w * k.square().sum(dim=1)).mean() * torch.eye(len(h)).double()
        total += a @ torch.linalg.solve(h, k.T) * r / len(networks)
    return total * torch.stack([wrong for _, wrong in asked]).mean(dim=0)[:, None]


@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_scores_are_the_equation(trained, queries, rows, damping):
    found = GradientKernel(trained, loss, damping=damping).scores(queries, rows)
    wanted = twin([trained], queries, rows, damping)
    torch.testing.assert_close(found.values, wanted.float(), **ROUNDING)
    assert torch.equal(found.train_ids, rows.ids)
    assert torch.equal(found.query_ids, queries.ids)


def test_scores_of_split_ensembles_are_the_mean_of_the_equation(ensemble, queries, rows):
    kernel = GradientKernel(ensemble, loss, damping=0.3).fit(rows)
    wanted = twin(list(ensemble.members), queries, rows, 0.3) * kernel.slope
    torch.testing.assert_close(kernel.scores(queries).values, wanted.float(), **ROUNDING)


def test_linear_regression_has_the_influence_function():
    """With the squared link, Σ φφᵀ is the Hessian itself: Koh and Liang 2017, to rounding."""
    torch.manual_seed(3)
    x = torch.randn(30, 4)
    rows, asked = Rows((x, torch.randn(30))), Rows((torch.randn(5, 4), torch.randn(5)))
    model = nn.Linear(4, 1)
    x1 = torch.cat([x, torch.ones(30, 1)], dim=1)
    absolute = 0.2 * x1.square().sum(dim=1).mean()
    found = GradientKernel(model, squared, link="squared", damping=0.2).scores(asked, rows)
    rival = KohLiang(model, squared, CG(1e-9, 200), damping=float(absolute) / 30)
    wanted = rival.scores(asked, rows)
    torch.testing.assert_close(found.values, wanted.values, atol=1e-5, rtol=1e-3)


def test_squares_of_several_networks_are_refused(rows):
    """Networks that are off on different sides would be averaged with mixed signs."""

    def narrow(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Linear(6, 1)

    numbers = Rows((rows.batch[0], rows.batch[1].float()), rows.ids)
    ensemble = fit_split_ensemble(narrow, numbers, squared, Recipe(2, 20, optimizer=SGD), pairs=1)
    with pytest.raises(ScoreError, match="not on which side"):
        GradientKernel(ensemble, squared, link="squared").fit(numbers)


def error(model, batch):
    return batch[1] - model(batch[0]).squeeze(1)


def test_errors_score_one_network_as_their_squares_do(rows):
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))
    numbers = Rows((rows.batch[0], torch.randn(len(rows))), rows.ids)
    asked = numbers.select(slice(0, 7))
    one = GradientKernel(model, squared, link="squared", damping=0.2).scores(asked, numbers)
    other = GradientKernel(model, error, link="residual", damping=0.2).scores(asked, numbers)
    torch.testing.assert_close(one.values, other.values, **ROUNDING)


def test_errors_of_several_linear_networks_have_a_closed_form(rows):
    """φ = x in every network: mean errors of both rows, times xᵀ (XᵀX + λ)⁻¹ x'."""

    def narrow(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Linear(6, 1, bias=False)

    x = rows.batch[0]
    numbers = Rows(
        (x, torch.randn(len(rows), generator=torch.Generator().manual_seed(1))), rows.ids
    )
    ensemble = fit_split_ensemble(narrow, numbers, squared, Recipe(2, 20, optimizer=SGD), pairs=2)
    fitted = GradientKernel(ensemble, error, link="residual", damping=0.2).fit(numbers)
    found = fitted.scores(numbers.select(slice(0, 9)))
    with torch.no_grad():
        e = torch.stack([error(m, numbers.batch) for m in ensemble.members]).mean(dim=0).double()
    x = x.double()
    gram = x.T @ x + 0.2 * x.square().sum(dim=1).mean() * torch.eye(6).double()
    wanted = fitted.slope * e[:9, None] * (x[:9] @ gram.inverse() @ x.T) * e
    torch.testing.assert_close(found.values.double(), wanted, atol=1e-5, rtol=1e-3)
    assert (e > 0).any() and (e < 0).any()  # so that a lost sign would show
    assert bool((found.stderr >= 0).all())


def test_other_losses_than_errors_are_told(rows):
    numbers = Rows((rows.batch[0], torch.randn(len(rows))), rows.ids)
    with pytest.warns(LinkWarning, match="not errors y − f"):
        GradientKernel(nn.Linear(6, 1), squared, link="residual").fit(numbers)


@pytest.mark.parametrize("name", sorted(LINKS))
def test_links_split_the_gradient(name):
    """∇L = −r φ and φ = ∇ output, with the curvature of the loss along the output."""
    link = link_named(name)
    outputs = torch.linspace(-2, 3, 9, dtype=torch.float64)
    if name in ("log-odds", "classes"):
        losses = F.softplus(-outputs)
        slope, bend = -torch.sigmoid(-outputs), torch.sigmoid(outputs) * torch.sigmoid(-outputs)
    elif name == "squared":
        outputs = -outputs.abs() - 0.1
        losses, slope, bend = outputs.square() / 2, outputs, torch.ones(9).double()
    elif name == "residual":  # of ½ e² with e = y − f, at y = 0; ∇e = −∇f
        losses, slope, bend = -outputs, outputs, torch.ones(9).double()
        torch.testing.assert_close(link.scale(losses), -torch.ones(9).double())
        torch.testing.assert_close(-link.residual(losses), slope)
        torch.testing.assert_close(link.output(losses), outputs)
        return
    else:
        losses, slope, bend = -outputs, -torch.ones(9).double(), torch.ones(9).double()
    residual = link.residual(losses)
    torch.testing.assert_close(-residual, slope)
    torch.testing.assert_close(link.scale(losses) * slope, torch.ones(9).double())
    torch.testing.assert_close(link.curvature(residual), bend)
    torch.testing.assert_close(link.output(losses), outputs)


def test_dual_and_primal_agree(trained, queries, rows):
    model = copy.deepcopy(trained)
    convert(model, "1")
    few, many = rows.select(slice(0, 10)), rows
    for part in (few, many):
        kernel = GateKernel(model, loss, damping=0.2).fit(part)
        ridge = kernel.solves[0]
        assert ridge.dual == (len(part) <= 16)
        other = Ridge.of(ridge.blocks, ridge.root.square(), 0.2)
        blocks = ridge.blocks[0].a
        h = (blocks * ridge.root.square()[:, None]).T @ blocks
        mean = (blocks.square().sum(dim=1) * ridge.root.square()).mean()
        inverse = torch.linalg.inv(h + 0.2 * mean * torch.eye(len(h)))
        wanted = blocks @ inverse @ blocks.T
        torch.testing.assert_close(other.influence(ridge.blocks), wanted, **ROUNDING)
        torch.testing.assert_close(other.leverage(), wanted.diagonal(), **ROUNDING)


def test_gate_scores_read_the_gates(trained, queries, rows):
    model = copy.deepcopy(trained)
    convert(model, "1")
    kernel = GateKernel(model, loss, damping=0.2).fit(rows)
    gradients = gate_gradients(model, loss, rows.batch)[1][0]
    wrong = 1 - (-loss(model, rows.batch)).exp().detach()
    torch.testing.assert_close(kernel.solves[0].blocks[0].a, -gradients / wrong[:, None])
    assert kernel.bytes_per_instance == pytest.approx(4 * 16 + 4 * 16 * 16 / 60)
    sides = [1 - (-losses_of(model, loss, rows, side)).exp() for side in ("seen", "unseen")]
    torch.testing.assert_close(kernel.residual, (sides[0] + sides[1]) / 2)


def test_self_scores_are_the_diagonal(trained, ensemble, rows):
    converted = copy.deepcopy(trained)
    convert(converted, "1")
    for kernel in (GradientKernel(trained, loss), GradientKernel(ensemble, loss)):
        fitted = kernel.fit(rows)
        wanted = fitted.scores(rows).values.diagonal()
        torch.testing.assert_close(fitted.self_scores(), wanted, **ROUNDING)
        assert (wanted > 0).all(), "every instance helps itself"


def test_blocks_of_rows_change_nothing(ensemble, queries, rows, monkeypatch):
    whole = GradientKernel(ensemble, loss).scores(queries, rows).values
    monkeypatch.setattr(_fitted, "ROWS_PER_BLOCK", 7)
    torch.testing.assert_close(
        GradientKernel(ensemble, loss).scores(queries, rows).values, whole, **ROUNDING
    )


def test_the_first_of_a_stream_are_those_of_all(ensemble, queries, rows):
    kernel = GradientKernel(ensemble, loss).fit(rows)
    for kind in ("helpful", "harmful"):
        wanted = kernel.scores(queries).top(4, kind)
        found = kernel.top(queries, 4, kind, memory_mb=1e-9)
        assert torch.equal(found.ids, wanted.ids)
        torch.testing.assert_close(found.scores, wanted.scores, **ROUNDING)


def test_models_are_left_as_found(trained, ensemble, queries, rows):
    for model in (trained, ensemble):
        model.train()
        model.zero_grad()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        GradientKernel(model, loss).scores(queries, rows)
        assert model.training and all(module.training for module in model.modules())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(parameter.grad is None for parameter in model.parameters())


def test_features_are_kept_and_checked(ensemble, queries, rows, tmp_path):
    kernel = GradientKernel(ensemble, loss, folder=tmp_path)
    first = kernel.scores(queries, rows).values
    assert len(list(tmp_path.glob("network-*/rows-*.safetensors"))) == 6
    (tmp_path / "index.json").unlink()
    next(tmp_path.glob("network-2/rows-*")).unlink()
    assert torch.equal(kernel.scores(queries, rows).values, first)
    other = Rows((rows.batch[0] + 1, rows.batch[1]), rows.ids)
    with pytest.raises(RunError, match="other work"):
        kernel.fit(other)
    with pytest.raises(RunError, match="other work"):
        replace(kernel, link="none").fit(rows)


def test_split_ensembles_choose_the_damping(ensemble, rows):
    kernel = GradientKernel(ensemble, loss).fit(rows)
    near = min(GRID, key=lambda rung: abs(math.log(rung / kernel.damping)))
    for rung in range(max(0, GRID.index(near) - 1), min(len(GRID), GRID.index(near) + 2)):
        other = GradientKernel(ensemble, loss, damping=GRID[rung]).fit(rows)
        # The vertex of a parabola through three agreements is no worse than them, but for its own
        # error, which is less than what lies between two rungs.
        assert other.agreement <= kernel.agreement + 0.01
    assert kernel.agreement > 0.3, "halves of 30 instances differ by what they hold"
    assert kernel.about["agreement"] == kernel.agreement


def test_without_split_ensembles_the_damping_is_the_default(trained, rows):
    kernel = GradientKernel(trained, loss).fit(rows)
    assert (kernel.damping, kernel.agreement, kernel.slope) == (0.3, None, 1.0)


@pytest.mark.parametrize("peak", range(len(GRID)))
def test_climbing_finds_the_highest_rung(peak):
    tried = []

    def quality(damping):
        tried.append(damping)
        return -abs(GRID.index(damping) - peak)

    assert hill_climb(quality) == GRID[peak]
    assert len(tried) == len(set(tried)) <= abs(peak - GRID.index(0.3)) + 3


@pytest.mark.parametrize("peak", [0.02, 0.3, 0.5, 2.0])
def test_climbing_finds_peaks_between_rungs(peak):
    """A parabola over log λ is found to what unlike distances of rungs, 3 and 3.3, leave."""
    found = hill_climb(lambda damping: -(math.log(damping / peak) ** 2))
    assert math.log(found / peak) == pytest.approx(0, abs=0.06)


def test_differences_of_linear_split_ensembles_are_predicted_exactly():
    torch.manual_seed(0)
    influence, coins = torch.randn(20, 50), torch.rand(3, 50) < 0.5
    members = torch.cat([coins, ~coins])
    outputs = 2.5 * members.float() @ influence.T
    halves = coins.float().T * 2 - 1
    agreement, slope = prediction_of_halves([influence @ halves] * 6, outputs)
    assert agreement == pytest.approx(1, abs=1e-5)
    assert slope == pytest.approx(2.5, abs=1e-4)
    noise = [torch.randn(20, 50) @ halves for _ in range(6)]
    assert abs(prediction_of_halves(noise, outputs)[0]) < 0.5


def test_a_pair_is_predicted_without_its_own_members():
    """Pair 0 is predicted by the members of pair 1, and the other way round."""
    torch.manual_seed(0)
    coins = torch.rand(2, 50) < 0.5
    outputs = torch.randn(4, 20)
    influence = [torch.randn(20, 50) for _ in range(4)]
    signs = coins.float() * 2 - 1
    x = [(influence[1] + influence[3]) @ signs[0] / 2, (influence[0] + influence[2]) @ signs[1] / 2]
    y = [outputs[0] - outputs[2], outputs[1] - outputs[3]]
    x, y = (torch.cat([part - part.mean() for part in each]) for each in (x, y))
    agreement, slope = prediction_of_halves([part @ signs.T for part in influence], outputs)
    assert agreement == pytest.approx(float(torch.corrcoef(torch.stack([x, y]))[0, 1]), abs=1e-5)
    assert slope == pytest.approx(float(x @ y / (x @ x)), abs=1e-5)


def test_halves_that_do_not_differ_agree_with_nothing():
    moved = [torch.randn(20, 2) for _ in range(4)]
    assert prediction_of_halves(moved, torch.ones(4, 20)) == (0.0, 0.0)


def test_a_prediction_of_the_wrong_sign_does_not_turn_the_scores(
    ensemble, queries, rows, monkeypatch
):
    """Noise must not make every helpful instance a harmful one."""
    monkeypatch.setattr(_fitted, "prediction_of_halves", lambda *_: (-0.1, -0.2))
    kernel = GradientKernel(ensemble, loss, damping=0.3).fit(rows)
    assert (kernel.agreement, kernel.slope) == (-0.1, 1.0)
    assert (kernel.self_scores() > 0).all()


def test_bad_arguments_are_refused(trained, ensemble, rows, queries):
    for wrong in (0.0, -1.0):
        with pytest.raises(ScoreError, match="above 0"):
            GradientKernel(trained, loss, damping=wrong).fit(rows)
    with pytest.raises(ScoreError, match="'log-odds'"):
        GradientKernel(trained, loss, link="logit").fit(rows)
    with pytest.raises(ScoreError, match="at least 0"):
        GradientKernel(trained, loss, landmarks=-1).fit(rows)
    with pytest.raises(ScoreError, match="too few"):
        GateKernel(ensemble, loss).fit(rows)
    with pytest.raises(LossError):
        GradientKernel(trained, lambda model, batch: loss(model, batch).mean()).fit(rows)
    flat = nn.Sequential(nn.Linear(6, 3))
    nn.init.zeros_(flat[0].weight)
    with pytest.raises(ScoreError, match="are zero"):
        constant = lambda model, batch: 0 * model(batch[0]).sum(dim=1) + 1  # noqa: E731
        GradientKernel(flat, constant, link="none").fit(rows)


def test_rows_made_under_inference_mode_are_read(trained, queries, rows):
    """Features of a frozen encoder often are, and torch saves none of them for a backward pass."""
    with torch.inference_mode():
        frozen = [Rows(tuple(part.clone() for part in r.batch), r.ids) for r in (queries, rows)]
    assert frozen[0].batch[0].is_inference()
    kernel = GradientKernel(trained, loss, damping=0.1)
    found = kernel.scores(*frozen)
    torch.testing.assert_close(found.values, kernel.scores(queries, rows).values)
    fit(build(3), frozen[1], loss, Recipe(1, 20, optimizer=SGD))


@pytest.mark.parametrize(("odd", "even"), [(1, 0), (0, 1), (1, 1), (2, 1)])
def test_the_odd_share_of_pairs_is_that_of_the_variance(odd, even):
    """Of 2,000 queries; chance takes it towards a half and never beyond."""
    generator = torch.Generator().manual_seed(0)
    signs = torch.cat([(half := torch.randn(6, 1, 2000, generator=generator)), -half])[:, 0]
    rest = torch.randn(6, 2000, generator=generator).repeat(2, 1)
    outputs = odd * signs + even * rest + torch.randn(2000, generator=generator) * 5
    wanted = odd**2 / (odd**2 + even**2)
    assert odd_share(outputs)[0] == pytest.approx(wanted, abs=0.02)
    noisy, _ = odd_share(outputs + torch.randn(12, 2000, generator=generator))
    assert min(0.5, wanted) - 0.02 <= noisy <= max(0.5, wanted) + 0.02


def test_the_error_of_the_odd_share_is_its_spread_over_draws():
    """300 draws of six pairs that are all odd, and mostly chance; the jackknife is no closer."""
    draws = []
    for seed in range(300):
        generator = torch.Generator().manual_seed(seed)
        half = 0.5 * torch.randn(6, 32, generator=generator)
        draws.append(odd_share(torch.cat([half, -half]) + torch.randn(12, 32, generator=generator)))
    shares, errors = torch.tensor(draws).T
    assert float(errors.mean()) == pytest.approx(float(shares.std()), rel=0.3)
    assert float((shares + 3 * errors < 0.5).float().mean()) < 0.01, "a warning that is wrong"


def test_few_pairs_and_equal_outputs_have_no_odd_share():
    assert odd_share(torch.randn(6, 50)) is None
    assert odd_share(torch.ones(8, 50)) is None


def test_scores_say_the_odd_share_of_many_queries(rows):
    many = rows.select(slice(0, 40))
    ensemble = fit_split_ensemble(build, rows, loss, Recipe(2, 20, optimizer=SGD), pairs=4)
    fitted = GradientKernel(ensemble, loss).fit(rows)
    outputs = torch.stack([losses_of(member, loss, many) for member in ensemble.members])
    wanted, error = odd_share(fitted.config.link.output(outputs))
    about = fitted.scores(many).about
    assert about["odd_share"] == pytest.approx(wanted)
    assert about["odd_share_stderr"] == pytest.approx(error)
    assert "odd_share" not in fitted.scores(many.select(slice(0, 3))).about
