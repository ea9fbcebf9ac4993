"""What is promised, and who reaches past it. Counts may only fall, or be raised with a reason."""

import ast

import pytest

from tests.shape.tree import CHAIN, PACKAGE, ROOT, SOURCES, name, parse

UNITS = ROOT / "tests" / "unit"
# Distinct, over all packages: what people type. Records that come back are shared, and described
# under "What comes back" in docs/reference.
PUBLIC_NAMES = 143
PAIRS_OF_ROOMS = 74  # (room, a room below it that it imports); files of an index are tasks
NOT_SHARED = {"turnover.masks._numba"}  # whoever imports it imports numba, which is optional
# Past an __init__, but for unit tests of the same room: patched parts, experiments on internals.
PRIVATE = {"tests": 45, "experiments": 35, "benchmarks": 5}


def public_names():
    """The entries of every ``__all__``, read and not imported: extras may be missing."""
    for path in [p for p in SOURCES if not p.name.startswith("_") or p.name == "__init__.py"]:
        for node in parse(path).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                yield from ast.literal_eval(node.value)


def imports(path):
    """(line, module, name) of each ``from turnover... import name``."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "turnover":
            yield from ((node.lineno, node.module, alias.name) for alias in node.names)


def is_private(module, imported):
    parts = (*module.split("."), imported)
    return any(part.startswith("_") and not part.startswith("__") for part in parts)


def room_of(module, imported):
    parts = (*module.split("."), imported)
    return parts[1] if parts[1] in CHAIN and parts[1] != "errors" else None


def between_rooms():
    """(place, own room, module, name) of each import that leaves its room."""
    for path in SOURCES:
        own = path.relative_to(PACKAGE).parts[0]
        for line, module, imported in imports(path) if own in CHAIN else ():
            if room_of(module, imported) not in {own, None}:
                yield f"{name(path)}:{line}", own, module, imported


def test_few_names_are_public():
    names = set(public_names())
    assert len(names) <= PUBLIC_NAMES, sorted(names)


def test_few_rooms_know_each_other():
    assert len({(own, room_of(m, n)) for _, own, m, n in between_rooms()}) <= PAIRS_OF_ROOMS


def test_rooms_are_entered_by_the_door():
    found = [
        f"{place} {module}.{imported}"
        for place, _, module, imported in between_rooms()
        if is_private(module, imported) and module not in NOT_SHARED
    ]
    assert not found, "share it by `import x as x` in the __init__ of its package"


def is_own_unit(path, module):
    """Does a unit test look into the room that it tests, or into a file that lies below all?"""
    if UNITS not in path.parents:
        return False
    own = path.relative_to(UNITS).parts[0]  # a room, or test_plain.py of _plain.py
    return module.split(".")[-1] == own.replace("test", "").removesuffix(".py") or (
        f"{module}.".startswith(f"turnover.{own}.")
    )


@pytest.mark.parametrize("top", PRIVATE)
def test_few_imports_are_private(top):
    found = [
        f"{name(path)}:{line} {module}.{imported}"
        for path in sorted((ROOT / top).rglob("*.py"))
        for line, module, imported in imports(path)
        if is_private(module, imported) and not is_own_unit(path, module)
    ]
    assert len(found) <= PRIVATE[top], "\n".join(found)
