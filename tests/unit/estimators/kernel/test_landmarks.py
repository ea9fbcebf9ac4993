"""Nyström features against explicit projections, and how landmarks are drawn."""

import pytest
import torch

from tests.reference.kernels import log_odds, nystrom_scores
from tests.unit.estimators.kernel.small import SGD, build, data, loss
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators import GradientKernel, attribute
from turnover.estimators.kernel import _landmarks, _plan
from turnover.estimators.kernel._damping import prediction_of_halves
from turnover.estimators.kernel._landmarks import LandmarkRidge, draw, row_blocks
from turnover.training import Recipe, fit, fit_split_ensemble, losses_of

# Half precision keeps 11 bits of each feature, and W is damped by 1e-5.
ROUNDING = {"atol": 2e-4, "rtol": 1e-2}


@pytest.fixture(scope="module")
def trained():
    model = build(0)
    fit(model, data(80, 1), loss, Recipe(3, 20, optimizer=SGD))
    return model


def test_scores_are_those_of_projected_gradients(trained):
    rows, queries, m, damping = data(80, 1), data(9, 2), 20, 0.3
    fitted = GradientKernel(trained, loss, damping=damping, landmarks=m).fit(rows)
    assert isinstance(fitted.solves[0], LandmarkRidge)
    r, w = fitted.residual.double(), fitted.config.link.curvature(fitted.residual)
    phi_q, phi = (log_odds(trained, *part.batch) for part in (queries, rows))
    wanted = nystrom_scores(phi_q, phi, w.double(), phi[draw(w, m)], damping)
    asked = 1 - (-loss(trained, queries.batch)).exp().detach().double()
    wanted = wanted * r * asked[:, None]
    found = fitted.scores(queries).values.double()
    torch.testing.assert_close(found / wanted.abs().max(), wanted / wanted.abs().max(), **ROUNDING)
    assert 0 < fitted.rounding < 1e-3
    own = fitted.scores(rows).values.diagonal()
    torch.testing.assert_close(fitted.self_scores(), own, **ROUNDING)


def test_all_rows_as_landmarks_are_the_exact_solve(trained):
    rows, queries = data(80, 1), data(9, 2)
    exact = GradientKernel(trained, loss, landmarks=0).scores(queries, rows).values
    seen = GradientKernel(trained, loss, landmarks=80).scores(queries, rows).values
    torch.testing.assert_close(seen / exact.abs().max(), exact / exact.abs().max(), **ROUNDING)


def test_pairs_choose_and_check_through_landmarks():
    rows = data(80, 1)
    model = fit_split_ensemble(build, rows, loss, Recipe(5, 20, optimizer=SGD), pairs=3)
    exact, seen = (GradientKernel(model, loss, landmarks=m).fit(rows) for m in (0, 80))
    assert seen.damping == exact.damping
    assert seen.agreement == pytest.approx(exact.agreement, abs=0.01)
    assert seen.slope == pytest.approx(exact.slope, rel=0.05)


def test_landmarks_come_where_an_exact_solve_is_too_large(trained, monkeypatch):
    rows = data(80, 1)
    assert GradientKernel(trained, loss).fit(rows).about["landmarks"] == 0
    monkeypatch.setattr(_plan, "EXACT_BYTES", 10_000)
    monkeypatch.setattr(_plan, "FEWEST", 16)
    fitted = GradientKernel(trained, loss).fit(rows)
    assert fitted.about["landmarks"] == 10_000 // 2 // (2 * 80)
    assert fitted.bytes_per_instance < 2 * 31 + 200 * 31 / 80 * 31


def test_what_landmarks_cover_is_a_share_of_the_curvature(trained):
    """By explicit projection: Σ w ‖P φ‖² over Σ w ‖φ‖²; all rows cover everything."""
    rows, m = data(80, 1), 10
    fitted = GradientKernel(trained, loss, damping=0.3, landmarks=m).fit(rows)
    w = fitted.config.link.curvature(fitted.residual).double()
    phi = log_odds(trained, *rows.batch)
    span = torch.linalg.qr(phi[draw(w, m)].T).Q
    wanted = (w * (phi @ span).square().sum(dim=1)).sum() / (w * phi.square().sum(dim=1)).sum()
    assert fitted.about["covered_by_landmarks"] == pytest.approx(float(wanted), abs=1e-3)
    whole = GradientKernel(trained, loss, damping=0.3, landmarks=80).fit(rows)
    assert whole.about["covered_by_landmarks"] == pytest.approx(1, abs=1e-3)
    reason = attribute(trained, loss, rows.select(slice(0, 2)), rows).reason
    assert "landmarks" not in reason, "an exact solve has none"


def test_attribution_says_what_landmarks_cover(trained, monkeypatch):
    monkeypatch.setattr(_plan, "EXACT_BYTES", 10_000)
    monkeypatch.setattr(_plan, "FEWEST", 16)
    rows = data(80, 1)
    found = attribute(trained, loss, rows.select(slice(0, 2)), rows)
    covered = found.scores.about["covered_by_landmarks"]
    assert f"31 landmarks stand for all rows: they cover {covered:.0%}" in found.reason


def test_draws_follow_the_weights():
    weight = torch.tensor([0.0] * 50 + [1.0] * 50 + [9.0] * 50)
    chosen = draw(weight, 40)
    assert torch.equal(chosen, draw(weight, 40)) and len(chosen.unique()) == 40
    assert (chosen >= 50).all(), "rows without weight come last"
    assert (chosen >= 100).sum() > 3 * (chosen < 100).sum()
    assert torch.equal(draw(weight, 150), torch.arange(150))


def test_parts_are_streamed_in_order():
    parts = [torch.randn(300, 3).half(), torch.randn(1, 3).half(), torch.randn(257, 3).half()]
    whole = torch.zeros(558, 3)
    for place, few in row_blocks(parts, parts[0].device):
        whole[place] = few
    assert torch.equal(whole, torch.cat(parts).float())


def test_rows_far_beyond_the_landmarks_are_refused(trained):
    x, y = data(80, 1).batch
    x = x.clone()
    x[7] *= 1e8
    y = y.clone()
    with torch.no_grad():
        y[7] = trained(x[7:8]).argmin()
    fitted = GradientKernel(trained, loss, landmarks=3, check=False)
    with pytest.raises(ScoreError, match=r"training row 7 .*half precision|single precision"):
        fitted.fit(Rows((x, y)))


def test_a_split_ensemble_chooses_its_damping_without_train_sized_matrices(monkeypatch):
    """In parts, and equal to the sums of the whole matrix of influence."""
    model = fit_split_ensemble(build, data(80, 1), loss, Recipe(5, 20, optimizer=SGD), pairs=2)
    rows = data(80, 1)
    monkeypatch.setattr(_landmarks, "PART", 16)
    fitted = GradientKernel(model, loss, damping=0.3, landmarks=80).fit(rows)
    probes = torch.randperm(80, generator=torch.Generator("cpu").manual_seed(0))
    coins = model.trains_on(rows.mask_ids)[:2].float() * 2 - 1
    few = rows.select(probes)
    moved = [
        solve.influence(fitted.config.features_of(network, few)) * fitted.residual @ coins.T
        for network, solve in zip(fitted.networks, fitted.solves, strict=True)
    ]
    outputs = torch.stack(
        [fitted.config.link.output(losses_of(n, loss, few)) for n in fitted.networks]
    )
    agreement, slope = prediction_of_halves(moved, outputs)
    assert fitted.agreement == pytest.approx(agreement, abs=2e-3)  # half precision
    assert fitted.slope == pytest.approx(slope, rel=5e-3)
