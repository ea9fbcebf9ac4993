"""Two runs side by side: whose mistakes went away, whose came, which rows changed their verdict."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from turnover.errors import DataError
from turnover.explore._explorer import Explorer
from turnover.explore._site import Site
from turnover.explore._tables import shown

__all__ = ["compare"]

MOST = 60


def compare(site: Site, request: Request, form: Mapping[str, Any]) -> Response:
    """The shared test rows that exactly one run gets wrong, and rows that one run suspects."""
    ours, theirs = site.explorer, site.other
    if theirs is None:
        raise DataError("There is one run only. Start `turnover explore RUN RUN2` for two.")
    pairs = _shared(ours, theirs, "test")
    names = [each.folder.resolve() for each in (ours, theirs)]
    same = names[0].name == names[1].name
    here, there = (f"{p.parent.name}/{p.name}" if same else p.name for p in names)
    gone: list[dict[str, Any]] = []
    come: list[dict[str, Any]] = []
    both = 0
    for mine, other in pairs:
        wrong, wrong_there = _wrong(ours, mine), _wrong(theirs, other)
        both += wrong and wrong_there
        if wrong != wrong_there:
            row = {**shown(ours, "test", mine), "said": _says(ours, mine)}
            (gone if wrong else come).append({**row, "now": _says(theirs, other)})
    changed = [
        {**shown(ours, "train", mine), "by": here if suspected else there}
        for mine, other in _shared(ours, theirs, "train")
        if (suspected := bool(ours.inspection.suspect[mine]))
        != bool(theirs.inspection.suspect[other])
    ]
    return site.render(
        "compare.html",
        here=here,
        there=there,
        gone=gone,
        come=come,
        both=both,
        shared=len(pairs),
        changed=changed[:MOST],
        changed_count=len(changed),
    )


def _shared(ours: Explorer, theirs: Explorer, side: str) -> list[tuple[int, int]]:
    """Rows that both runs have, by what a reader sees of them, or by their ids."""

    def keys(run: Explorer) -> dict[object, int]:
        rows = run.classifier.train if side == "train" else run.classifier.test
        show = run.classifier.show
        found: dict[object, int] = {}
        for row, id in enumerate(rows.ids.tolist()):
            seen = show("train" if side == "train" else "test", row)
            found.setdefault((seen.get("name", id), seen.get("text")), row)
        return found

    known = keys(theirs)
    return [(row, known[key]) for key, row in keys(ours).items() if key in known]


def _says(run: Explorer, row: int) -> str:
    return run.classes[int(run.says[row].argmax())]


def _wrong(run: Explorer, row: int) -> bool:
    return _says(run, row) != run.classes[int(run.classifier.test.batch["label"][row])]
