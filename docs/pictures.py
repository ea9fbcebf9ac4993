"""Draw halves.svg and masks.svg with the real masks; cut proof.png: ``python docs/pictures.py``."""

from pathlib import Path

import torch
from PIL import Image

from turnover.masks import mask

HERE = Path(__file__).parent / "images"
SEEN, UNSEEN, INK, PAPER = "#2a6fbb", "#e8edf3", "#222", "#fff"
CELL, GAP = 26, 4
FONT = "font-family='system-ui, sans-serif' font-size='14'"


def svg(name: str, width: int, height: int, parts: list[str]) -> None:
    """Write a picture."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' width='{width}'>"
    )
    ground = f"<rect width='{width}' height='{height}' fill='{PAPER}'/>"
    (HERE / f"{name}.svg").write_text("\n".join([head, ground, *parts, "</svg>\n"]), "utf-8")


def cell(x: int, y: int, on: bool) -> str:
    """A square, filled where the row is learned."""
    fill = SEEN if on else UNSEEN
    return f"<rect x='{x}' y='{y}' width='{CELL}' height='{CELL}' rx='4' fill='{fill}'/>"


def text(x: int, y: int, words: str, anchor: str = "start") -> str:
    """Words at a place."""
    return f"<text x='{x}' y='{y}' {FONT} fill='{INK}' text-anchor='{anchor}'>{words}</text>"


def legend(x: int, y: int, seen: str, unseen: str) -> list[str]:
    """What the two colours mean."""
    return [
        *(cell(x, y, True), text(x + CELL + 8, y + 18, seen)),
        *(cell(x, y + CELL + 8, False), text(x + CELL + 8, y + CELL + 26, unseen)),
    ]


def halves(rows: int = 8, pairs: int = 4) -> None:
    """Rows of the training set against networks, in pairs with complementary halves."""
    coins = mask(torch.arange(1, rows + 1), pairs, seed=3)
    left, top, parts = 110, 56, []
    for pair in range(pairs):
        x = left + pair * (2 * (CELL + GAP) + 22)
        parts.append(text(x + CELL + GAP // 2, 24, f"pair {pair + 1}", "middle"))
        for member in (0, 1):
            at = x + member * (CELL + GAP)
            parts.append(text(at + CELL // 2, 46, "AB"[member], "middle"))
            for row in range(rows):
                on = bool(coins[row, pair]) != bool(member)
                parts.append(cell(at, top + row * (CELL + GAP), on))
    parts += [
        text(left - 14, top + row * (CELL + GAP) + 18, f"row {row + 1}", "end")
        for row in range(rows)
    ]
    below = top + rows * (CELL + GAP) + 14
    parts += legend(left, below, "this network learns the row", "this network never sees it")
    svg("halves", left + pairs * (2 * (CELL + GAP) + 22) + 6, below + 2 * CELL + 22, parts)


def masks(instances: int = 6, units: int = 12) -> None:
    """Training instances against the units of one masked layer."""
    bits = mask(torch.arange(1, instances + 1), units, seed=1)
    left, top, parts = 110, 40, []
    parts.append(text(left, 24, "units of one layer"))
    for row in range(instances):
        parts.append(text(left - 14, top + row * (CELL + GAP) + 18, f"row {row + 1}", "end"))
        for unit in range(units):
            on = bool(bits[row, unit])
            parts.append(cell(left + unit * (CELL + GAP), top + row * (CELL + GAP), on))
    below = top + instances * (CELL + GAP) + 14
    parts += legend(left, below, "the row changes this unit", "the row never changes it")
    svg("masks", left + units * (CELL + GAP) + 10, below + 2 * CELL + 22, parts)


def proof(height: int = 590) -> None:
    """The head of the demo's page, in 128 colours."""
    with Image.open(HERE / "demo.png") as page:
        head = page.convert("RGB").crop((0, 0, page.width, height))
    head.quantize(128).save(HERE / "proof.png", optimize=True)


if __name__ == "__main__":
    proof()
    halves()
    masks()
