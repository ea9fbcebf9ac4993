import ast
from functools import cache

from tests.shape.tree import CHAIN, PACKAGE, SOURCES, offenders, parse

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


@cache
def part_named(target):
    if len(target) > 1 and target[1] in FREE_NAMES:
        return "_free"
    known = len(target) > 1 and (target[1] in CHAIN or (PACKAGE / f"{target[1]}.py").is_file())
    return target[1] if known else "__init__"


def test_every_part_has_a_place_in_the_chain():
    public = {part_of(path) for path in SOURCES if not part_of(path).startswith("_")}
    assert public <= set(CHAIN), "give the new package its place in tests/shape/tree.py"


def upward(path):
    own = part_of(path)
    return [
        f"line {line} imports {part}"
        for line, part in imported_parts(path)
        if part != own and level(part) >= level(own) and not level(part) == level(own) == -1
    ]


def test_imports_go_down():
    assert not offenders(upward)


FLOORS = ["data", "sentences", "renderers"]  # of reports, from the bottom


def climbs(path):
    """Modules of a higher floor that a file imports; the door of the room leads to all floors."""
    above = FLOORS[FLOORS.index(path.parent.name) + 1 :]
    modules = [n.module or "" for n in ast.walk(parse(path)) if isinstance(n, ast.ImportFrom)]
    doors = tuple(f"turnover.reports.{floor}" for floor in above)
    return [m for m in modules if m == "turnover.reports" or m.startswith(doors)]


def test_floors_of_reports_do_not_mix():
    files = [path for path in SOURCES if path.parent.parent == PACKAGE / "reports"]
    assert {path.parent.name for path in files} == set(FLOORS)
    assert not offenders(climbs, files)
