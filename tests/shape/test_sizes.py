import ast
import re

import pytest

from tests.shape.tree import SOURCES, name, parse

FILE_LINES = 400
FUNCTION_LINES = 50
POSITIONAL_ARGUMENTS = 6

# Kernels and operators are called by generated code, which knows no keyword-only arguments.
COMPILERS = {"custom_op", "jit", "njit", "register_fake", "register_kernel"}


def functions(path):
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return [node for node in ast.walk(parse(path)) if isinstance(node, kinds)]


def body_lines(function):
    """Lines from the first statement after the docstring to the end."""
    documented = ast.get_docstring(function) is not None
    body = function.body[1:] if documented else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def compiled(function):
    words = {w for d in function.decorator_list for w in re.findall(r"\w+", ast.unparse(d))}
    return bool(words & COMPILERS)


def positional(function):
    arguments = [*function.args.posonlyargs, *function.args.args]
    return [a.arg for a in arguments if a.arg not in {"self", "cls"}]


def test_sources_are_found():
    assert SOURCES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_files_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_are_short(path):
    long = {f.name: body_lines(f) for f in functions(path) if body_lines(f) > FUNCTION_LINES}
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_functions_take_few_positional_arguments(path):
    called_by_people = [f for f in functions(path) if not compiled(f)]
    wide = {f.name: a for f in called_by_people if len(a := positional(f)) > POSITIONAL_ARGUMENTS}
    assert not wide
