"""Several runs, and how sure a score is."""

from benchmarks.tables._lines import origin, result, seconds, table


def reliability() -> str:
    """Reliability against units and instances, with and without extra dropout."""
    found = result("ensembles")
    cells = {(row["units"], row["instances"], row["dropout"]): row for row in found["law"]}
    units, instances, dropout = (sorted({cell[i] for cell in cells}) for i in range(3))

    def shown(*cell: float) -> str:
        plain, dropped = (cells[*cell, d] for d in dropout)
        return f"{plain['r']:.2f} ± {plain['r_sd']:.2f} ({dropped['r']:.2f})"

    rows = [[f"{w:,}", *(shown(w, n) for n in instances)] for w in units]
    fits = "; ".join(
        f"c = {fit['c']:.2f} ({fit['interval'][0]:.2f}–{fit['interval'][1]:.2f}), "
        f"R² = {fit['r_squared']:.3f}, exponent {fit['exponent']:.2f}"
        + (f" with dropout {fit['dropout']:g}" if fit["dropout"] else " without dropout")
        for fit in found["fit"]
    )
    header = ["masked units", *(f"{n:,} instances" for n in instances)]
    seeds = found["setup"]["seeds"]["law"]
    return (
        table(header, rows)
        + f"\nMean ± standard deviation of {seeds} data seeds (mean with extra dropout "
        f"{dropout[-1]:g}). The fit: {fits}.\n" + origin(found["machine"], "ensembles")
    )


def runs() -> str:
    """The mean of several runs."""
    found = result("ensembles")
    rows = [
        [
            row["runs"],
            f"{row['r']:.2f} ± {row['r_sd']:.2f}",
            f"{row['r_predicted']:.2f}",
            *(f"{row[key]:.0%}" for key in ("same_class", "found_first")),
            f"{row['stderr_ratio']:.2f}" if "stderr_ratio" in row else "–",
            seconds(row["seconds"]),
        ]
        for row in found["runs"]
    ]
    header = ["runs", "reliability", "predicted", "top ten of the same class"]
    header += ["planted error first", "true / stated error", "training"]
    return table(header, rows) + origin(found["machine"], "ensembles")


def checkpoints() -> str:
    """Scores averaged over the last epochs of one run."""
    found = result("ensembles")
    rows = [
        [row["checkpoints"], f"{row['r']:.3f} ± {row['r_sd']:.3f}"]
        + [f"{row[key]:.0%}" for key in ("same_class", "found_first")]
        for row in found["checkpoints"]
    ]
    header = ["epochs averaged", "reliability", "top ten of the same class", "planted error first"]
    return table(header, rows) + origin(found["machine"], "ensembles")


def calibration() -> str:
    """Are p-values uniform, is the false discovery rate kept?"""
    found = result("calibration")
    each = [found["estimators"][name] for name in ("exact", "first-order")]
    setup = found["setup"]
    nominal, (low, high) = found["fdr_nominal"], ("0.01", "0.001")
    rows: list[list[object]] = [
        ["p-values uniform? (Kolmogorov–Smirnov)", *(f"{e['ks_p_value']:.2f}" for e in each)],
        *(
            [f"share with p ≤ {level}", *(f"{e['share_below'][level]:.5f}" for e in each)]
            for level in (low, high)
        ),
        [
            f"false discovery rate, nominal {nominal:.0%}",
            *(
                "{:.1%} ({:.1%}–{:.1%})".format(e["fdr_realised"], *e["fdr_realised_interval"])
                for e in each
            ),
        ],
    ]
    about = setup["calibration"]
    head = (
        f"{each[0]['null_p_values']:,} ids held out of training, {len(about['seeds'])} networks, "
        f"{about['units']:,} units, {about['instances']:,} instances"
    )
    header = [head, f"exact, {setup['nulls']:,} null ids", "first-order, `MaskNull`"]
    return table(header, rows) + origin(found["machine"], "calibration")


def power() -> str:
    """How often is a memorised wrong label a discovery?"""
    found = result("calibration")
    cells = {(row["estimator"], row["units"], row["instances"]): row for row in found["power"]}
    units, instances = (sorted({cell[i] for cell in cells}) for i in (1, 2))

    def shown(*cell: int) -> str:
        fast, exact = (cells[name, *cell]["power"] for name in ("first-order", "exact"))
        return f"{fast:.0%} ({exact:.0%})"

    rows = [[f"{w:,}", *(shown(w, n) for n in instances)] for w in units]
    header = ["masked units", *(f"{n:,} instances" for n in instances)]
    return table(header, rows) + origin(found["machine"], "calibration")


def pair_significance() -> str:
    """Do other split ensembles agree with what pairs agree on?"""
    found = result("pair_significance")
    rows = [
        [
            row["data"],
            str(row["pairs"]),
            f"{row['discovered']:.1%}",
            *(f"{row[name]:.2%}" for name in ("wrong sign", "wrong sign, largest")),
            f"{row['wrong sign, all']:.1%}",
            f"{row['true / stated error']:.2f}",
            f"{row['largest']:.2f}",
            f"{row['influence alone']:.2f}, {row['influence alone, largest']:.2f}",
        ]
        for row in found["rows"]
    ]
    header = ["data", "pairs", "discoveries", "wrong sign", "of as many, by size", "of all scores"]
    errors = ["true / stated error", "of the ten largest", "both, of influence alone"]
    return table([*header, *errors], rows) + origin(found["machine"], "pair_significance")
