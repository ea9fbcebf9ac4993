"""Figures as inline SVG: deterministic, without fonts, dates or requests.

Colours are CSS variables of the page, so that a figure follows its light or dark theme. Each
figure is drawn twice, wide and narrow, and the page shows the one that fits: its letters keep
their size.
"""

import re
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO
from typing import Any

import numpy as np

from turnover.reports.data._story import Coverage, Curves, Detection, Removal

__all__ = ["coverage_svg", "curves_svg", "sweep_svg"]

Frame = tuple[float, float, float, float]

# matplotlib knows no CSS variables: it is given colours that nothing else has, replaced at the end.
COLORS = {
    "ink": "#010203",
    "muted": "#010204",
    "rule": "#010205",
    "unseen": "#010206",
    "seen": "#010207",
    "full": "#010208",
}
STYLE = {  # by series: colour, dashes, width
    "unseen_train": ("unseen", "-", 2.4),
    "seen_train": ("seen", "-", 2.4),
    "unseen_test": ("unseen", (0, (1.2, 1.4)), 1.7),
    "seen_test": ("seen", (0, (1.2, 1.4)), 1.7),
    "full_test": ("full", (0, (5, 2)), 1.7),
    "turnover": ("unseen", "-", 2.4),
    "control": ("full", (0, (5, 2)), 1.9),
}
ARM_COLORS = ("muted", "unseen", "seen", "full", "ink")
STYLE |= {name: (name, "-", 1.9) for name in ARM_COLORS}
NAMES = {"turnover": "unseen loss", "control": "control: training loss"}
SIZES = {"wide": (720, 360), "narrow": (350, 300)}
FRAMES = {"wide": (0.045, 0.12, 0.735, 0.8), "narrow": (0.08, 0.14, 0.55, 0.76)}
FONT = 12
LEADER = {"arrowstyle": "-", "lw": 0.7, "shrinkA": 2, "shrinkB": 0, "relpos": (0, 0.5)}
UNDATED: Any = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def curves_svg(curves: Curves) -> str:
    """Mean losses by epoch (the paper's Figure 2), each line named at its end."""
    ends = ", ".join(f"{name} {values[-1]:.3g}" for _, name, values in curves.series)
    alt = f"Mean loss in nats over {curves.epochs[-1]} epochs. At the end: {ends}."

    def draw(axes: Any) -> None:
        for key, _, values in curves.series:
            _line(axes, key, curves.epochs, values)
        axes.set_ylim(bottom=0)
        axes.set_xlim(curves.epochs[0], max(curves.epochs[-1], curves.epochs[0] + 1))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.set_title("mean loss, nats", loc="left")
        _name_ends(axes, [(key, name, values[-1]) for key, name, values in curves.series])

    return _figure("curves", alt, draw)


def coverage_svg(detection: Detection) -> str:
    """Planted errors found against instances inspected, the most suspicious first."""
    planted = detection.planted
    reach = min(2 * planted, max(curve.inspected[-1] for curve in detection.coverage))
    alt = f"At {planted} inspected, the unseen loss has found {detection.found}"
    alt += f", the control {detection.found_control}." if detection.found_control else "."

    def draw(axes: Any) -> None:
        axes.plot([0, planted, 2 * planted], [0, planted, planted], color=COLORS["rule"], lw=1.2)
        axes.text(planted * 0.97, planted * 1.015, "perfect", ha="right", color=COLORS["muted"])
        for curve in detection.coverage:
            _line(axes, curve.name, curve.inspected, curve.found)
        axes.axvline(planted, color=COLORS["rule"], lw=1, ls=":")
        axes.set_xlim(0, reach)
        axes.set_ylim(0, planted * 1.1)
        axes.set_xlabel("inspected, most suspicious first")
        axes.set_title(f"planted errors found, of {planted}", loc="left")
        _name_ends(axes, [_end(curve, reach) for curve in detection.coverage])

    return _figure("coverage", alt, draw)


