import ast
import importlib
import inspect
from pathlib import Path
from types import FunctionType

import pytest

from tests.shape.tree import PACKAGE, PRESENT, SOURCES, parse
from turnover.errors import MissingExtra

PUBLIC_MODULES = {PACKAGE / "errors.py"}
PACKAGES = ["turnover", *(f"turnover.{p}" for p in PRESENT)]


def load(package):
    try:
        return importlib.import_module(package)
    except MissingExtra as missing:
        pytest.skip(str(missing))


def exported(package):
    """(name, object) of each entry of ``__all__``; attribute access imports what is lazy."""
    module = load(package)
    return [(n, getattr(module, n)) for n in module.__all__]


def by_kind_and_name(public):
    """CONSTANTS, then Classes, then the rest: the order that ruff keeps."""
    return (0 if public.isupper() else 1 if public[0].isupper() else 2, public)


def bound_names(module):
    """Public names that a file binds at top level, except whatever it imports from others."""
    for node in parse(Path(module.__file__)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.ImportFrom) and is_ours(node) and is_package(module):
            # "import name as name" shares a name with other rooms, and promises it to nobody else.
            yield from (alias.name for alias in node.names if alias.asname is None)


def is_ours(node):
    return bool(node.level) or (node.module or "").partition(".")[0] == "turnover"


def is_package(module):
    return hasattr(module, "__path__")


def own_methods(cls):
    """Public methods and properties that a class of ours defines."""
    for attribute, value in vars(cls).items():
        if not attribute.startswith("_") and isinstance(
            value, property | classmethod | staticmethod | FunctionType
        ):
            yield f"{cls.__name__}.{attribute}", getattr(cls, attribute)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_without_repeats(package):
    names = load(package).__all__
    assert list(names) == sorted(set(names), key=by_kind_and_name)


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_true(package):
    names = {n for n, _ in exported(package)}
    hidden = {n for n in bound_names(load(package)) if not n.startswith("_")} - names
    assert not hidden, f"public in {package} but not in its __all__"


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_documented(package):
    objects = [(n, o) for n, o in exported(package) if inspect.isclass(o) or inspect.isroutine(o)]
    methods = [m for _, o in objects if inspect.isclass(o) for m in own_methods(o)]
    bare = [n for n, o in [*objects, *methods] if not first_line(n, o)]
    assert not bare


def first_line(public, thing):
    """First line of a docstring that somebody wrote: dataclasses make one of their own."""
    line = (inspect.getdoc(thing) or "").partition("\n")[0].strip()
    return "" if line.startswith(f"{public}(") else line


def test_files_are_private_and_packages_public():
    public = [path for path in SOURCES if not path.name.startswith("_")]
    assert set(public) == PUBLIC_MODULES


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_explain_themselves(package):
    assert (load(package).__doc__ or "").strip()
