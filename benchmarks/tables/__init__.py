"""Fill the tables of README and docs from committed results; ``--check`` only compares.

A table stands between ``<!-- table:NAME -->`` and ``<!-- end -->`` and is made by the function
``NAME`` of this package from ``benchmarks/results/*.json``.
"""

import argparse
import re
import sys

from benchmarks.tables._boards import (
    better_scores,
    damping,
    digits_board,
    fashion_board,
    half_trained,
    headline,
    leaderboard,
    mnist_board,
    proof,
    silent,
    sst2_board,
)
from benchmarks.tables._ensembles import (
    calibration,
    checkpoints,
    pair_significance,
    power,
    reliability,
    runs,
)
from benchmarks.tables._explore import explore_clicks, explore_scale
from benchmarks.tables._gpu import gpu
from benchmarks.tables._images import (
    image_accuracy,
    image_errors,
    image_labels,
    leak_curve,
    picture_gallery,
    section22,
)
from benchmarks.tables._judges import judges_found, judges_lds
from benchmarks.tables._kernel import kernel_checkpoints, kernel_scale, landmarks, recipe
from benchmarks.tables._lines import ROOT
from benchmarks.tables._scale import billion, billion_scan, faiss, workers, workers_check
from benchmarks.tables._speed import (
    costs,
    demo,
    first_order,
    image_scores,
    low_rank,
    projection,
    scan,
    speed,
)
from benchmarks.tables._texts import (
    cleanse_sentiment,
    cleanse_sweep,
    explain_errors,
    explained,
    near_copies,
    near_planted,
    text_accuracy,
    text_labels,
    text_suspects,
    trace_facts,
)
from benchmarks.tables._transformers import (
    adapters_agnews,
    adapters_agnews_houlsby,
    adapters_houlsby,
    adapters_memory,
    adapters_sst2,
    adapters_time,
    language_cost,
    language_tail_patch,
    language_tracing,
)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


BLOCK = re.compile(r"(<!-- table:(\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The page with every table made anew."""
    return BLOCK.sub(lambda m: m[1] + TABLES[m[2]]() + m[3], text)


MAKERS = (
    proof,
    silent,
    demo,
    speed,
    scan,
    first_order,
    reliability,
    runs,
    checkpoints,
    calibration,
    power,
    headline,
    costs,
    projection,
    low_rank,
    section22,
    better_scores,
    half_trained,
    damping,
    recipe,
    kernel_checkpoints,
    judges_lds,
    judges_found,
    kernel_scale,
    landmarks,
    gpu,
    workers,
    workers_check,
    billion_scan,
    billion,
    faiss,
    text_accuracy,
    cleanse_sentiment,
    cleanse_sweep,
    explain_errors,
    explained,
    trace_facts,
    text_labels,
    near_copies,
    near_planted,
    text_suspects,
    pair_significance,
    image_labels,
    image_accuracy,
    leak_curve,
    image_errors,
    image_scores,
    picture_gallery,
    digits_board,
    mnist_board,
    sst2_board,
    fashion_board,
    leaderboard,
    explore_clicks,
    explore_scale,
    adapters_sst2,
    adapters_agnews,
    adapters_agnews_houlsby,
    adapters_houlsby,
    adapters_memory,
    adapters_time,
    language_cost,
    language_tail_patch,
    language_tracing,
)


TABLES = {make.__name__: make for make in MAKERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, and change nothing")
    check = parser.parse_args().check
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (fresh := filled(text)) != text:
            stale.append(page.name)
            if not check:
                page.write_text(fresh, encoding="utf-8")
    if check and stale:
        sys.exit(f"Stale tables in {', '.join(stale)}; run: python -m benchmarks.tables")
