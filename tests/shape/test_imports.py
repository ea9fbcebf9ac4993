import ast

import pytest

from tests.shape.tree import CHAIN, PACKAGE, SOURCES, name, parse

TOP = len(CHAIN)
FREE_NAMES = {"__version__"}  # what the root states without importing anything


def level(part):
    """Height in the chain: errors, private modules, the rooms, and the root package on top."""
    if part == "errors":
        return -2
    if part in {"__init__", "__main__"}:
        return TOP
    return -1 if part.startswith("_") else CHAIN.index(part)


def part_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_parts(path):
    """(line, top-level part) of each import of turnover, at any depth of the file."""
    package = ("turnover", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            targets = [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module or "").split(".")) if node.module else base
            targets = [(*module, alias.name) for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "turnover":
                yield node.lineno, part_named(target)


def part_named(target):
    if len(target) > 1 and target[1] in FREE_NAMES:
        return "_free"
    known = len(target) > 1 and (target[1] in CHAIN or (PACKAGE / f"{target[1]}.py").is_file())
    return target[1] if known else "__init__"


def test_every_part_has_a_place_in_the_chain():
    public = {part_of(path) for path in SOURCES if not part_of(path).startswith("_")}
    assert public <= set(CHAIN), "give the new package its place in tests/shape/tree.py"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_go_down(path):
    own = part_of(path)
    upward = [
        f"{name(path)}:{line} imports {part}"
        for line, part in imported_parts(path)
        if part != own and level(part) >= level(own) and not level(part) == level(own) == -1
    ]
    assert not upward, upward


FLOORS = ["data", "sentences", "renderers"]  # of reports, from the bottom


@pytest.mark.parametrize("path", [p for p in SOURCES if "reports" in p.parts], ids=name)
def test_floors_of_reports_do_not_mix(path):
    own = path.parent.name
    above = FLOORS[FLOORS.index(own) + 1 :] if own in FLOORS else []
    modules = [
        node.module or "" for node in ast.walk(parse(path)) if isinstance(node, ast.ImportFrom)
    ]
    doors = {"turnover.reports"} if own in FLOORS else set()  # it leads to all floors
    assert not [m for m in modules if m in doors or m.startswith(tuple(map(floor, above)))]


def floor(name):
    return f"turnover.reports.{name}"
