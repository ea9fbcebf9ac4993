"""How runs are made of texts and of images: each choice, its default and its bounds.

Torch is not needed for it, so that the command line prints its help at once. A field without a
setting is for Python alone.
"""

from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from itertools import count
from typing import Any, Literal, final, get_args

from turnover._settings import refuse_out_of_bounds, setting
from turnover.errors import ConfigError, DataError

__all__ = [
    "ImageConfig",
    "IndexConfig",
    "Method",
    "RecipeConfig",
    "TextConfig",
    "arguments_of",
    "pairs_of",
]

Method = Literal["split-ensemble", "masks"]
Schedule = Literal["linear", "cosine", "constant"]

LATER = ("control", "least_read", "classes")  # choices that manifests lack where they are as usual
# Of texts
TEXT_PAIRS = (
    4  # of one to eight, the best scores for their time: benchmarks/results/leaderboard.json
)
UNITS_OF_A_MEMBER = 128  # more units gain nothing in a split ensemble (experiments/text_labels.py)
# Of images
RATES = {"vgg19": 3e-4, "vgg11": 3e-4}  # deep, without BatchNorm: a cautious guess, not measured
RATE, DECAY = 1e-3, 0.01
IMAGE_PAIRS = 2  # networks of images train for minutes: two trainings, not four
# With all layers masked, thousands of pictures are too few: experiments/results/leak_curve.json.
SMALL, FIRST = "cnn", {"cnn": 4}
DROPOUT, LITTLE_DROPOUT = 0.5, 0.1
STEPS, FEWEST, MOST = 1500, 10, 60

# Choices that texts and images share.
METHOD = partial(
    setting,
    help="split-ensemble: pairs of networks, each on a half of the rows; the best scores. "
    "masks: one network, with turn-over dropout.",
    shown="split-ensemble; masks of adapters",
)
PAIRS = partial(
    setting,
    help="Pairs of the split ensemble: more of them, better scores, more time.",
    least=0,
    shown=f"{TEXT_PAIRS}, or {IMAGE_PAIRS} of images",
)
EXTRA_DROPOUT = partial(
    setting,
    help="Ordinary dropout on top.",
    least=0,
    most=0.95,
    shown="0.5, or less where it stands at several layers",
)
EPOCHS = partial(setting, help="Passes over the data; 0 chooses by its size.", least=0)
LR = partial(setting, help="Learning rate; 0 chooses by what is trained.", least=0, most=1e3)
SEED = partial(setting, help="Seed of everything that is random.", least=0, most=2**63 - 1)
CONTROL = partial(
    setting,
    help="Also train one ordinary network, to know the cost; of a language model one adapter on "
    "all examples, to deploy it alone.",
    shown="control; of a language model no-control",
)
FALLS = partial(setting, help="How the learning rate falls.")
PIECES = partial(setting, help="Word pieces read of a text.", least=8)


