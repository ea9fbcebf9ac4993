"""A case: trained networks, training rows and queries as files that need nothing but torch.

    case.json             {"model": [layer, ...], "checkpoints": [file, ...], "train": file,
                           "queries": file, "classes": C}
    model-<k>.safetensors the weights of the k-th network, by the names of its ``nn.Sequential``
    train.safetensors     x [train, ...] float32 and y [train] int64; queries.safetensors alike

A layer is a small object, such as ``{"kind": "linear", "in": 784, "out": 128, "bias": true}``;
`KINDS` lists them. Several checkpoints are independently trained networks (or epochs of one
training): methods average over them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

# kind → (class, {word of the spec: argument and attribute of the class})
KINDS: dict[str, tuple[type[nn.Module], dict[str, str]]] = {
    "avgpool": (nn.AvgPool2d, {"size": "kernel_size", "stride": "stride", "padding": "padding"}),
    "conv": (
        nn.Conv2d,
        {
            "in": "in_channels",
            "out": "out_channels",
            "kernel": "kernel_size",
            "stride": "stride",
            "padding": "padding",
            "bias": "bias",
        },
    ),
    "dropout": (nn.Dropout, {"p": "p"}),
    "flatten": (nn.Flatten, {}),
    "gelu": (nn.GELU, {}),
    "identity": (nn.Identity, {}),
    "linear": (nn.Linear, {"in": "in_features", "out": "out_features", "bias": "bias"}),
    "maxpool": (nn.MaxPool2d, {"size": "kernel_size", "stride": "stride", "padding": "padding"}),
    "relu": (nn.ReLU, {}),
    "tanh": (nn.Tanh, {}),
}
KIND_OF = {layer: kind for kind, (layer, _) in KINDS.items()}


@dataclass(frozen=True)
class Case:
    """A case in memory.

    Attributes:
        model: spec of the layers.
        states: weights of every network, [name → tensor].
        train: x [train, ...] and y [train].
        queries: x [query, ...] and y [query].
        classes: number of classes.
    """

    model: list[dict[str, Any]]
    states: list[dict[str, Tensor]]
    train: tuple[Tensor, Tensor]
    queries: tuple[Tensor, Tensor]
    classes: int

    def models(self) -> Iterator[nn.Sequential]:
        """Every trained network, fresh and in evaluation mode."""
        for state in self.states:
            model = build(self.model)
            model.load_state_dict(state)
            yield model.eval()


def build(spec: list[dict[str, Any]]) -> nn.Sequential:
    """The untrained network of a spec."""
    layers = []
    for layer in spec:
        kind, arguments = KINDS[layer["kind"]]
        layers.append(kind(**{arguments[w]: v for w, v in layer.items() if w != "kind"}))
    return nn.Sequential(*layers)


def spec_of(model: nn.Sequential) -> list[dict[str, Any]]:
    """The spec of a network.

    Raises:
        ValueError: if a layer is not among `KINDS`, or has a setting that a spec cannot say.
    """
    spec = []
    for name, layer in model.named_children():
        if type(layer) not in KIND_OF:
            raise ValueError(
                f"Layer {name} is {layer}, which the peers' cases have no word for. "
                f"Use one of {', '.join(sorted(KINDS))}, or add its kind to KINDS."
            )
        kind = KIND_OF[type(layer)]
        values = {word: _plain(getattr(layer, a)) for word, a in KINDS[kind][1].items()}
        spec.append({"kind": kind, **values})
    for name, again in build(spec).named_children():
        if repr(again) != repr(model.get_submodule(name)):
            raise ValueError(
                f"Layer {name} is {model.get_submodule(name)}, but its spec would build {again}. "
                "Add the missing setting to KINDS."
            )
    return spec


def _plain(value: Any) -> Any:
    """A setting as JSON: a bias that is there or not, and tuples as lists."""
    if value is None or isinstance(value, Tensor):
        return value is not None
    return list(value) if isinstance(value, tuple) else value


def save_case(
    folder: Path,
    models: Sequence[nn.Sequential],
    train: tuple[Tensor, Tensor],
    queries: tuple[Tensor, Tensor],
    classes: int | None = None,
) -> Path:
    """Writes a case, and returns its folder.

    Args:
        folder: made if missing.
        models: trained networks of one architecture.
        train: x [train, ...] and y [train].
        queries: x [query, ...] and y [query].
        classes: number of classes; without it, one more than the largest label.

    Raises:
        ValueError: for no networks, networks that differ, or x and y of different lengths.
    """
    specs = [spec_of(model) for model in models]
    if not specs or any(spec != specs[0] for spec in specs):
        raise ValueError(f"A case has networks of one architecture, not {len(specs)} of several.")
    folder.mkdir(parents=True, exist_ok=True)
    files = [f"model-{k}.safetensors" for k in range(len(models))]
    for file, model in zip(files, models, strict=True):
        state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, folder / file)
    for name, (x, y) in {"train": train, "queries": queries}.items():
        if len(x) != len(y):
            raise ValueError(f"{name} has {len(x)} rows of x and {len(y)} labels.")
        rows = {"x": x.float().contiguous(), "y": y.long().contiguous()}
        save_file(rows, folder / f"{name}.safetensors")
    facts = {
        "model": specs[0],
        "checkpoints": files,
        "train": "train.safetensors",
        "queries": "queries.safetensors",
        "classes": classes or int(torch.cat([train[1], queries[1]]).max()) + 1,
    }
    (folder / "case.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return folder


def load_case(folder: Path, runs: int | None = None) -> Case:
    """Reads a case with its first ``runs`` networks, or all of them.

    Raises:
        ValueError: if there are fewer networks.
    """
    facts = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    files = facts["checkpoints"][:runs]
    if runs is not None and len(files) < runs:
        raise ValueError(f"{runs} networks are asked for, and {folder.name} has {len(files)}.")
    train, queries = (load_file(folder / facts[name]) for name in ("train", "queries"))
    return Case(
        model=facts["model"],
        states=[load_file(folder / file) for file in files],
        train=(train["x"], train["y"]),
        queries=(queries["x"], queries["y"]),
        classes=facts["classes"],
    )
