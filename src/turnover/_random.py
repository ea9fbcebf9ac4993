"""Seeds of torch, on a machine without an accelerator at the price of a seed."""

import torch

__all__ = ["manual_seed"]


def manual_seed(seed: int) -> None:
    """Seed torch's random numbers on every device.

    Until an accelerator is in use, :func:`torch.manual_seed` notes the whole call stack for it,
    which takes far longer than the seed. Without one there is nothing to note.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
