import ast
import re

from tests.shape.tree import SOURCES, offenders, parse

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


def test_files_are_short():
    lines = offenders(lambda path: len(path.read_text(encoding="utf-8").splitlines()))
    assert not {path: n for path, n in lines.items() if n > FILE_LINES}


def test_functions_are_short():
    assert not offenders(
        lambda path: {f.name: n for f in functions(path) if (n := body_lines(f)) > FUNCTION_LINES}
    )


def wide(path):
    """Functions that people call, with more positional arguments than they can tell apart."""
    called = [f for f in functions(path) if not compiled(f)]
    return {f.name: a for f in called if len(a := positional(f)) > POSITIONAL_ARGUMENTS}


def test_functions_take_few_positional_arguments():
    assert not offenders(wide)


def waits(path):
    """Lines of a loop that call .item(): the processor would wait for the device in each turn."""
    loops = ast.For | ast.While | ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp
    found = set()
    for loop in (node for node in ast.walk(parse(path)) if isinstance(node, loops)):
        told = {id(n) for r in ast.walk(loop) if isinstance(r, ast.Raise) for n in ast.walk(r)}
        for node in ast.walk(loop):
            call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if call and node.func.attr == "item" and not node.args and id(node) not in told:
                found.add(node.lineno)
    return sorted(found)


def test_loops_do_not_wait_for_a_device():
    assert not offenders(waits)


def test_waiting_loops_are_found(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("for x in y:\n    if x.bad:\n        raise E(x.item())\n    z += x.item()\n")
    assert waits(path) == [4]
