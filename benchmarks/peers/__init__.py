"""Other libraries for training-data attribution, each behind one adapter.

Every library lives in an environment of its own (``python -m benchmarks.peers --install``) and runs
as a process that reads a case from files and writes scores and their cost, so that it needs neither
turnover nor the tasks:

    save_case(folder, networks, (x, y), (query_x, query_y))
    scores, cost = run_peer("traker", "TRAK", folder, {"damping": 10.0}, runs=10)

Scores are ``[query, train]`` and positive = helped; their unit is the library's own, so that only
their order within a query means something. The damping of every method is tuned as ours is, on
queries that are not reported; `sweep` runs a whole grid, and does only once what no damping enters.

Seconds are processor seconds of one thread, without imports. Report the seconds and the memory of a
run with one damping: in a sweep, memory is the largest so far.
"""

from benchmarks.peers._case import Case, build, load_case, save_case, spec_of
from benchmarks.peers._install import PEERS, install, python_of, record
from benchmarks.peers._run import METHODS, Outcome, PeerFailed, PeerMethod, run_peer, sweep

__all__ = [
    "METHODS",
    "PEERS",
    "Case",
    "Outcome",
    "PeerFailed",
    "PeerMethod",
    "build",
    "install",
    "load_case",
    "python_of",
    "record",
    "run_peer",
    "save_case",
    "spec_of",
    "sweep",
]
