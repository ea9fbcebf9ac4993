"""Experiments with fine-tuned transformers."""

from typing import Any

from benchmarks.tables._lines import origin, result, table


def adapters_sst2() -> str:
    """Scores of a fine-tuned MiniLM on SST-2 against re-training."""
    return _against_training("adapters_sst2")


def adapters_houlsby() -> str:
    """The same of Houlsby adapters."""
    return _against_training("adapters_houlsby")


def adapters_agnews() -> str:
    """The same on AG News."""
    return _against_training("adapters_agnews")


def adapters_agnews_houlsby() -> str:
    """Houlsby adapters on AG News."""
    return _against_training("adapters_agnews_houlsby")


def language_tracing() -> str:
    """Which sentence taught the fact, and what re-training says, of a LoRA-tuned language model."""
    found = result("language_tracing")
    rows: list[list[object]] = [
        [
            row["method"],
            *(f"{row['recall'][k]['value']:.2f}" for k in ("1", "10")),
            f"{row['mrr']['value']:.2f}",
            f"{row['lds']['value']:.2f} ({row['lds']['low']:.2f} to {row['lds']['high']:.2f})",
        ]
        for row in found["results"]
    ]
    header = ["method", "recall at 1", "at 10", "MRR", "LDS (95 %)"]
    peers = ", ".join(f"{name} {release}" for name, release in found["peers"].items())
    said = (
        f"\n{found['facts']} sentences, {found['queries']} questions, "
        f"{found['trainable']:,} trained numbers. The truth of LDS is re-training on "
        f"{found['subsets']} random halves with one seed, so that its ceiling is not known. "
        f"Agreement within the pairs: {found['agreement']:.2f}. With {peers}.\n"
    )
    return table(header, rows) + said + origin(found["machine"], "language_tracing")


def language_tail_patch() -> str:
    """By how much an answer is more probable after a step on the sentences that a method names."""
    found = result("language_tail_patch")

    def told(one: dict[str, Any]) -> str:
        return f"{one['value']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f})"

    rows: list[list[object]] = [
        [row["method"], *(told(row["tail-patch"][k]) for k in ("1", "10"))]
        for row in found["results"]
    ]
    largest = [f"*{found['largest'][k]['value']:+.3f}*" for k in ("1", "10")]
    rows.append(["*the sentences of the largest steps*", *largest])
    header = ["method", "first sentence (95 %)", "mean of the first ten (95 %)"]
    said = (
        f"\nIn nats of log p of the answer, after one step on one sentence; "
        f"{found['facts']} sentences, {found['queries']} questions. Steps are those of "
        f"{found['networks']} whole networks, at a tenth of the learning rate of tuning. Intervals "
        "are over questions.\n"
    )
    return table(header, rows) + said + origin(found["machine"], "language_tail_patch")


def language_cost() -> str:
    """Memory and seconds of each method for a language model."""
    found = result("language_cost")
    rows: list[list[object]] = [
        [row["method"], f"{row['ms per example']:.1f} ms", f"{row['megabytes']:.0f} MB"]
        for row in found["results"]
    ]
    header = ["method", "processor time, an example and network", "memory above the model's"]
    said = (
        f"\n{found['sentences']} sentences and {found['questions']} questions; GPT-2 of "
        f"{found['parameters']:,} numbers, of which LoRA trains {found['trainable']:,}. "
        "One thread. bergson starts processes, which load their packages anew.\n"
    )
    return table(header, rows) + said + origin(found["machine"], "language_cost")


def adapters_memory() -> str:
    """Peak memory of a process by number of members on one frozen base."""
    found = result("adapters_memory")
    rows: list[list[object]] = [
        [
            row["members"] or "none: packages only",
            f"{row['peak']:.0f} MB ({row['least']:.0f} to {row['most']:.0f})",
            f"{row['shared']:.1f} MB" if "shared" in row else "–",
            f"{row['own']:.1f} MB" if "own" in row else "–",
        ]
        for row in found["rows"]
    ]
    header = ["members", "peak of the process", "shared weights", "weights of their own"]
    ratio = found["ratio without the packages"]
    peak = {row["members"]: row["peak"] for row in found["rows"]}
    pair = (peak[8] - peak[0]) / (peak[2] - peak[0])
    said = (
        f"\nMedians of {found['processes']} processes. Without the packages, eight members take "
        f"{ratio:.2f} times the memory of one, which shares no frozen prefix, and {pair:.2f} times "
        "the memory of two, which do.\n"
    )
    return table(header, rows) + said + origin(found["machine"], "adapters_memory")


def adapters_time() -> str:
    """Time of pairs of adapters beside as many ordinary fine-tunings."""
    found = result("adapters_time")
    ways: dict[str, list[object]] = {}
    for one in found["results"]:
        told = f"{one['ratio']:.2f} ({one['low']:.2f} to {one['high']:.2f})"
        ways.setdefault(one["way"], []).append(told)
    counts = list(dict.fromkeys(one["pairs"] for one in found["results"]))
    header = ["P pairs, trained", *(f"P = {pairs}" for pairs in counts)]
    said = (
        f"\nProcessor time by that of P ordinary fine-tunings on all rows; the median of "
        f"{found['rounds']} rounds, the least and the most. {found['rows']} rows of "
        f"{found['tokens']} tokens, {found['epochs']} epochs, batches of {found['batch']}. "
        f"One fine-tuning took {found['one adapter']:.0f} s.\n"
    )
    rows = [[way, *told] for way, told in ways.items()]
    return table(header, rows) + said + origin(found["machine"], "adapters_time")


def _against_training(name: str) -> str:
    found = result(name)
    rows = [_judged(row) for row in found["rows"]]
    rows.append(["*a perfect method*", f"*{found['ceiling']:.2f}*", *[""] * (len(rows[0]) - 2)])
    costs = ["damping", "processor time, an example", "memory"]
    header = ["scores", "LDS", "95 % interval", "trainings", *costs]
    said = (
        f"\n{found['train']} rows and {found['queries']} queries; re-training on "
        f"{found['subsets']} random halves, {found['seeds']} seeds each. Dampings of rivals are "
        f"the best on {found['tuning queries']} other queries. Time and memory are those of the "
        "scores of all networks, above the networks'.\n"
    )
    return table(header, rows) + said + origin(found["machine"], name)


def _judged(row: dict[str, Any]) -> list[object]:
    """A line of a table: a method, its LDS and what it took."""
    damping = "–" if row["damping"] == "none" else row["damping"]
    interval = f"{row['low']:.2f} to {row['high']:.2f}"
    judged = [row["estimator"], f"{row['lds']:.2f}", interval, row["cost"], damping]
    return [*judged, f"{row['ms per example']:.0f} ms", f"{row['megabytes']:.0f} MB"]
