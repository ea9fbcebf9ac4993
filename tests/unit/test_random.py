import pytest
import torch

from turnover._random import manual_seed


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63])
@pytest.mark.parametrize("accelerator", [True, False])
def test_a_seed_is_torchs_own(seed, accelerator, monkeypatch):
    torch.manual_seed(seed)
    wanted = torch.rand(3)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerator)
    manual_seed(seed)
    assert torch.equal(torch.rand(3), wanted)


def test_without_an_accelerator_no_stack_is_noted(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(torch, "manual_seed", None)
    manual_seed(0)
