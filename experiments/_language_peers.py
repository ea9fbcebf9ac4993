"""Other libraries for language models, on one network with LoRA: dattri-llm and bergson.

They are taken where Python finds them. Nothing of turnover needs them.
"""

import tempfile
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from turnover import Rows, hf

BATCH = 16


class Failed(Exception):
    """A method of another library that did not run, and why."""


class Items:
    """Rows as a data set of dicts."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {name: values[row] for name, values in self.rows.batch.items()}


def summed(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return hf.loss(model, batch).sum()


def dattri(kind: str, **options: Any) -> Callable[[nn.Module, Rows, Rows], Tensor]:
    """An attributor of dattri-llm, by name."""

    def scores(network: nn.Module, asked: Rows, rows: Rows) -> Tensor:
        import dattri_llm
        from dattri_llm import AttributionArguments, AttributionTask

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            how = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH}
            arguments = AttributionArguments(output_dir=folder, **how)
            task = AttributionTask(summed, network.eval())
            attributor = getattr(dattri_llm, kind)(arguments, task=task)
            found = attributor.attribute(Items(rows), Items(asked), **options)
            return _in_order(found, rows, asked)

    return scores


def _in_order(found: Any, rows: Rows, asked: Rows) -> Tensor:
    _, values = found.agnostic_matrix()
    if values.shape != (len(rows), len(asked)):
        raise Failed(f"scores of shape {list(values.shape)}")
    return values.T


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


VERSIONS = {n: v for n in ("dattri-llm", "bergson") if (v := installed(n)) is not None}
ABSENT = {n: "not installed" for n in ("dattri-llm", "bergson") if n not in VERSIONS}
METHODS: dict[str, Callable[[nn.Module, Rows, Rows], Tensor]] = {}
if "dattri-llm" in VERSIONS:
    METHODS |= {
        "dattri-llm EK-FAC": dattri("EKFACAttributor"),
        "dattri-llm GradCos": dattri("TracInAttributor", normalized_grad=True),
    }


def trackstar(network: nn.Module, asked: Rows, rows: Rows) -> Tensor:
    """The pipeline of bergson: projected gradients, whitened by their autocorrelation, cosine."""
    from bergson.cli.trackstar import trackstar as pipeline
    from bergson.config.config import (
        DataConfig,
        PreprocessConfig,
        QuerySetConfig,
        TrackstarConfig,
        TrackstarIndexConfig,
    )
    from bergson.data import load_scores

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _save(network, folder)
        for name, some in (("rows", rows), ("asked", asked)):
            _store(some, f"{folder}/{name}")
        index = TrackstarIndexConfig(
            run_path=f"{folder}/run",
            model=f"{folder}/adapter",
            tokenizer=f"{folder}/base",
            data=DataConfig(dataset=f"{folder}/rows"),
            precision="fp32",
            token_batch_size=32,
            loss_reduction="mean",
        )
        how = TrackstarConfig(
            query=QuerySetConfig(dataset=f"{folder}/asked"),
            preprocess_cfg=PreprocessConfig(unit_normalize=True),
        )
        with redirect_stdout(StringIO()):
            pipeline(index, how)
        found = load_scores(Path(f"{folder}/run/scores"))
        return torch.from_numpy(found[:].astype("float32")).T


def _save(network: nn.Module, folder: str) -> None:
    """The base, a tokenizer that nothing asks, and the adapter on them."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    adapted: Any = network.get_submodule("module")
    words = Tokenizer(models.WordLevel({"<end>": 0}, unk_token="<end>"))
    end = {"unk_token": "<end>", "eos_token": "<end>", "pad_token": "<end>"}
    kept = PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=32, **end)
    kept.save_pretrained(f"{folder}/base")
    base = deepcopy(adapted).unload()
    base.save_pretrained(f"{folder}/base")
    adapted.peft_config["default"].base_model_name_or_path = f"{folder}/base"
    adapted.save_pretrained(f"{folder}/adapter")


def _store(rows: Rows, folder: str) -> None:
    """Rows without their padding, as a folder of ``datasets``."""
    from datasets import Dataset

    mask = rows.batch["attention_mask"].bool()
    names = ("input_ids", "labels")
    found = {n: [v[m].tolist() for v, m in zip(rows.batch[n], mask, strict=True)] for n in names}
    lengths = mask.sum(1).tolist()
    Dataset.from_dict({**found, "length": lengths}).save_to_disk(folder)


METHODS |= {"bergson TrackStar": trackstar} if "bergson" in VERSIONS else {}