def sweep_svg(cells: Sequence[Removal]) -> str:
    """Gain in accuracy by the share that was removed, with intervals; none removed is zero."""
    arms = list(dict.fromkeys(cell.arm for cell in cells if cell.gain))
    shares = sorted({cell.share for cell in cells if cell.gain})
    alt = "Change of accuracy by share removed: " + "; ".join(
        f"{c.share:.1%} {c.arm} {c.gain[0]:+.1f} points" for c in cells if c.gain
    )

    def draw(axes: Any) -> None:
        axes.axhline(0, color=COLORS["rule"], lw=1.2)
        ends = []
        for place, arm in enumerate(arms):
            color = COLORS[ARM_COLORS[place % len(ARM_COLORS)]]
            offset = 0.12 * (place - (len(arms) - 1) / 2)
            found = {c.share: c.gain for c in cells if c.arm == arm and c.gain}
            x = [shares.index(share) + offset for share in found]
            means = [gain[0] for gain in found.values()]
            axes.plot(x, means, color=color, marker="o", ms=4, lw=1.9)
            axes.vlines(x, *zip(*(g[1:] for g in found.values()), strict=True), color=color, lw=1)
            ends.append((ARM_COLORS[place % len(ARM_COLORS)], arm, means[-1]))
        axes.set_xticks(range(len(shares)), [f"{100 * share:g}%" for share in shares])
        axes.set_xlim(-0.5, len(shares) - 0.5)
        axes.set_xlabel("removed from the training set")
        axes.set_title("change of accuracy on the target, points", loc="left")
        _name_ends(axes, ends)

    return _figure("sweep", alt, draw)


def _end(curve: Coverage, at: float) -> tuple[str, str, float]:
    height = float(np.interp(at, curve.inspected, curve.found))
    return curve.name, NAMES.get(curve.name, curve.name), height


def _line(axes: Any, key: str, x: Sequence[float], y: Sequence[float]) -> None:
    color, dashes, width = STYLE.get(key, ("ink", "-", 1.5))
    axes.plot(x, y, color=COLORS[color], ls=dashes, lw=width, solid_capstyle="round")


def _name_ends(axes: Any, ends: list[tuple[str, str, float]]) -> None:
    """Names beside the ends of the lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    line = 1.35 * FONT / (axes.figure.get_size_inches()[1] * 72 * axes.get_position().height)
    heights = [(value - low) / (high - low) for _, _, value in ends]
    for (key, name, _), at, level in zip(ends, _spread(heights, line), heights, strict=True):
        color = COLORS[STYLE.get(key, ("ink",))[0]]
        axes.annotate(
            name,
            xy=(1, level),
            xytext=(1.05, at),
            xycoords="axes fraction",
            va="center",
            color=color,
            arrowprops={"color": color, **LEADER},
        )


def _spread(heights: Sequence[float], least: float) -> list[float]:
    """The same heights in the same order, at least ``least`` apart: groups around their means."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    groups: list[list[int]] = []
    for i in order:
        groups.append([i])
        while len(groups) > 1 and _overlap(groups[-2], groups[-1], heights, least):
            last = groups.pop()
            groups[-1] += last
    placed = [0.0] * len(heights)
    for group in groups:
        for rank, i in enumerate(group):
            placed[i] = _middle(group, heights) + (rank - (len(group) - 1) / 2) * least
    return placed


def _middle(group: Sequence[int], heights: Sequence[float]) -> float:
    return sum(heights[i] for i in group) / len(group)


def _overlap(below: list[int], above: list[int], heights: Sequence[float], least: float) -> bool:
    room = (len(below) + len(above)) / 2 * least
    return _middle(above, heights) - _middle(below, heights) < room


def _figure(name: str, alt: str, draw: Callable[[Any], None]) -> str:
    import matplotlib

    parts = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own settings are
        rc: Any = matplotlib.rcParams
        rc.update(_settings(name))
        for size, (width, height) in SIZES.items():
            svg = _draw(draw, width, height, FRAMES[size])
            parts.append(_inline(svg, f"{name}-{size}", size, alt))
    return "".join(parts)


def _settings(name: str) -> dict[str, Any]:
    muted, rule = COLORS["muted"], COLORS["rule"]
    return {
        "svg.fonttype": "none",
        "text.parse_math": False,  # what a run says is no formula
        "svg.hashsalt": name,
        "font.size": FONT,
        "axes.titlesize": FONT,
        "axes.titlecolor": muted,
        "axes.labelcolor": muted,
        "axes.edgecolor": rule,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": rule,
        "grid.linewidth": 0.6,
        "xtick.color": rule,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "ytick.left": False,
    }


def _draw(draw: Callable[[Any], None], width: int, height: int, frame: Frame) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72))
    draw(figure.add_axes(frame))
    file = BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata=UNDATED)
    return file.getvalue().decode()


def _inline(svg: str, prefix: str, size: str, alt: str) -> str:
    """Only the drawing: no document head, ids unique in the page, colours from its style."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :].strip()
    body = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", body)
    for name, color in COLORS.items():
        body = body.replace(color, f"var(--{name})")
    width, height = SIZES[size]
    label = escape(alt, quote=True)
    return (
        f'<svg class="{size}" viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{body}'
    )
