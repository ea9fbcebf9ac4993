"""The sentences of a report on a regression, whose labels are numbers."""

from turnover.reports.data._story import Tile
from turnover.runs.results import Fit

__all__ = ["deck", "headline", "tiles", "told_r2"]


def told_r2(share: float | None) -> str:
    """R² as people read it; of test labels that are all equal there is none."""
    return "unknown" if share is None else f"{share:.2f}"


def headline(fit: Fit, row_word: str) -> str:
    """How well numbers are predicted, in one sentence."""
    r2 = "" if fit.r2_turnover is None else f" (R² {told_r2(fit.r2_turnover)})"
    error = f"Typical error {fit.rmse_turnover:.4g} on the test {row_word}s{r2}"
    return f"{error}, and what it owes to the training data"


def deck(fit: Fit, pairs: int | None) -> str:
    """The price: the same network, trained on all rows without turn-over dropout."""
    if fit.rmse_dropout is None:
        return ""
    what, than = "The network with turn-over dropout", "with ordinary dropout"
    if pairs:
        what, than = f"The mean of {2 * pairs} networks", "of one such network on all data"
    return (
        f"{what} has a typical error of {fit.rmse_turnover:.4g} here, instead of "
        f"{fit.rmse_dropout:.4g} {than}. That is the root of the mean squared error, in the unit "
        "of the labels."
    )


def tiles(fit: Fit, row_word: str) -> list[Tile]:
    """The key numbers of a regression."""
    error = f"Root of the mean squared error on test {row_word}s, in the unit of the labels."
    share = "Share of the variance of the test labels that is predicted; 1 is perfect."
    found = [
        Tile(f"{fit.rmse_turnover:.4g}", "Typical error", error),
        Tile(told_r2(fit.r2_turnover), "R²", share),
    ]
    if fit.rmse_dropout is not None:
        meaning = "The same network trained with ordinary dropout."
        found.append(Tile(f"{fit.rmse_dropout:.4g}", "Error, ordinary", meaning))
    return found
