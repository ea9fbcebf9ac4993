"""A billion ids: what do plain scores and two stages of the kernel cost, and what is lost?

    python -m benchmarks.billion --json benchmarks/results/billion.json

- ``scan``: the best 100 of 1e8 ids by plain scores of 2,048 units, one query. Nothing is stored; a
  billion is ten times as much, told as an extrapolation (``--ids`` measures more).
- ``two_stages``: MNIST and its shifted copies (``benchmarks.kernel_scale``), one pair of networks,
  256 landmarks. The best 100 rows of each query by the whole kernel are the truth; ``recall`` is
  the share of them among the rows that stage one keeps, by number of directions and of rows.
  Beside it stand three cheaper stages: the last layer alone, one rank-1 factor of each row, by
  products and with the Kronecker factors of its curvature; and plain first-order scores of a masked
  network, which store nothing.
- ``faiss``: the same numbers of stage one in an index of FAISS, exact and with inverted lists,
  against the stream, where ``faiss-cpu`` is installed.

Seconds are those of one processor, since other work may share the machine; ``of_1e9`` is
proportional.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from benchmarks._tasks import mnist
from benchmarks.kernel_scale import Loss
from turnover.data import Rows
from turnover.estimators import (
    Coarse,
    FirstOrder,
    GradientKernel,
    LinearScores,
    best_rows,
    scan,
    top,
)
from turnover.masks import MaskSpec
from turnover.training import Recipe, fit, fit_split_ensemble

SEED, UNITS, TOP, QUERIES, LANDMARKS, EPOCHS = 0, 2048, 100, 20, 256, 1
WIDTHS, BILLION, REPEATS = (16, 32, 64, 128), 1_000_000_000, 3
SHARES = (0.0001, 0.001, 0.01, 0.1)  # the first is 1e5 of 1e9


def seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median of some calls."""
    each = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        each.append(time.process_time() - start)
    return median(each)


def scanned(ids: int) -> dict[str, Any]:
    """The best of so many ids by plain scores, nothing stored."""
    slopes = torch.randn(1, UNITS, generator=torch.Generator().manual_seed(SEED))
    linear = LinearScores.from_gradients([MaskSpec(UNITS, seed=SEED)], [slopes])
    top(linear, range(100_000), TOP)  # compiles
    took = seconds(lambda: top(linear, range(ids), TOP), 1)
    found = {"ids": ids, "units": UNITS, "top": TOP, "bytes_per_id": 0, "seconds": took}
    return found | {"of_1e9": {"seconds": took * BILLION / ids, "extrapolated": ids != BILLION}}


def two_stages(count: int) -> tuple[dict[str, Any], Coarse, Tensor]:
    """Recall of the kernel's best rows, by stage, by rows that are kept, and what it costs."""
    task, loss = mnist(), Loss("train", min(count, 60_000))
    rows, queries = Rows(torch.arange(count)), Rows(torch.arange(count, count + QUERIES))
    recipe = replace(task.recipe, epochs=EPOCHS, batch_size=256)
    model = fit_split_ensemble(task.plain, rows, loss, recipe, pairs=1)
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        kernel = GradientKernel(model, loss, damping=0.3, landmarks=LANDMARKS)
        fitted = kernel.fit(rows, folder=folder)
        made = time.process_time() - start
        wanted = fitted.top(queries, TOP).positions
        whole = seconds(lambda: fitted.top(queries.select(slice(0, 1)), TOP))
        stages, best = [], None
        for width in WIDTHS:
            start = time.process_time()
            coarse = Coarse.of(fitted, width)
            built = time.process_time() - start
            stages.append(_stage(f"{width} directions a network", coarse, queries, wanted, built))
            best = coarse if width == 32 else best
        stages += [_ranked(*each, wanted) for each in _rivals(model, loss, rows, queries, recipe)]
        assert best is not None
        asked = torch.cat(
            [z @ t for z, t in zip(best._asked(queries), best.turned, strict=True)], 1
        )
        best = replace(best, rows=best.rows.clone())
    found = {
        "rows": count,
        "queries": QUERIES,
        "networks": 2,
        "landmarks": LANDMARKS,
        "index_seconds": made,
        "index_bytes_per_row": fitted.bytes_per_instance,
        "one_stage_seconds": whole,
        "stages": stages,
    }
    return found, best, asked


def _stage(
    name: str, coarse: Coarse, queries: Rows, wanted: Tensor, built: float
) -> dict[str, Any]:
    count, one = len(coarse.rows), queries.select(slice(0, 1))
    recall, times = {}, {}
    for share in SHARES:
        keep = max(TOP, int(share * count))
        recall[str(keep)] = _recall(coarse.candidates(queries, keep), wanted)
        times[str(keep)] = seconds(lambda: coarse.top(one, TOP, keep=keep))  # noqa: B023
    first = seconds(lambda: coarse.candidates(one, TOP))
    return {
        "stage": name,
        "bytes_per_row": coarse.bytes_per_instance,
        "recall": recall,
        "built_seconds": built,
        "stream_seconds": first,
        "both_stages_seconds": times,
        "of_1e9": {
            "gigabytes": coarse.bytes_per_instance * BILLION / 1e9,
            "stream_seconds": first * BILLION / count,
        },
    }


def _ranked(name: str, size: float, scores: Tensor, wanted: Tensor) -> dict[str, Any]:
    """Recall of a stage of which only the scores are at hand."""
    recall = {}
    for share in SHARES:
        keep = max(TOP, int(share * scores.shape[1]))
        recall[str(keep)] = _recall(scores.topk(keep, dim=1).indices, wanted)
    return {"stage": name, "bytes_per_row": size, "recall": recall}


