"""What must work with no extra, and with each extra alone."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BARE", "EXTRAS", "LIGHT", "Try"]


@dataclass(frozen=True)
class Try:
    """A turnover command, or Python code; how it must end, and words that it must say."""

    words: tuple[str, ...] = ()
    code: str = ""
    ends: int = 0
    says: str = ""


def command(line: str, *, ends: int = 0, says: str = "") -> Try:
    """A line typed after ``turnover``."""
    return Try(words=tuple(line.split()), ends=ends, says=says)


def python(code: str, says: str = "") -> Try:
    """A few lines of Python."""
    return Try(code=code, says=says)


LIBRARY = """
import doctest, sys, turnover
failed, tried = doctest.testmod(turnover)
assert tried > 5 and not failed
heavy = {'scipy', 'pandas', 'sklearn', 'duckdb', 'matplotlib', 'jinja2.sandbox', 'PIL'}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
TEXTS = """
import random
random.seed(0)
words = {'good': 'fine warm lovely bright', 'bad': 'cold dull awful grey'}
with open('texts.csv', 'w') as file:
    print('name,review,mood', file=file)
    for row in range(60):
        mood = random.choice(list(words))
        print(row, ' '.join(random.choices(words[mood].split(), k=5)), mood, sep=',', file=file)
"""
PICTURES = """
from pathlib import Path
from PIL import Image
import random
random.seed(0)
for row in range(40):
    kind = row % 2
    folder = Path('pictures') / ('dark' if kind else 'light')
    folder.mkdir(parents=True, exist_ok=True)
    shade = [random.randrange(60) + (0 if kind else 190) for _ in range(256)]
    picture = Image.new('L', (16, 16))
    picture.putdata(shade)
    picture.save(folder / f'{row}.png')
"""
TRAIN = "'turnover', 'train', '--pairs', '1', '--epochs', '2', '--out', 'run'"
MAIN = """
import sys
from turnover.cli import main
def typed(*words):
    sys.argv = list(words)
    try:
        main()
    except SystemExit as end:
        assert not end.code, (words, end.code)
"""

FENCE = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    """A program that does what a page of the docs says: its Python, and its commands typed."""
    text = (Path(__file__).parent.parent / "docs" / name).read_text(encoding="utf-8")
    parts = [
        code
        if language == "python"
        else "".join(f"typed(*{line.split()!r})\n" for line in code.splitlines())
        for language, code in FENCE.findall(text)
    ]
    return MAIN + "".join(parts)


BARE = [
    command("--version", says="turnover "),
    command("--help", says="Commands"),
    python(LIBRARY),
    command("demo", ends=4, says="pip install 'turnover[demo]'"),
    command("train missing.csv --text a --label b --out run", ends=2),
    command("ask nowhere --query 0", ends=3),
]
"""The library and its command without any extra."""

LIGHT = [
    command("--version", says="turnover "),
    command("--help", says="Commands"),
    command("train --help", says="--label"),
    python("import turnover; print(turnover.__version__)"),
]
"""What must work even without torch: whatever says what there is."""

EXTRAS = {
    "fast": [
        python(
            "import numba, torch; import turnover.masks\n"
            "from turnover.estimators.masked import _scan_numba"
        )
    ],
    "data": [
        python(
            "import torch; from turnover import Scores\n"
            "s = Scores(torch.ones(1, 2), torch.tensor([3, 4]), torch.tensor([1]))\n"
            "assert s.to_pandas().shape == (1, 2); s.to_parquet('s.parquet')"
        )
    ],
    "datasets": [
        python("import datasets; datasets.Dataset.from_dict({'a': [1]}).save_to_disk('d')")
    ],
    "eval": [
        python("from turnover.evaluation import *; import scipy.stats, sklearn.metrics"),
    ],
    "reports": [python("import matplotlib, jinja2, PIL; import turnover.reports")],
    "explore": [python("import turnover.explore; import turnover.explore._app")],
    "umap": [python("import umap, turnover.explore")],
    "demo": [command("demo --epochs 4 --mistakes 1", says="report.html")],
    "text": [
        python(
            TEXTS + MAIN + f"typed({TRAIN}, 'texts.csv', '--text', 'review', '--label', 'mood')\n"
            "typed('turnover', 'ask', 'run', '--query', '0')\n"
            "typed('turnover', 'audit', 'run')\n"
        ),
        python(page("start.md"), says="8 of 8 trainings do so"),
    ],
    "images": [
        python(
            PICTURES + MAIN + f"typed({TRAIN}, 'pictures', '--images')\n"
            "typed('turnover', 'audit', 'run', '--gallery')\n"
        ),
    ],
    "hf": [python("import transformers, peft, accelerate, tokenizers; from turnover.hf import *")],
    "parallel": [python("import cloudpickle, turnover.executors")],
    "dask": [python("import distributed, turnover.executors")],
    "ray": [python("import ray, turnover.executors")],
    "slurm": [python("import submitit, turnover.executors")],
    "trl": [python("import trl; from turnover.hf import attach")],
    "lightning": [python("import lightning; from turnover.hf import lightning_callback")],
}
"""Each extra alone: what must work with it."""
