"""How soon the explorer answers, and how it bears many rows."""

from benchmarks.tables._lines import origin, result, table


def explore_clicks() -> str:
    """First and later clicks on every page, and fifty clients at once."""
    found = result("explore")
    rows = [
        [row["page"], f"{row['first']:.2f} s", f"{1000 * row['later']:,.0f} ms"]
        for row in found["rows"]
    ]
    first, second = found["starts"]
    load = found["load"]
    return (
        table(["page", "first click", "later clicks, median"], rows)
        + f"\n{found['train']:,} training rows. The first start takes {first['open_s']:.0f} s to "
        f"open and {first['prepare_s']:,.0f} s in the background until all scores are there; every "
        f"later one {second['open_s']:.0f} s. {found['kept_mb']:,.0f} MB are kept in the run "
        f"folder. {load['clients']} clients at once for {load['seconds']:.0f} s got "
        f"{load['answers']:,} answers with {load['errors']} errors, at a median of "
        f"{load['median']:.2f} s each.\n" + origin(found["machine"], "explore")
    )


def explore_scale() -> str:
    """Ways to search and to page a million rows, and frames of the map."""
    found = result("explore_scale")
    tables, ways = found["tables"], ("duckdb", "one piece", "loop")
    rows = [
        [f"letters {row['letters']}", *(f"{1000 * row[way]:,.0f} ms" for way in ways)]
        for row in tables["search"]
    ]
    page = tables["page"]
    frames = "; ".join(
        f"{row['points']:,} points in {row['draw_ms']:.0f} ms, a frame each {row['frame_ms']:.0f}"
        for row in found["map"]
    )
    return (
        table(["search", "DuckDB", "one piece of memory", "a loop"], rows)
        + f"\n{tables['rows']:,} rows. A page from the middle of them, filtered and sorted, takes "
        f"{1000 * page['tensors']:,.0f} ms by tensors and {1000 * page['duckdb']:,.0f} ms by "
        f"DuckDB. Chromium draws a map of {frames} ms.\n"
        + origin(found["machine"], "explore_scale")
    )
