"""Many workers, and a billion ids."""

from benchmarks.tables._lines import origin, result, seconds, table


def workers() -> str:
    """Hours of the model by workers and losses."""
    found = result("workers")
    model, rates = found["model"], {}
    for row in found["lines"]:
        rates.setdefault(row["losses_per_worker_hour"], {})[row["workers"]] = row
    counts = list(next(iter(rates.values())))
    rows = [[f"{rate:g}", *(_hours(line[n]) for n in counts)] for rate, line in rates.items()]
    header = ["losses of a worker in an hour", *(f"{n} worker{'s' * (n > 1)}" for n in counts)]
    about = (
        f"\n{model['tasks']} trainings of about {model['minutes']:g} minutes; hours, in brackets "
        f"those of nine in ten of {model['draws']} draws. A dagger marks draws that ended early, "
        "since a training was lost three times, and how many.\n"
    )
    return table(header, rows) + about + origin(found["machine"], "workers")


def _hours(row: dict[str, object]) -> str:
    early = f" †{row['ended_early']}" if row["ended_early"] else ""
    if "hours" not in row:
        return f"–{early}"
    low, high = row["hours_90"]  # type: ignore[misc]
    return f"{row['hours']:.1f} ({low:.1f}–{high:.1f}){early}"


def workers_check() -> str:
    """The model against processes of one machine."""
    found = result("workers")
    rows = [
        [
            f"local:{row['workers']}",
            row["killed"],
            seconds(row["modelled"]),
            seconds(row["measured"]),
            f"{row['measured'] / row['modelled']:.2f}",
        ]
        for row in found["check"]
    ]
    load = found["machine"]["load_average"][-1]  # that of fifteen minutes
    cores = found["machine"]["cores"]
    header = ["engine", "processes killed", "modelled", "measured", "measured over modelled"]
    about = f"\nMedians of three rounds; {load:.0f} processes shared {cores} cores meanwhile.\n"
    return table(header, rows) + about + origin(found["machine"], "workers")


def billion() -> str:
    """What two stages lose, and what a billion rows would take."""
    found = result("billion")
    two = found["two_stages"]
    keeps = list(two["stages"][0]["recall"])
    rows = []
    for row in two["stages"]:
        of = row.get("of_1e9", {})
        size = f"{row['bytes_per_row']:g}"
        rows.append(
            [
                row["stage"],
                size,
                *(f"{row['recall'][keep]:.1%}" for keep in keeps),
                f"{row['bytes_per_row']:,.0f} GB",
                _long(of["stream_seconds"]) if of else "–",
            ]
        )
    header = ["stage one", "bytes a row"]
    header += [f"{int(keep):,} kept" for keep in keeps] + ["of 1e9 rows", "one query of 1e9"]
    size, took = two["index_bytes_per_row"], two["index_seconds"]
    about = (
        f"\nShare of the best 100 of {two['rows']:,} rows that stage one keeps, mean of "
        f"{two['queries']} queries. Seconds of one processor, in proportion to the rows. The index "
        f"itself took {took:.0f} s and keeps {size:,.0f} bytes a row: of 1e9 rows "
        f"{took / two['rows'] * 1e9 / 3600:.0f} hours of one processor and {size / 1000:.1f} TB.\n"
    )
    return table(header, rows) + about + origin(found["machine"], "billion")


def billion_scan() -> str:
    """Plain scores of a billion ids."""
    found = result("billion")["scan"]
    of = found["of_1e9"]
    rows = [[f"{found['ids']:,}, measured", _long(found["seconds"])]]
    if of["extrapolated"]:
        rows.append(["1,000,000,000, in proportion", _long(of["seconds"])])
    header = [f"ids × {found['units']:,} units, one query, best {found['top']}"]
    return table([*header, "seconds of one processor"], rows)


def faiss() -> str:
    """An index of FAISS against the stream, by number of rows."""
    found = result("billion")
    parts = [found["faiss"], *([found["faiss_of_noise"]] if "faiss_of_noise" in found else [])]
    rows = [
        [
            f"{part['rows']:,}",
            name,
            _long(row["built_seconds"]),
            _long(row["seconds"]),
            f"{row.get('recall_of_the_stream', 1):.1%}",
        ]
        for part in parts
        for name, row in part.items()
        if isinstance(row, dict) and "built_seconds" in row
    ]
    first = parts[0]
    header = ["rows", f"{first['numbers']} numbers, one of a hundred rows kept", "built"]
    header += ["one query", "of what the stream keeps"]
    about = f"\nFAISS {first['version']}, seconds of one processor.\n"
    return table(header, rows) + about


def _long(value: float) -> str:
    return seconds(value) if value < 1000 else f"{value:,.0f} s"