def _recall(kept: Tensor, wanted: Tensor) -> float:
    hits = [torch.isin(one, two).float().mean() for one, two in zip(wanted, kept, strict=True)]
    return round(float(torch.stack(hits).mean()), 4)


def _rivals(
    model: nn.Module, loss: Loss, rows: Rows, queries: Rows, recipe: Recipe
) -> list[tuple[str, float, Tensor]]:
    """The last layer of one network, and plain first-order scores of a masked one."""
    config = GradientKernel(model, loss)._config(rows.select(slice(0, 1000)))
    network = next(iter(model.members))
    own, asked = (_last(config, network, part) for part in (rows, queries))
    size = 2 * sum(part.shape[1] for part in own)
    residual = 1 - torch.exp(-_losses(network, loss, rows))
    plain = (asked[0] @ own[0].T) * (asked[1] @ own[1].T) * residual
    weight = (residual * (1 - residual)).clamp_min(1e-4)
    inverse = []
    for part in own:
        moment = (part.T * weight) @ part / weight.sum()
        moment.diagonal().add_(0.1 * moment.diagonal().mean())
        inverse.append(torch.linalg.inv(moment.double()).float())
    weighed = (asked[0] @ inverse[0] @ own[0].T) * (asked[1] @ inverse[1] @ own[1].T) * residual
    found = [("last layer, products", size, plain), ("last layer, Kronecker", size, weighed)]
    masked = mnist().turnover(SEED)
    fit(masked, rows, loss, recipe)
    linear, _ = FirstOrder(masked, loss, masks=0).linear(queries, rows)
    return [*found, ("first-order scores of masks", 0, scan(linear, rows.ids))]


def _last(config: Any, network: nn.Module, rows: Rows) -> tuple[Tensor, Tensor]:
    """Features of the last layer alone, whose outer product is a gradient."""
    blocks = [config.features(network, part)[-1] for part in rows.batch.split(2048)]
    return torch.cat([block.a for block in blocks]), torch.cat([block.g for block in blocks])


def _losses(network: nn.Module, loss: Loss, rows: Rows) -> Tensor:
    with torch.no_grad():
        return torch.cat([loss(network, part) for part in rows.batch.split(4096)])


def faiss(rows: Tensor, asked: Tensor, keep: int, *, lists: int = 0) -> dict[str, Any]:
    """FAISS against the stream: the same rows ``float16``, and as many of them kept."""
    if importlib.util.find_spec("faiss") is None:
        return {"installed": False}
    import faiss as library

    library.omp_set_num_threads(1)
    one, width = np.ascontiguousarray(asked[:1].numpy()), rows.shape[1]
    wanted, found = best_rows(rows, asked, keep), dict[str, Any]()
    found |= {"installed": True, "version": library.__version__, "keep": keep}
    found |= {"rows": len(rows), "numbers": width, "threads": 1}
    took = seconds(lambda: best_rows(rows, asked[:1], keep))
    found["stream, half precision"] = {"seconds": took, "built_seconds": 0.0}
    half = library.ScalarQuantizer.QT_fp16
    product = library.METRIC_INNER_PRODUCT
    makers = {
        "exact, single precision": (lambda: library.IndexFlatIP(width), ()),
        "exact, half precision": (
            lambda: library.IndexScalarQuantizer(width, half, product),
            (),
        ),
        "inverted lists": (lambda: _lists(library, width, lists), (8, 64, 256)),
    }
    for name, (make, probes) in makers.items():
        if probes and not lists:
            continue
        start, index = time.process_time(), make()
        index.train(rows[:: max(1, len(rows) // (50 * max(1, lists)))].float().numpy())
        for part in rows.split(2**18):
            index.add(part.float().numpy())
        built = time.process_time() - start
        for probed in probes or (0,):
            label = f"{name}, {probed} of {lists} probed" if probed else name
            if probed:
                index.nprobe = probed
            kept = torch.from_numpy(index.search(np.ascontiguousarray(asked.numpy()), keep)[1])
            found[label] = {
                "seconds": seconds(lambda: index.search(one, keep)),  # noqa: B023
                "built_seconds": built,
                "recall_of_the_stream": _recall(kept, wanted),
            }
    return found


def of_noise(count: int) -> dict[str, Any]:
    """The same with numbers of no meaning, whose exact search takes as long."""
    random = torch.Generator().manual_seed(SEED)
    rows = torch.empty(count, 64, dtype=torch.float16)
    for part in rows.split(2**18):
        part.copy_(torch.randn(part.shape, generator=random))
    return faiss(rows, torch.randn(2, 64, generator=random), count // 100)


def _lists(library: Any, width: int, lists: int) -> Any:
    metric = library.METRIC_INNER_PRODUCT
    return library.IndexIVFFlat(library.IndexFlatIP(width), width, lists, metric)


def main() -> None:
    """Measure, and keep each part at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--ids", type=int, default=100_000_000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--noise", type=int, help="only FAISS with so many rows, into the file")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.noise:
        kept = json.loads(chosen.json.read_text(encoding="utf-8"))
        kept["faiss_of_noise"] = of_noise(chosen.noise) | {"machine": describe(all=SEED)}
        chosen.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(kept["faiss_of_noise"], indent=1))
        return
    found: dict[str, Any] = {"scan": scanned(chosen.ids)}
    print(found, flush=True)
    found["two_stages"], coarse, asked = two_stages(chosen.rows)
    lists = int(4 * len(coarse.rows) ** 0.5)
    found["faiss"] = faiss(coarse.rows, asked, len(coarse.rows) // 100, lists=lists)
    found["machine"] = describe(all=SEED)
    chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
