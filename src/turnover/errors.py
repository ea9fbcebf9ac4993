"""The exceptions of turnover, all below one root.

::

    TurnoverError
    ├── IdError          ids that repeat, are missing, of the wrong type, count or range
    ├── MaskError        a mask that cannot be made: keep rate, seed, format version
    ├── ConversionError  a model in which a mask cannot be placed, or only with a leak
    ├── ContextError     masks asked for where no block chooses them, or chosen for another batch
    ├── LossError        a loss of the wrong shape, or one that is not a number
    ├── DataError        rows that cannot be read or do not fit together
    ├── ScoreError       scores that cannot be computed, selected, saved or compared
    ├── ConfigError      settings that contradict each other, or that nothing here can follow
    ├── RunError         a run folder that is missing, truncated, foreign or cannot be written
    └── MissingExtra     an optional dependency that is not installed

Every message says what was found, where, why it matters and how to mend it. The command line
prints it as one paragraph and ends with the class's ``exit_code``, never with a traceback.
"""

__all__ = [
    "ConfigError",
    "ContextError",
    "ConversionError",
    "DataError",
    "IdError",
    "LossError",
    "MaskError",
    "MissingExtra",
    "RunError",
    "ScoreError",
    "TurnoverError",
]


class TurnoverError(Exception):
    """Root of all errors that turnover raises on purpose."""

    exit_code = 2


class IdError(TurnoverError, ValueError):
    """Ids that repeat, are missing, or have the wrong type, count or range."""


class MaskError(TurnoverError, ValueError):
    """A mask that cannot be made from the given keep rate, seed or format version."""


class ConversionError(TurnoverError, ValueError):
    """A model in which a mask cannot be placed, or only with a leak."""


class ContextError(TurnoverError, RuntimeError):
    """Masks used outside the block that chooses them, or chosen for another batch."""


class LossError(TurnoverError, ValueError):
    """A loss of the wrong shape, or one that is not a number."""


class DataError(TurnoverError, ValueError):
    """Rows that cannot be read or do not fit together."""


class ScoreError(TurnoverError, ValueError):
    """Scores that cannot be computed, selected, saved or compared."""


class ConfigError(TurnoverError, ValueError):
    """Settings that contradict each other, or that nothing here can follow."""


class RunError(TurnoverError, RuntimeError):
    """A run folder that is missing, truncated, foreign or cannot be written."""

    exit_code = 3


class MissingExtra(TurnoverError, ImportError):
    """An optional dependency that is not installed."""

    exit_code = 4

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install 'turnover[{extra}]'"
        )
