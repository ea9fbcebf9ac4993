"""What a question, a training and a proof cost."""

from benchmarks.tables._lines import origin, result, seconds, table


def demo() -> str:
    """The demo's own terminal output."""
    lines = [line.rstrip() for line in result("demo")["terminal"].strip().splitlines()]
    numbers = lines.index("Key numbers")
    return "\n".join(["```text", *lines[:numbers], "…", "```", ""])


def speed() -> str:
    """What a question costs, beside the plain way of answering it."""
    cases, ways = result("scan")["cases"], result("exact_scores")
    one, many = "scores_of_a_million_ids", "scores_of_a_million_ids_64_queries"
    rows = [
        [
            f"{case['ids']:,} instances × {case['units']:,} units, "
            + (f"{case['queries']} queries" if case["queries"] > 1 else "one query"),
            seconds(case["seconds_median"]),
            seconds(rival["seconds_median"]),
            f"{rival['seconds_median'] / case['seconds_median']:.0f}×",
        ]
        for case, rival in (
            (cases[one], cases["stored_features"]),
            (cases[many], cases["stored_features_64_queries"]),
        )
    ]
    exact = f"exact scores, {ways['queries']} queries × {ways['ids']:,} instances"
    rows.append([exact, *map(seconds, (ways["seconds"], ways["seconds_plain"]))])
    rows[-1].append(f"{ways['ratio']:.0f}×")
    full = [row for row in result("first_order") if row["K"] == 0]
    gains, alike = ([row[key] for row in full] for key in ("speedup", "spearman"))
    slowest = max(result("training_overhead"), key=lambda row: row["ratio"])
    stored = cases["stored_features"]
    return (
        table(["what", "turnover", "the plain way", "gain"], rows)
        + f"\nThe plain way of the first two lines loads and multiplies stored features: "
        f"{stored['bytes_stored_per_id']:,} bytes per instance, against "
        f"{cases[one]['bytes_stored_per_id']} here. That of the third takes two forward passes per "
        f"pair. First-order scores are {min(gains):.0f} to {max(gains):.0f} times faster than even "
        f"the shared exact ones, at a rank correlation of {min(alike):.2f} to {max(alike):.2f} "
        f"with them ({len(full)} networks). Training with masks takes at most "
        f"{slowest['ratio']:.2f} of the time with ordinary dropout.\n"
        + origin(result("scan")["machine"], "scan", "exact_scores", "first_order")
    )


def scan() -> str:
    """Scanning speeds, and what a rival of stored features needs."""
    names = {"numba": "compiled", "torch": "torch", "stored fp16 features": "stored fp16 features"}
    rows = [
        [
            f"{case['ids']:,} × {case['units']:,}",
            case["queries"],
            f"top {case['top']}" if case["top"] else "all",
            names[case["kernel"]],
            seconds(case["seconds_median"]),
            f"{case['peak_mb_over_import']:,.0f} MB",
            f"{case['bytes_stored_per_id']:,}",
        ]
        for case in result("scan")["cases"].values()
    ]
    header = ["instances × units", "queries", "kept", "kernel", "median"]
    header += ["memory over import", "bytes stored per instance"]
    return table(header, rows) + origin(result("scan")["machine"], "scan")


def first_order() -> str:
    """Agreement of first-order with exact scores, by network and number of random masks."""
    found = result("first_order")
    masks = sorted({row["K"] for row in found})
    names = list(dict.fromkeys(row["model"] for row in found))
    cells = {(row["model"], row["K"]): row for row in found}
    rows = [
        [
            name,
            *(f"{cells[name, k]['spearman']:.3f}" for k in masks),
            f"{cells[name, 0]['sign_agreement']:.0%}",
            f"{cells[name, 0]['speedup']:.0f}×",
        ]
        for name in names
    ]
    header = ["rank correlation, K =", *map(str, masks), "signs, K = 0", "speed-up, K = 0"]
    return table(header, rows) + origin(found[0]["machine"], "first_order")


def costs() -> str:
    """Seconds and bytes of the four methods of Table 1, and how both grow."""
    found = result("table1")
    common = found["setup"]["common_instances"]
    slopes = {(r["method"], r["axis"], r["quantity"]): r for r in found["slopes"]}

    def grown(method: str, axis: str, quantity: str) -> str:
        row = slopes.get((method, axis, quantity))
        if row is None:
            return "–"
        low, high = row["interval"] or (None, None)
        spread = "" if low is None or low == high else f" ({low:.1f}–{high:.1f})"
        return f"{row['slope']:.1f}{spread}"

    rows = []
    for method, paper in found["paper"].items():
        at = [
            m
            for m in found["measurements"]
            if m["method"] == method and m["axis"] == "N" and m["instances"] == common
        ]
        rows.append(
            [
                method,
                seconds(at[0]["seconds_median"]) if at else "–",
                f"{at[0]['bytes_stored'] / 1e6:.2f} MB" if at else "–",
                paper["seconds_median"],
                *(grown(method, axis, "seconds_median") for axis in ("N", "T", "rt")),
                *(grown(method, axis, "bytes_stored") for axis in ("N", "T")),
            ]
        )
    header = ["method", f"one query, N = {common}", "stored", "paper, scoring", "time ~ N", "~ T"]
    header += ["~ rt", "bytes ~ N", "~ T"]
    return table(header, rows) + origin(found["machine"], "table1")


def projection() -> str:
    """What scores lose where the gradient of a large weight keeps fewer numbers."""
    found = result("projection")
    rows = [
        [
            f"{row['kept']:,} of {found['weights']:,}",
            f"{row['correlation']:.4f} ({min(row['by_seed']):.4f}–{max(row['by_seed']):.4f})",
            seconds(row["seconds"]),
        ]
        for row in found["rows"]
    ]
    header = ["numbers kept", "correlation with exact scores (all seeds)", "fit"]
    return table(header, rows) + origin(found["machine"], "projection")


def low_rank() -> str:
    """What low-rank factors and projections of equal size keep of gradients of sequences."""
    found = result("low_rank_gradients")
    names = [row["method"] for row in found["cases"][0]["methods"]]
    rows = []
    for number, name in enumerate(names):
        each = [case["methods"][number] for case in found["cases"]]
        quality = [value for row in each for value in (row["error"], row["correlation"])]
        rows.append([name, *quality, *(seconds(row["making_s"]) for row in each)])
    header = ["kept of each weight"]
    header += [f"{what}, {of}" for of in ("AG News", "GPT") for what in ("error", "correlation")]
    header += [f"made, {of}" for of in ("AG News", "GPT")]
    return table(header, rows) + origin(found["machine"], "low_rank_gradients")


def image_scores() -> str:
    """Seconds for one query and 50,000 pictures of VGG19."""
    rows, machine = [], None
    for found in result("image_scores").values():
        machine = machine or found["machine"]
        for case in found["cases"]:
            ways = case["ways"]
            rows.append(
                [
                    f"{found['machine']['gpu'] or 'one CPU thread'}, masks after layer "
                    f"{case['first']}",
                    *(
                        _long(ways[way]["seconds"])
                        for way in ("plain", "shared prefix", "first-order", "check")
                    ),
                    f"{case['gain_of_sharing']:,.{0 if case['gain_of_sharing'] > 100 else 1}f}×",
                ]
            )
    header = ["one query × 50,000 instances", "plain", "shared prefix", "first-order"]
    header += ["its check, once", "gain of sharing"]
    assert machine is not None
    return table(header, rows) + origin(machine, "image_scores")


def _long(value: float) -> str:
    return f"{value / 60:.0f} min" if value >= 120 else seconds(value)