@final
@dataclass(frozen=True)
class TextConfig:
    """How a classifier of texts is made.

    Attributes:
        model: an encoder: ``"bag-of-words"``, ``"minilm"``, a folder, or a name at the hub.
        max_length: pieces of a text that a transformer reads.
        adapters: train adapters of this width in the transformer itself; 0 keeps it frozen and
            trains a layer on top.
        lora: train LoRA of this rank in the last third of the transformer's blocks; 0 for none.
        method: ``"split-ensemble"`` trains pairs of ordinary networks, each on its own half of the
            texts: the most accurate scores, in about ``pairs`` trainings. ``"masks"`` trains one
            network with turn-over dropout. None for the first, or with adapters for the second.
        pairs: pairs of a split ensemble; 0 for 4.
        units: masked units of that layer; 0 for about as many as there are training texts, from
            1,024 to 4,096. Of a member: its units, 0 for 128.
        dropout: drop probability of ordinary dropout on top; None for 0.5, or of LoRA 0.1.
        epochs: passes over the training texts; 0 for about 300 steps, from 3 to 100 passes.
        batch_size: texts per step; 0 for 64, or 32 with adapters or LoRA.
        lr: learning rate of AdamW, which falls to zero along a cosine; 0 for 5e-4, or 2e-3 with
            adapters or LoRA.
        seed: seed of weights, order and masks.
        control: also train the same network with ordinary dropout alone, to know the cost.
    """

    model: str = setting(
        "bag-of-words", "bag-of-words, minilm, a folder, or a model at the Hugging Face hub."
    )
    max_length: int = PIECES(128)
    adapters: int = setting(
        0, "Train adapters of this width in the transformer, not a layer.", least=0
    )
    lora: int = setting(0, "Train LoRA of this rank in the last third of the transformer.", least=0)
    method: Method | None = METHOD(None)  # noqa: RUF009 (a field of the dataclass)
    pairs: int = PAIRS(0)
    units: int = setting(
        0, "Masked units, 0 chooses: more of them, less noise.", least=0, most=1 << 20
    )
    dropout: float | None = EXTRA_DROPOUT(None)
    epochs: int = EPOCHS(0)
    batch_size: int = 0
    lr: float = LR(0.0)
    seed: int = SEED(0)
    control: bool = CONTROL(True)

    def __post_init__(self) -> None:
        refuse_out_of_bounds(self)

    def resolved(self, train: int) -> "TextConfig":
        """The plan for so many training texts, with its own choice in place of zeros.

        Raises:
            ConfigError: for pairs of one network with masks.
            DataError: for adapters and LoRA at once.
        """
        if self.adapters and self.lora:
            raise DataError(
                f"adapters={self.adapters} and lora={self.lora} are two ways to train a "
                "transformer. Leave out one of the two."
            )
        tuned = bool(self.adapters or self.lora)
        pairs = pairs_of(self.method, self.pairs, usual=TEXT_PAIRS, whole=bool(self.adapters))
        wide = min(4096, max(1024, 1 << (train - 1).bit_length()))
        units = self.units or (UNITS_OF_A_MEMBER if pairs else wide)
        batch_size = self.batch_size or (32 if tuned else 64)
        epochs = self.epochs or min(100, max(3, -(-300 // -(-train // batch_size))))
        lr = self.lr or (2e-3 if tuned else 5e-4)
        usual = 0.1 if self.lora else 0.5
        dropout = usual if self.dropout is None else self.dropout
        method: Method = "split-ensemble" if pairs else "masks"
        found = replace(self, method=method, pairs=pairs, units=units)
        return replace(found, epochs=epochs, batch_size=batch_size, lr=lr, dropout=dropout)


@final
@dataclass(frozen=True)
class ImageConfig:
    """How a classifier of pictures is made.

    Attributes:
        model: a name that :func:`build_network` knows.
        method: ``"split-ensemble"`` trains pairs of ordinary networks, each on its own half of the
            pictures: the most accurate scores, in about ``pairs`` trainings. ``"masks"`` trains
            one network with turn-over dropout. None for the first.
        pairs: pairs of a split ensemble; 0 for 2.
        first_masked_layer: number of the layer after which masks begin, counted from 1; 0 for the
            last before the output of ``cnn``, and for what :func:`build_network` does with others.
            Later masks: more accurate, and more that all pictures train together.
        augment: shift and mirror pictures in training.
        dropout: drop probability of ordinary dropout at the places of the masks; None for 0.5 where
            that is one place only (``cnn``), else 0.1.
        epochs: passes over the training pictures; 0 for about 1,500 steps, from 10 to 60 passes.
        batch_size: pictures per step; a few more where a single one would be left for the last
            step, of which BatchNorm knows no spread.
        lr: learning rate of AdamW, which falls to zero along a cosine; 0 for 1e-3, or 3e-4 for
            VGG without BatchNorm.
        decay: weight decay.
        seed: seed of weights, order, masks and augmentation.
        control: also train the same network with ordinary dropout alone, to know the cost.
    """

    model: str = setting(SMALL, "cnn, resnet9, vgg19, vgg19-bn, or a network of timm.")
    method: Method | None = METHOD(None)  # noqa: RUF009 (a field of the dataclass)
    pairs: int = PAIRS(0)
    first_masked_layer: int = setting(
        0,
        "Masks begin after this layer, counted from 1; 0 chooses. Late ones cost less accuracy, "
        "early ones leave less that all images train together.",
        least=0,
    )
    augment: bool = setting(True, "Shift images in training, and mirror them if in colour.")
    dropout: float | None = EXTRA_DROPOUT(None)
    epochs: int = EPOCHS(0)
    batch_size: int = 64
    lr: float = LR(0.0)
    decay: float = DECAY
    seed: int = SEED(0)
    control: bool = CONTROL(True)

    def __post_init__(self) -> None:
        refuse_out_of_bounds(self)

    def resolved(self, train: int) -> "ImageConfig":
        """The plan for so many training pictures, with its own choice in place of zeros.

        Raises:
            ConfigError: for pairs of one network with masks.
        """
        pairs = pairs_of(self.method, self.pairs, usual=IMAGE_PAIRS)
        method: Method = "split-ensemble" if pairs else "masks"
        batch = next(b for b in count(self.batch_size) if train % b != 1 or train == 1)
        epochs = self.epochs or min(MOST, max(FEWEST, -(-STEPS // -(-train // batch))))
        lr = self.lr or RATES.get(self.model, RATE)
        first = self.first_masked_layer or FIRST.get(self.model, 0)
        usual = DROPOUT if self.model == SMALL and first == FIRST[SMALL] else LITTLE_DROPOUT
        dropout = usual if self.dropout is None else self.dropout
        found = replace(self, method=method, pairs=pairs, first_masked_layer=first)
        return replace(found, batch_size=batch, dropout=dropout, epochs=epochs, lr=lr)


@final
@dataclass(frozen=True)
class IndexConfig:
    """What is indexed, and how its rows are read.

    Attributes:
        model: a folder, or a name at the hub: a sequence classifier, or LoRA of PEFT on one.
        max_length: pieces of a text that are read.
        damping: λ of the kernel, which no ensemble chooses here.
        least_read: the least share of trainable parameters that the losses may depend on.
        classes: names of the model's classes in its order, with commas between them; None for those
            in its configuration, which an adapter of PEFT on a base without classes lacks.
    """

    model: str = setting(help="Folder or hub name of a classifier, language model, or LoRA on one.")
    max_length: int = PIECES(128, shown="128; of a language model 512")
    damping: float = setting(0.3, "Damping of the kernel.", least=1e-6)
    least_read: float = setting(
        0.5, "Least share of trainable parameters that the losses may depend on.", least=0, most=1
    )
    classes: str | None = setting(
        None, "Names of the model's classes in its order: A,B,...", shown="those that it has"
    )

    def __post_init__(self) -> None:
        refuse_out_of_bounds(self)


@final
@dataclass(frozen=True)
class RecipeConfig:
    """How a model that is indexed was fine-tuned, so that it can be trained again.

    The defaults are those of transformers' Trainer, but for its clipping of gradients.

    Attributes:
        base: the model before it was fine-tuned; None for the one that an adapter of PEFT names.
        epochs: passes over the data.
        lr: learning rate of AdamW at the beginning.
        batch_size: rows per step.
        schedule: how the learning rate falls to zero, or ``"constant"``.
        weight_decay: of AdamW.
    """

    epochs: int | None = setting(None, "Passes over the data.", least=1, shown="must be given")
    lr: float | None = setting(
        None,
        "Learning rate of AdamW at the beginning.",
        least=1e-12,
        most=1e3,
        shown="must be given",
    )
    base: str | None = setting(
        None, "The model before it was fine-tuned.", shown="the one that an adapter names"
    )
    batch_size: int = setting(8, "Rows of a step.", least=1)
    schedule: Schedule = FALLS("linear")  # noqa: RUF009 (a field of the dataclass)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", least=0)

    def __post_init__(self) -> None:
        if self.epochs is None or self.lr is None:
            raise ConfigError(
                "Training again takes the number of epochs and the learning rate by which the "
                "model was fine-tuned. Give both: epochs=N and lr=RATE."
            )
        refuse_out_of_bounds(self)
        if self.schedule not in (known := get_args(Schedule)):
            raise ConfigError(
                f"schedule={self.schedule!r} is unknown: give one of {', '.join(known)}."
            )


def arguments_of(plan: Any) -> dict[str, Any]:
    """A plan as a manifest has it; runs from before a choice was there go on as they were."""
    usual = {each.name: each.default for each in fields(plan)}
    return {n: v for n, v in asdict(plan).items() if n not in LATER or v != usual[n]}


def pairs_of(method: Method | None, pairs: int, *, usual: int, whole: bool = False) -> int:
    """Pairs of networks that are trained; 0 for one network with masks.

    Args:
        method: what was asked for; None for what scores best: a split ensemble, unless ``whole``.
        pairs: what was asked for; 0 for the usual number.
        usual: pairs of a split ensemble when none are asked for.
        whole: whether each member would be a whole transformer: then masks, unless asked for.

    Raises:
        ConfigError: for pairs of one network with masks, or a method of another name.
    """
    if method not in (None, "split-ensemble", "masks"):
        raise ConfigError(f"method={method!r} is unknown: give 'split-ensemble' or 'masks'.")
    if pairs and method == "masks":
        raise ConfigError(
            f"pairs={pairs} belong to a split ensemble, and method='masks' trains one network. "
            "Leave out one of the two."
        )
    masked = method == "masks" or (method is None and not pairs and whole)
    return 0 if masked else pairs or usual
