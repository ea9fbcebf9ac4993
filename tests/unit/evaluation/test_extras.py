"""Without SciPy or scikit-learn, an error says how to get them."""

import sys

import pytest
import torch

from turnover import Scores
from turnover.errors import MissingExtra
from turnover.evaluation import lds, loo_agreement, mislabel, reliability, same_class


@pytest.fixture
def without(monkeypatch):
    def hide(package):
        for name in [n for n in sys.modules if n.split(".")[0] == package] + [f"{package}.stats"]:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def test_scipy_is_asked_for(without, world):
    scores, truth = world(noise=1.0)
    without("scipy")
    for ask in (
        lambda: lds(scores, truth),
        lambda: reliability(truth),
        lambda: loo_agreement(scores, scores),
        lambda: same_class(scores, torch.arange(6) % 2, torch.arange(30) % 2),
    ):
        with pytest.raises(MissingExtra, match=r"'scipy'.*turnover\[eval\]"):
            ask()


def test_scikit_learn_is_asked_for(without):
    without("sklearn")
    wrong = torch.arange(9) % 2 == 0
    with pytest.raises(MissingExtra, match=r"'scikit-learn'.*turnover\[eval\]"):
        mislabel(torch.randn(9), wrong)


def test_importing_needs_neither():
    import subprocess

    code = "import sys, turnover.evaluation; assert not {'scipy', 'sklearn'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert Scores
