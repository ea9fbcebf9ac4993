"""How much memory is there to take, and an error in words before more is asked for."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from turnover.errors import ConfigError

__all__ = ["Forecast", "available", "refuse_more", "sized"]

UNKNOWN = 2**63 - 1
GROUPS = (  # limit and usage of a control group, in its second and first version
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


@final
@dataclass(frozen=True)
class Forecast:
    """What work is going to take.

    Attributes:
        seconds: about how long.
        bytes: memory at most, beside what is taken already.
        per_row: bytes of them that are kept of each row; 0 where none are.
        alone: seconds of them that processes cannot share.
        leverage: seconds that scores of all rows on themselves would take besides.
    """

    seconds: float
    bytes: int
    per_row: int = 0
    alone: float = 0.0
    leverage: float = 0.0

    def __str__(self) -> str:
        return f"about {max(1, self.seconds):,.0f} s and {sized(self.bytes)} of memory"


def available() -> int:
    """Bytes that this process can still take, by the machine and by its control group."""
    return min(_of_machine(), *(_left(*files) for files in GROUPS))


def _of_machine() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return UNKNOWN


def _left(limit: str, usage: str) -> int:
    """Bytes below the limit of a control group; what its files keep in memory can be given back."""
    try:
        bound = int(Path(limit).read_text(encoding="ascii"))  # "max" without a limit
        used = int(Path(usage).read_text(encoding="ascii"))
        kept = 0
        for line in Path(limit).with_name("memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith(("inactive_file ", "total_inactive_file ")):
                kept = max(kept, int(line.split()[1]))
        return max(0, bound - used + kept)
    except (OSError, ValueError):
        return UNKNOWN


def sized(count: float) -> str:
    """Bytes in words: ``3.2 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def refuse_more(needed: float, what: str, fits: str) -> None:
    """Refuse work that does not fit into memory, before it begins.

    Args:
        needed: bytes that it takes at most, beside what is taken already.
        what: the work, as the subject of a sentence.
        fits: what would fit, as a sentence.

    Raises:
        ConfigError: when less is available.
    """
    if needed > (left := available()):
        raise ConfigError(
            f"{what} takes about {sized(needed)} of memory, and {sized(left)} are available. {fits}"
        )
