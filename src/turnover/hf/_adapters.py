"""Bottleneck adapters: a small network after each block of a frozen transformer.

    h ← h + W_up σ(W_down h + b_down),      W_down: [width, hidden],  W_up: [hidden, width]

Masks go on the ``width`` hidden units σ(·): a dropped unit gets no gradient in its row of W_down,
its entry of b_down and its column of W_up, so that everything here belongs to either half. A bias
b_up would belong to both halves and is left out unless asked for.

Reference: Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", section 2.1 (there
with b_up and trained norms, which leak).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

import torch
from torch import Tensor, nn

from turnover.errors import ConversionError
from turnover.hf._trunk import linear_heads, output_layer, trunk_of

__all__ = ["CHILD", "Adapter", "Adapters", "add_adapters"]

CHILD = "adapter"
INIT_STD = 1e-2

# The last projections of attention and of the MLP, by the names that model families give them.
PROJECTIONS = (
    *("*.attention.output.dense", "*.layer.*.output.dense"),  # BERT, RoBERTa, ELECTRA, ViT
    *("*.attention.out_lin", "*.ffn.lin2"),  # DistilBERT
    *("*.attn.c_proj", "*.mlp.c_proj"),  # GPT-2
    *("*.self_attn.o_proj", "*.mlp.down_proj"),  # Llama, Mistral, Qwen, Gemma
    *("*.self_attn.out_proj", "*.layers.*.fc2"),  # BART, OPT
    *("*.attention.dense", "*.mlp.dense_4h_to_h"),  # GPT-NeoX, Pythia
    *("*.SelfAttention.o", "*.DenseReluDense.wo"),  # T5
)


@final
class Adapter(nn.Module):
    """x + W_up σ(W_down x + b_down): near the identity at first, by small weights.

    Args:
        hidden: features of the block that it follows.
        width: hidden units.
        activation: σ, a module class.
        up_bias: add b_up, which no mask can split between seen and unseen.
    """

    def __init__(
        self,
        hidden: int,
        width: int,
        activation: Callable[[], nn.Module] = nn.GELU,
        up_bias: bool = False,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(hidden, width)
        self.activation = activation()
        self.up = nn.Linear(width, hidden, bias=up_bias)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=INIT_STD, a=-2 * INIT_STD, b=2 * INIT_STD)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The adapted features, of the shape of ``x``."""
        return x + self.up(self.activation(self.down(x)))


@final
@dataclass(frozen=True)
class Adapters:
    """Report of :func:`add_adapters`: what was added, what is trained, what is frozen.

    Attributes:
        places: full names of the modules that are followed by an adapter.
        hidden: features at each place.
        width: hidden units of each adapter.
        heads: full names of the trained linear layers behind the trunk.
        biases: full names of biases that stay frozen, since no mask follows them.
        trained: number of trained parameters.
        frozen: number of frozen parameters.
    """

    places: tuple[str, ...]
    hidden: tuple[int, ...]
    width: int
    heads: tuple[str, ...]
    biases: tuple[str, ...]
    trained: int
    frozen: int

    def __len__(self) -> int:
        return len(self.places)

    def __str__(self) -> str:
        lines = [
            f"adapter after {place}: {hidden} → {self.width} → {hidden}"
            for place, hidden in zip(self.places, self.hidden, strict=True)
        ]
        lines += [f"trained: {head}.weight" for head in self.heads]
        lines += [f"frozen: {bias} (no mask follows it)" for bias in self.biases]
        return "\n".join([*lines, f"{self.trained:,} parameters trained, {self.frozen:,} frozen"])


def add_adapters(
    model: nn.Module,
    width: int = 16,
    *,
    after: str | Sequence[str] = PROJECTIONS,
    first: int = 0,
    head: str | Sequence[str] | None = None,
    activation: Callable[[], nn.Module] = nn.GELU,
    up_bias: bool = False,
) -> Adapters:
    """Freeze a transformer and train an adapter after each block, and the head, instead; in place.

    Each adapter is a child module of the projection that it follows, called ``adapter``; the names
    of the model's own parameters stay as they were. Masks come with
    :func:`turnover.hf.mask_bottlenecks`.

    Args:
        model: a transformer, such as ``AutoModelForSequenceClassification`` gives.
        width: hidden units of each adapter.
        after: name patterns of the modules to follow. By default the last projection of each
            attention and of each MLP block, for the common families.
        first: leave out the first so many matches: what precedes the first adapter is the same for
            all instances and can be computed once.
        head: name patterns of linear layers to train as well. By default those behind the trunk,
            but no language-model head. The bias of the output layer stays frozen.
        activation: class of σ.
        up_bias: give W_up a bias. It leaks (``turnover.check`` says how much).

    Returns:
        Every change by full module name.

    Raises:
        ConversionError: when nothing matches, a match is no linear layer, or there is an adapter.
    """
    if width < 1:
        raise ConversionError(
            f"An adapter of width {width} has no unit to mask; it needs 1 or more."
        )
    sites = _sites(model, [after] if isinstance(after, str) else list(after), first)
    heads = linear_heads(model, head)
    model.requires_grad_(False)
    for module in sites.values():
        _insert(module, Adapter(_features(module), width, activation, up_bias))
    for linear in heads.values():
        linear.requires_grad_(True)
    biases = _freeze_output_bias(heads)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    hidden = tuple(_features(module) for module in sites.values())
    return Adapters(tuple(sites), hidden, width, tuple(heads), biases, trained, frozen)


def _sites(model: nn.Module, patterns: list[str], first: int) -> dict[str, nn.Module]:
    names = dict(model.named_modules())
    found = {n: m for n, m in names.items() if any(fnmatchcase(n, p) for p in patterns)}
    sites = dict(list(found.items())[first:])
    if not sites:
        trunk = type(trunk_of(model)).__name__
        raise ConversionError(
            f"No module of this {trunk} matches {', '.join(patterns)}"
            f"{f' from match {first} on' if found else ''}, so there is no place for an adapter. "
            "Name the last projection of each block with after=, for instance one of: "
            f"{', '.join([n for n, m in names.items() if _width(m)][-6:])}."
        )
    for name, module in sites.items():
        if _width(module) is None:
            raise ConversionError(
                f"{name} is a {type(module).__name__}, whose number of features is unknown. An "
                "adapter follows a linear layer."
            )
        if CHILD in dict(module.named_children()):
            raise ConversionError(f"{name} is already followed by an adapter. Use a fresh model.")
    return sites


def _width(module: nn.Module) -> int | None:
    """Features of a linear layer's output; transformers' Conv1D calls them ``nf``."""
    width = getattr(module, "out_features", None) or getattr(module, "nf", None)
    return width if isinstance(width, int) else None


def _features(module: nn.Module) -> int:
    width = _width(module)
    assert width is not None
    return width


def _insert(module: nn.Module, adapter: Adapter) -> None:
    weight = next(module.parameters())
    dtype = weight.dtype if weight.is_floating_point() else torch.get_default_dtype()
    module.add_module(CHILD, adapter.to(weight.device, dtype).train(module.training))
    module.register_forward_hook(_adapt)


def _adapt(module: nn.Module, args: object, output: Tensor) -> Tensor:
    adapted: Tensor = getattr(module, CHILD)(output)
    return adapted


def _freeze_output_bias(heads: dict[str, nn.Linear]) -> tuple[str, ...]:
    if not heads or (bias := output_layer(heads)[1].bias) is None:
        return ()
    bias.requires_grad_(False)
    return (f"{output_layer(heads)[0]}.bias",)
