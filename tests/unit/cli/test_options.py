"""Messages of the library name arguments; those of the command line name options."""

import ast
import re

import pytest

from tests.shape.tree import PACKAGE, SOURCES, name, parse
from turnover.cli._options import as_options, options_by_argument

OPTION = re.compile(r"(?<![\w-])--(?!no-deps)[a-z]{2}")  # but that of pip
KEPT = {
    "_schema.py",  # old options and new ones, of commands in run folders
    "_registry.py",  # the command that made a run
    "_trainer.py",  # torchrun's own option
}


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("leave them out with on_bad_rows='skip'.", "leave them out with --on-bad-rows skip."),
        ("hold_out=0.2 or evaluation=FILE.", "--hold-out 0.2 or --eval FILE."),
        ("nothing_is_a_class=True allows it", "--nothing-is-a-class allows it"),
        ("image=COLUMN label=COLUMN. Without", "--image COLUMN --label COLUMN. Without"),
        ("pairs=4 with adapters=8 would", "--pairs 4 with --adapters 8 would"),
        ("model='my folder' is none", "--model my folder is none"),
        ("the label is 'a=b', p=0.5", "the label is 'a=b', p=0.5"),
    ],
)
def test_arguments_become_options(message, shown):
    assert as_options(message) == shown


def literals(path):
    """Texts of a file that are no docstrings."""
    tree = parse(path)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    docs = {ast.get_docstring(n, clean=False) for n in ast.walk(tree) if isinstance(n, documented)}
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and text not in docs:
            yield text


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.parent != PACKAGE / "cli" and p.name not in KEPT], ids=name
)
def test_the_library_names_no_options(path):
    assert not [text for text in literals(path) if OPTION.search(text)]


def test_every_argument_of_a_message_that_is_an_option_is_known():
    options = options_by_argument()
    assert {
        "evaluation": "--eval",
        "images": "--images",
        "lora": "--lora",
    }.items() <= options.items()
    assert {"quiet", "rows", "beyond_this_machine", "hold_out"} <= options.keys()
    assert not {"help", "context", "settings"} & options.keys()
