"""Experiments with fine-tuned transformers."""

from benchmarks.tables._lines import origin, result, seconds, table


def adapters_sst2() -> str:
    """Scores of a fine-tuned MiniLM on SST-2 against re-training."""
    return _against_training("adapters_sst2")


def adapters_agnews() -> str:
    """The same on AG News."""
    return _against_training("adapters_agnews")


def language_tracing() -> str:
    """Which sentence taught the fact, and what re-training says, of a LoRA-tuned language model."""
    found = result("language_tracing")
    rows: list[list[object]] = [
        [
            row["method"],
            *(f"{row['recall'][k]['value']:.2f}" for k in ("1", "10")),
            f"{row['mrr']['value']:.2f}",
            f"{row['lds']['value']:.2f} ({row['lds']['low']:.2f} to {row['lds']['high']:.2f})",
            f"{row['ms per example']:.1f} ms",
        ]
        for row in found["results"]
    ]
    header = ["method", "recall at 1", "at 10", "MRR", "LDS (95 %)", "time, an example"]
    peers = ", ".join(f"{name} {release}" for name, release in found["peers"].items())
    said = (
        f"\n{found['facts']} sentences, {found['queries']} questions, "
        f"{found['trainable']:,} trained numbers. The truth of LDS is re-training on "
        f"{found['subsets']} random halves with one seed, so that its ceiling is not known. "
        f"Agreement within the pairs: {found['agreement']:.2f}. With {peers}. The time of the "
        "split ensemble has its trainings in it, and other times do not. Other work ran on the "
        "machine, so that all times are too long.\n"
    )
    return table(header, rows) + said + origin(found["machine"], "language_tracing")


def adapters_memory() -> str:
    """Peak memory of a process by number of members on one frozen base."""
    found = result("adapters_memory")
    rows: list[list[object]] = [
        [
            row["members"] or "none: packages only",
            f"{row['peak']:.0f} MB",
            f"{row['shared']:.1f} MB" if "shared" in row else "–",
            f"{row['own']:.1f} MB" if "own" in row else "–",
        ]
        for row in found["rows"]
    ]
    header = ["members", "peak of the process", "shared weights", "weights of their own"]
    ratio = found["ratio without the packages"]
    said = f"\nWithout the packages, eight members take {ratio:.2f} times the memory of one.\n"
    return table(header, rows) + said + origin(found["machine"], "adapters_memory")


def _against_training(name: str) -> str:
    found = result(name)
    rows: list[list[object]] = [
        [
            row["estimator"],
            f"{row['lds']:.2f}",
            f"{row['low']:.2f} to {row['high']:.2f}",
            row["cost"],
            seconds(row["seconds"]),
        ]
        for row in found["rows"]
    ]
    rows.append(["*a perfect method*", f"*{found['ceiling']:.2f}*", "", "", ""])
    header = ["scores", "LDS", "95 % interval", "trainings", "time"]
    said = (
        f"\n{found['train']} rows and {found['queries']} queries; re-training on "
        f"{found['subsets']} random halves, {found['seeds']} seeds each. Lines of one kind of "
        "network share trainings, whose time stands in the first of them.\n"
    )
    return table(header, rows) + said + origin(found["machine"], name)
