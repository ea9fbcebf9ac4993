"""What is killed: small commands, each with what must be there before it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["JOBS", "Job"]

MASKS = "--text text --label label --method masks --units 8 --epochs 2"
PAIRS = "--text text --label label --pairs 1 --epochs 2 --no-control"
PICTURES = "--epochs 1 --size 8 --no-augment --no-control"
RUN = "run"


@dataclass(frozen=True)
class Job:
    """A command that writes into ``RUN``, after others that nobody disturbs.

    Attributes:
        command: its words; a path is relative to the folder of the trial.
        before: commands that are run first.
        make: writes the data.
    """

    command: str
    before: tuple[str, ...] = ()
    make: Callable[[Path], None] = lambda folder: None


def _texts(folder: Path) -> None:
    rows = [f"{('awful', 'great')[i % 2]} w{i % 9},{'ba'[i % 2]}" for i in range(40)]
    (folder / "data.csv").write_text("text,label\n" + "\n".join(rows) + "\n", encoding="utf-8")


def _pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    for number in range(24):
        path = folder / "pictures" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        dark = chance.integers(0, 120, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(dark + np.uint8(number % 2 * 120)).save(path)


_TRAIN_MASKS = f"train data.csv {MASKS} --out {RUN} --json"
_TRAIN_PAIRS = f"train data.csv {PAIRS} --out {RUN} --json"
_TRAIN_PICTURES = f"train pictures {PICTURES} --method masks --out {RUN} --json"
_GALLERY = f"audit {RUN} --gallery --csv audit.csv"

JOBS: dict[str, Job] = {
    "train texts": Job(_TRAIN_MASKS, (), _texts),
    "train pairs": Job(_TRAIN_PAIRS, (), _texts),
    "train pictures": Job(_TRAIN_PICTURES, (), _pictures),
    "train pairs of pictures": Job(
        f"train pictures {PICTURES} --pairs 1 --out {RUN} --json", (), _pictures
    ),
    "prove": Job(
        f"prove {RUN} --query 0 --rows 2 --trainings 2 --against random",
        (_TRAIN_PAIRS,),
        _texts,
    ),
    "audit": Job(f"audit {RUN} --csv audit.csv", (_TRAIN_MASKS,), _texts),
    "gallery": Job(_GALLERY, (_TRAIN_PICTURES,), _pictures),
    "gallery again": Job(_GALLERY, (_TRAIN_PICTURES, _GALLERY), _pictures),
    "cleanse": Job(
        f"cleanse {RUN} --target data.csv --remove 5 --seeds 2 --csv totals.csv",
        (_TRAIN_MASKS,),
        _texts,
    ),
    "report": Job(f"report {RUN}", (_TRAIN_MASKS,), _texts),
}
