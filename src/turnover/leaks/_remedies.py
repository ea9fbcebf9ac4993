"""What to do about a leak: one rule for each kind of module, as a registry."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

__all__ = ["COUPLINGS", "HOOK", "UNKNOWN", "WRITTEN", "coupling_remedy", "remedy"]

UNKNOWN = "an unknown coupling"

TIED = (
    "The tensor is shared by several modules, whose masks differ. Untie them, freeze the tensor, "
    "or give all masks around them one layer number."
)
UNMASKED = (
    "Every instance trains these weights, or a norm mixes their units before the mask. Place a "
    "mask directly after this module (or its activation), or freeze it (requires_grad_(False)) and "
    "train what follows, or accept the leak at this size."
)
BIAS = (
    "No mask follows this bias before its units are mixed, so it belongs to both sub-networks. Use "
    "bias=False, freeze it, or place a mask directly after this module if it is not the output."
)
AFFINE = (
    "The scale and shift act on units that the mask before them has dropped. Place a second mask "
    "after this norm (keep the first: a norm mixes units), or use elementwise_affine=False "
    "(affine=False), or freeze it."
)
BATCHNORM = (
    "Its statistics mix the rows of a batch and are kept for all. Replace it by InstanceNorm (for "
    "feature maps), or by LayerNorm or GroupNorm between two masks, or freeze it in eval mode."
)
EMBEDDING = (
    "Its vectors are shared by all instances with the same token. Freeze the embedding "
    "(requires_grad_(False)) and train what follows, or place a mask after it."
)
RECURRENT = (
    "Its weights are used at every step without a mask. Freeze it, and train masked layers behind."
)
ATTENTION = (
    "No mask follows these projections. Freeze the attention and train masked adapters or a "
    "masked head behind it."
)
WRITTEN = (
    "The forward pass itself writes into this tensor, and what it writes depends on the rows of "
    "the batch; freezing does not stop it. Let the forward pass write into no weights."
)
MAX_NORM = (
    "With max_norm the embedding shortens the vectors of a row's tokens in place at every forward "
    "pass, frozen or not. Shorten all vectors once before training, and set max_norm=None."
)
HIDDEN = (
    "This attribute is neither a parameter nor a buffer, and keeps what it saw of a row for later "
    "rows. Keep nothing of a row in training, or only what no later loss reads."
)
HOOK = (
    "It makes the gradients of the other rows depend on z's row. Remove the hook, or let it treat "
    "every element, and the gradient of every row, alone."
)
GENERIC = (
    "The tensor belongs to both sub-networks. Place a mask after the module that uses it, or "
    "freeze it (requires_grad_(False); for a buffer, stop updating it in training)."
)

WEIGHTED = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd)
RULES: tuple[tuple[tuple[type[nn.Module], ...], str, str], ...] = (
    ((_NormBase,), "", BATCHNORM),
    ((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm), "", AFFINE),
    ((nn.Embedding, nn.EmbeddingBag), "", EMBEDDING),
    ((nn.RNNBase, nn.RNNCellBase), "", RECURRENT),
    ((nn.MultiheadAttention,), "", ATTENTION),
    (WEIGHTED, "bias", BIAS),
    (WEIGHTED, "", UNMASKED),
)


def remedy(module: nn.Module, parameter: str, tied: bool) -> str:
    """What to do about a leaking tensor, by its module's kind and its own name there."""
    if tied:
        return TIED
    if parameter not in {**dict(module._parameters), **module._buffers}:
        return HIDDEN
    return next(
        (text for kinds, name, text in RULES if _fits(module, parameter, kinds, name)), GENERIC
    )


def _fits(module: nn.Module, parameter: str, kinds: tuple[type[nn.Module], ...], name: str) -> bool:
    return isinstance(module, kinds) and name in ("", parameter)


COUPLINGS = {
    "global gradient clipping": (
        "The norm of all gradients together scales those of every row, so that z changes what the "
        "others teach. Clip each element (clip_grad_value_), or do not clip: lower the learning "
        "rate, or warm it up."
    ),
    "the optimizer": (
        "Its step scales a tensor by a norm over all its elements (LAMB, LARS, Adafactor, Muon). "
        "Use one that treats every element alone, such as SGD or AdamW."
    ),
    "the loss": (
        "The losses of the other rows depend on z's row. Use a loss in which each row stands alone."
    ),
    UNKNOWN: (
        "In the forward pass no other row sees z, and no module or parameter has a hook: the "
        "gradients are coupled in the backward pass. Look for an autograd.Function of your own, "
        "and for hooks that the forward code puts on tensors."
    ),
}


def coupling_remedy(module: nn.Module, own_code: bool = False) -> str:
    """What to do about a module whose outputs for other rows depend on z's row.

    Args:
        module: the module.
        own_code: whether the code between its children couples the rows.
    """
    if isinstance(module, _NormBase):
        return BATCHNORM
    if own_code:
        return (
            "This code mixes the rows: a mean, a norm, a sort or a product over dimension 0. Let "
            "it treat each row alone, or move the masks so that nothing before it is trained."
        )
    return (
        "Its outputs for the other rows change with z's row. Replace it by a module that treats "
        "each row alone, or move the masks so that nothing before it is trained."
    )
