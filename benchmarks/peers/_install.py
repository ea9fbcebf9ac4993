"""Environments of the peers, outside git: ``.venv-peers/<environment>``, and what became of each.

Peers whose pins agree share one environment. A peer that cannot be installed is recorded with the
reason, ``{"peer": ..., "reason": ...}`` in ``.venv-peers/<peer>.json``, and the others go on.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".venv-peers"
CONSTRAINTS = ROOT / "constraints.txt"
# torch is pinned by the constraints, to the release that everything else is measured with.
BASE = ("torch", "numpy", "safetensors")


@dataclass(frozen=True)
class Peer:
    """How a library is installed.

    Attributes:
        module: what is imported to see whether it works.
        steps: arguments of one ``pip install`` after the other.
        environment: folder below ``.venv-peers``; same name, same environment.
        reason: why there is no adapter for it.
    """

    module: str = ""
    steps: tuple[tuple[str, ...], ...] = ()
    environment: str = "common"
    reason: str = ""


PEERS = {
    "bergson": Peer(reason="It takes language models only"),
    "captum": Peer("captum", (("captum==0.9.0",),)),
    "curvlinops": Peer(reason="It has operators for influence functions, and no scores"),
    "dattri": Peer("dattri.algorithm", (("dattri==0.3.0",),)),
    "influenciae": Peer(
        reason="0.3.0 requires TensorFlow < 2.10, which has no build for Python 3.11"
    ),
    # It names torchvision, which brings CUDA, and never imports it.
    "kronfluence": Peer(
        "kronfluence",
        (
            ("--no-deps", "kronfluence==1.0.1", "einconv==0.1.0"),
            ("accelerate", "einops", "opt-einsum", "scipy", "tqdm"),
        ),
    ),
    "logix-ai": Peer(reason="0.1.1 requires Python < 3.11"),
    "pydvl": Peer(reason="0.10.0 requires NumPy < 2; dattri has the same influence functions"),
    # It judges scores. captum 0.8, which it asks for, names NumPy < 2, and its pyarrow NumPy >= 2;
    # its torchvision would bring CUDA; omegaconf it imports without naming it.
    "quanda": Peer(
        "benchmarks.peers.quanda",
        (
            (
                *("--no-deps", "quanda==0.5.0", "captum==0.8.0", "dattri==0.3.0", "traker==0.3.2"),
                *(
                    "kronfluence==1.0.1",
                    "einconv==0.1.0",
                    "torcheval==0.0.7",
                    "torchvision==0.28.0",
                ),
            ),
            (
                *("accelerate", "annoy", "datasets", "einops", "lightning", "matplotlib"),
                *("omegaconf", "opt-einsum", "pandas", "pretty-midi", "scipy", "tiktoken"),
                *("torchmetrics", "tqdm", "transformers", "typer"),
            ),
        ),
        "quanda",
    ),
    "traker": Peer("trak", (("traker==0.3.2",),)),
}


def install(name: str) -> dict[str, Any]:
    """Installs a peer unless that is done, and returns its record.

    Returns:
        ``{"peer", "environment", "steps", "seconds", "versions"}``, or ``{"peer", "reason"}``.
    """
    peer = PEERS[name]
    known = record(name)
    if known.get("steps") == [list(step) for step in peer.steps] and _python(peer).exists():
        return known
    start = time.perf_counter()
    reason = peer.reason or _make(peer)
    found: dict[str, Any] = {"peer": name, "reason": reason}
    if not reason:
        found = {
            "peer": name,
            "environment": peer.environment,
            "steps": [list(step) for step in peer.steps],
            "seconds": round(time.perf_counter() - start, 1),
            "versions": _versions(peer),
        }
    HOME.mkdir(exist_ok=True)
    (HOME / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found


def record(name: str) -> dict[str, Any]:
    """What became of a peer; one that nobody has installed has that as its reason."""
    if PEERS[name].reason:
        return {"peer": name, "reason": PEERS[name].reason}
    path = HOME / f"{name}.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not found or ("reason" not in found and not _python(PEERS[name]).exists()):
        return {"peer": name, "reason": "It is not installed: python -m benchmarks.peers --install"}
    return found


def python_of(name: str) -> Path | None:
    """The interpreter of a peer's environment; ``None`` if it is not installed."""
    return None if "reason" in record(name) else _python(PEERS[name])


def _python(peer: Peer) -> Path:
    return HOME / peer.environment / "bin" / "python"


def _make(peer: Peer) -> str:
    """Makes the environment and installs into it; the reason if that fails, or nothing."""
    python = str(_python(peer))
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    pip += [*os.environ.get("PIP_ARGS", "").split(), "-c", str(CONSTRAINTS)]
    folder = str(HOME / peer.environment)
    begun = HOME / peer.environment / ".begun"  # another peer has made this environment
    first = [[sys.executable, "-m", "venv", folder], [*pip, *BASE], ["touch", str(begun)]]
    commands = [] if begun.exists() else first
    commands += [[*pip, *step] for step in peer.steps]
    commands += [[python, "-c", f"import {peer.module}"]]
    for command in commands:
        done = subprocess.run(command, cwd=HOME.parent, capture_output=True, text=True, check=False)
        if done.returncode:
            return _last_line(done.stderr)
    return ""


def _last_line(text: str) -> str:
    """The line that says most: pip's last error, or the last line of a traceback."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["It failed without a word."])[-1]


def _versions(peer: Peer) -> dict[str, str]:
    """Version of everything in the environment."""
    command = [str(_python(peer)), "-m", "pip", "list", "--format", "json"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)
    return {item["name"]: item["version"] for item in json.loads(listed.stdout)}
