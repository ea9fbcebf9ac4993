"""Says which peers are there: ``python -m benchmarks.peers [PEER ...] [--install]``.

With ``--install`` their environments below ``.venv-peers`` are made, one after the other; what
cannot be installed is listed with its reason and stops nothing. ``--json FILE`` writes all records.
"""

import argparse
import json
from pathlib import Path

from benchmarks.peers import METHODS, PEERS, install, record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", nargs="*", help=f"any of {', '.join(PEERS)}; without, all")
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if unknown := set(options.peers) - PEERS.keys():
        parser.error(f"There is no adapter for {', '.join(sorted(unknown))}.")
    records = []
    for name in options.peers or PEERS:
        records.append(install(name) if options.install else record(name))
        methods = ", ".join(m.method for m in METHODS.values() if m.peer == name)
        said = records[-1].get("reason") or f"installed; methods: {methods}"
        print(f"{name}: {said}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
