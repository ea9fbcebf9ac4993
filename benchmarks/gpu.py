"""What does a GPU make of all this? Masks, scans, trainings, kernels and VGG19.

    python -m benchmarks.gpu --json benchmarks/results/gpu.json             # on one device
    python -m benchmarks.gpu --json runs/gpu.json --tiny                    # anywhere, in seconds

Every part is kept as soon as it is measured, and parts that the file holds are not measured again,
so that more than one call may share the work (``--parts`` names some).

- ``masks``: are mask bits those of the CPU, and how long do they take?
- ``scan``: scores of 1e6 ids × 2,048 units × 64 queries by tables, which is what the library does,
  and by products of matrices in single precision and in bfloat16 with float32 sums, with the share
  of signs that differ; compiled too where that is asked for. And the best 100 of 1e9 ids × 2,048.
- ``training``: a step with masks against one with ordinary dropout, plain and compiled.
- ``kernel``: features, landmarks, solve and a query of the gradient kernel, in memory and from a
  folder; of few rows also the largest difference from the CPU.
- ``exact``: exact scores of VGG19 with a shared prefix, one query and 50,000 instances.
- ``transfer``: bytes a second from this machine to the device, pageable and pinned.
- ``vgg19``: section 4.1: VGG19 on 50,000 pictures of 32 × 32, three arms, as many epochs as fit
  into what is left of ``--seconds``. Without the files of CIFAR-10 the pictures are random, which
  cost as much, and no accuracy is told.

``--seconds`` is what a call may take, of which the last part gets what is left. Nobody has run it
on a GPU yet, so that the sizes are a guess at eight minutes.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import training_overhead
from benchmarks._machine import describe
from turnover.data import Rows
from turnover.estimators import GradientKernel, LinearScores, TwoPass, scan, top
from turnover.masks import MaskSpec, mask
from turnover.runs import cosine
from turnover.runs.images import build_network
from turnover.training import Recipe, fit, fit_split_ensemble, losses_of

SEED, PARTS = 0, ("masks", "scan", "training", "kernel", "exact", "transfer", "vgg19")
ARMS = {"plain": (False, 0.0), "turnover": (True, 0.0), "turnover + dropout": (True, 0.5)}
BLOCK, TOP, LANDMARKS, FEATURES, CLASSES = 4096, 100, 1024, 64, 10


@final
@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    ids: int = 1_000_000
    many: int = 1_000_000_000
    units: int = 2048
    queries: int = 64
    widths: tuple[int, ...] = (512, 1024, 2048, 4096)
    batches: tuple[int, ...] = (32, 256)
    steps: int = 200
    rows: tuple[int, ...] = (60_000, 1_000_000)
    compared: int = 2_000
    landmarks: int = LANDMARKS
    network: str = "vgg19"
    first: int | None = None
    instances: int = 50_000
    pictures: int = 50_000
    batch: int = 512
    megabytes: int = 512


TINY = Sizes(
    ids=3000,
    many=5000,
    units=130,
    queries=3,
    widths=(16,),
    batches=(4,),
    steps=5,
    rows=(120,),
    compared=60,
    landmarks=16,
    network="cnn",
    first=3,
    instances=20,
    pictures=32,
    batch=16,
    megabytes=1,
)


class Bench:
    """One device, and how much of it is used."""

    def __init__(self, device: str, sizes: Sizes, *, compiled: bool) -> None:
        self.device, self.sizes, self.compiled = torch.device(device), sizes, compiled

    def wait(self) -> None:
        """Until the device has nothing to do."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], repeats: int = 3) -> float:
        """Median of some calls, after one that is not counted."""
        work()
        return median(self.once(work) for _ in range(repeats))

    def once(self, work: Callable[[], object]) -> float:
        """Of a single call."""
        self.wait()
        start = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - start

    def masks(self) -> dict[str, Any]:
        ids, units = torch.arange(-BLOCK, BLOCK), self.sizes.units
        cases = {
            f"keep {keep}": torch.equal(
                mask(ids.to(self.device), units, keep=keep).cpu(), mask(ids, units, keep=keep)
            )
            for keep in (0.5, 0.3)
        }
        there = ids.to(self.device)
        seconds = self.seconds(lambda: mask(there, units))
        return {"same_bits": cases, "bits_per_second": round(len(ids) * units / seconds)}

    def scan(self) -> dict[str, Any]:
        size = self.sizes
        linear, spec = self._linear(size.queries), MaskSpec(size.units, seed=SEED)
        by_tables = scan(linear, range(size.ids))
        found: dict[str, Any] = {
            "tables": {"seconds": self.seconds(lambda: scan(linear, range(size.ids)))}
        }
        ways = {"product": torch.float32, "product in bfloat16": torch.bfloat16}
        for name, dtype in ways.items():
            for compiled in (False, True)[: 1 + self.compiled]:
                label = f"{name}, compiled" if compiled else name
                found[label] = self._by_product(linear, spec, dtype, by_tables, compiled=compiled)
        one = self._linear(1)
        whole = self.once(lambda: top(one, range(size.many), TOP))
        found["one query"] = {"ids": size.many, "top": TOP, "seconds": whole}
        return found

    def _linear(self, queries: int) -> LinearScores:
        random = torch.Generator().manual_seed(SEED)
        slopes = torch.randn(queries, self.sizes.units, generator=random).to(self.device)
        return LinearScores.from_gradients([MaskSpec(self.sizes.units, seed=SEED)], [slopes])

    def _by_product(
        self,
        linear: LinearScores,
        spec: MaskSpec,
        dtype: torch.dtype,
        wanted: Tensor,
        *,
        compiled: bool,
    ) -> dict[str, float]:
        """Mask bits of a block of ids, times the slopes; sums are of float32."""
        slopes, offsets = linear.slopes[0].T.to(dtype), linear.offsets

        def block(start: int) -> Tensor:
            ids = torch.arange(start, min(start + BLOCK, len(wanted[0])), device=self.device)
            return (spec.mask(ids).to(dtype) @ slopes).float() + offsets

        way = torch.compile(block, dynamic=True) if compiled else block
        out = torch.empty_like(wanted)

        def work() -> None:
            for start in range(0, out.shape[1], BLOCK):
                part = way(start)
                out[:, start : start + len(part)] = part.T

        seconds = self.seconds(work)
        wrong = (out.sign() != wanted.sign()).double().mean()
        error = ((out - wanted).abs().max() / wanted.std()).double()
        return {"seconds": seconds, "other_signs": float(wrong), "error_over_spread": float(error)}

    def training(self) -> list[dict[str, Any]]:
        size = self.sizes
        return [
            training_overhead.compare(
                width, batch, size.steps, str(self.device), compiled=compiled, wait=self.wait
            )
            for width in size.widths
            for batch in size.batches
            for compiled in (False, True)[: 1 + self.compiled]
        ]

    def kernel(self) -> dict[str, Any]:
        return {
            "rows": [self._kernel(count) for count in self.sizes.rows],
            "against_the_cpu": self._compared(self.sizes.compared),
        }

    def _kernel(self, count: int) -> dict[str, Any]:
        rows, queries = problem(count, SEED), problem(8, SEED + 1)
        train = Recipe(1, batch_size=min(4096, count), seed=SEED)
        start = self.once(lambda: None) + time.perf_counter()
        model = fit_split_ensemble(self._network, rows, loss, train, pairs=2)
        self.wait()
        found = {"rows": count, "train_seconds": time.perf_counter() - start}
        for name, folder in (("memory", None), ("folder", tempfile.TemporaryDirectory())):
            kernel = GradientKernel(model, loss, damping=0.3, landmarks=self.sizes.landmarks)
            where = None if folder is None else folder.name
            fitted: list[Any] = []
            seconds = self.once(lambda: fitted.append(kernel.fit(rows, folder=where)))  # noqa: B023
            query = self.seconds(lambda: fitted[0].scores(queries.select(slice(0, 1))))  # noqa: B023
            found[name] = {"fit_seconds": seconds, "one_query_seconds": query}
            found["bytes_per_row"] = round(fitted[0].bytes_per_instance)
            if folder is not None:
                folder.cleanup()
        return found

    def _compared(self, count: int) -> dict[str, float]:
        """Largest difference from the scores of the CPU, over the spread of a query's scores."""
        rows, queries, found = problem(count, SEED), problem(8, SEED + 1), {}
        here = fit_split_ensemble(self._here, rows, loss, Recipe(1, seed=SEED), pairs=2)
        for landmarks in (0, self.sizes.landmarks):
            how = {"damping": 0.3, "landmarks": landmarks}
            wanted = GradientKernel(here.cpu(), loss, **how).fit(rows).scores(queries).values
            there = GradientKernel(here.to(self.device), loss, **how).fit(rows)
            error = (there.scores(queries).values - wanted).abs().max() / wanted.std()
            found["landmarks" if landmarks else "exact"] = float(error)
        return found

    def _here(self, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(FEATURES, 256), nn.ReLU(), nn.Linear(256, CLASSES))

    def _network(self, seed: int) -> nn.Module:
        return self._here(seed).to(self.device)

    def exact(self) -> dict[str, Any]:
        size = self.sizes
        model = self._pictures_network(turnover=True, dropout=0.0)
        image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(SEED))
        query = {"image": image, "label": torch.tensor([3])}
        exact, ids = TwoPass(model, picture_loss), torch.arange(size.instances)
        exact.scores(query, ids[:16])
        seconds = self.once(lambda: exact.scores(query, ids))
        about = exact.scores(query, ids[:16]).about
        return {"instances": size.instances, "seconds": seconds, "prefix": about["prefix"]}

    def _pictures_network(self, *, turnover: bool, dropout: float) -> nn.Module:
        size = self.sizes
        how = {"turnover": turnover, "dropout": dropout, "first": size.first}
        return build_network(size.network, classes=CLASSES, seed=SEED, **how).to(self.device)

    def transfer(self) -> dict[str, float]:
        host = torch.empty(self.sizes.megabytes * 2**18)
        found = {"pageable": host}
        if self.device.type == "cuda":
            found["pinned"] = host.pin_memory()
        return {
            name: host.nbytes / self.seconds(lambda: part.to(self.device, copy=True))  # noqa: B023
            for name, part in found.items()
        }

    def vgg19(self, seconds: float) -> dict[str, Any]:
        train, test = pictures(self.sizes.pictures, self.device)
        return {
            "pictures": len(train),
            "arms": {arm: self._arm(arm, train, test, seconds / len(ARMS)) for arm in ARMS},
        }

    def _arm(self, arm: str, train: Rows, test: Rows | None, seconds: float) -> dict[str, Any]:
        turnover, dropout = ARMS[arm]
        few = train.select(slice(0, max(1, len(train) // 10)))
        epoch = 10 * self.once(lambda: self._trained(turnover, dropout, few, 1))
        epochs = max(1, int(seconds / epoch) - 1)
        model: list[nn.Module] = []
        took = self.once(lambda: model.append(self._trained(turnover, dropout, train, epochs)))
        found = {"epochs": epochs, "seconds": took, "seconds_per_epoch": took / epochs}
        if test is not None:
            right = -losses_of(model[0], _wrong, test)
            found["accuracy"] = float(right.mean())
        return found

    def _trained(self, turnover: bool, dropout: float, rows: Rows, epochs: int) -> nn.Module:
        model = self._pictures_network(turnover=turnover, dropout=dropout)
        fit(model, rows, picture_loss, Recipe(epochs, self.sizes.batch, SEED, schedule=cosine))
        return model


def problem(count: int, seed: int) -> Rows:
    """Points of ten classes, made by a random network: ``[count, 64]`` and labels."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(count, FEATURES, generator=random)
    teacher = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(7))
    return Rows((x, (x @ teacher).argmax(dim=1)))


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def picture_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    image = batch["image"]
    faster = image.is_cuda and model.training
    with torch.autocast("cuda", torch.bfloat16) if faster else nullcontext():
        logits = model(image)
    return F.cross_entropy(logits.float(), batch["label"], reduction="none")


def _wrong(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """−1 for every picture whose label is the most probable one, else 0."""
    return -(model(batch["image"]).argmax(dim=1) == batch["label"]).float()


def pictures(count: int, device: torch.device) -> tuple[Rows, Rows | None]:
    """CIFAR-10 where its files are, and else random pictures without a test."""
    try:
        from experiments._pictures import cifar10_rows

        train = cifar10_rows("train", torch.arange(count))
        test = cifar10_rows("test", torch.arange(min(count, 10_000)))
    except (SystemExit, ImportError):
        random = torch.Generator().manual_seed(SEED)
        image = torch.randn(count, 3, 32, 32, generator=random)
        label = torch.randint(CLASSES, (count,), generator=random)
        return Rows({"image": image.to(device), "label": label.to(device)}), None
    sent = [
        Rows({name: x.to(device) for name, x in rows.batch.items()}, rows.ids)
        for rows in (train, test)
    ]
    return sent[0], sent[1]


def main() -> None:
    """Measure the parts that the file lacks, and keep each at once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true", help="try everything in seconds")
    parser.add_argument("--seconds", type=float, default=460, help="of the whole call, about")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    chosen = parser.parse_args()
    began, sizes = time.perf_counter(), TINY if chosen.tiny else Sizes()
    compiled = not (chosen.tiny or chosen.no_compile)
    bench = Bench(chosen.device, sizes, compiled=compiled)
    kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else {}
    parts = kept.get("parts", {})
    for name in chosen.parts:
        if name in parts:
            continue
        start = time.perf_counter()
        left = 0.0 if chosen.tiny else max(0.0, chosen.seconds - (start - began))
        found = bench.vgg19(left) if name == "vgg19" else getattr(bench, name)()
        parts[name] = {"found": found, "seconds": round(time.perf_counter() - start, 2)}
        print(name, json.dumps(parts[name]), flush=True)
        device = torch.cuda.get_device_name() if chosen.device.startswith("cuda") else "cpu"
        whole = {"device": device, "sizes": asdict(sizes), "parts": parts}
        whole["machine"] = describe(all=SEED)
        chosen.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
