"""Fields of configurations that also say what they mean and which values they take.

A reader of this metadata, such as the command line, needs neither torch nor a second list.
"""

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, final

from turnover.errors import ConfigError

__all__ = ["Setting", "refuse_out_of_bounds", "setting", "settings_of"]

KEY = "setting"


@final
@dataclass(frozen=True)
class Setting:
    """What is said of a field to whoever chooses its value.

    Attributes:
        help: one line about it.
        least: the smallest value of a number.
        most: the largest one.
        shown: words for the default, where its value alone says little.
    """

    help: str
    least: float | None = None
    most: float | None = None
    shown: str | None = None


def setting(default: Any = MISSING, help: str = "", **said: Any) -> Any:
    """A field of a dataclass with a :class:`Setting`; without a default it must be given."""
    return field(default=default, metadata={KEY: Setting(help, **said)})


def settings_of(config: type) -> dict[str, Setting]:
    """The settings of a dataclass by the names of their fields; other fields are left out."""
    return {f.name: f.metadata[KEY] for f in fields(config) if KEY in f.metadata}


def refuse_out_of_bounds(config: Any) -> None:
    """Check the numbers of a configuration.

    Raises:
        ConfigError: for the first one that is not within its bounds.
    """
    for name, said in settings_of(type(config)).items():
        value = getattr(config, name)
        low = value is not None and said.least is not None and not value >= said.least
        high = value is not None and said.most is not None and not value <= said.most
        if low or high:
            bound = f"at least {said.least:g}" if low else f"at most {said.most:g}"
            raise ConfigError(f"{name}={value!r} must be {bound}: {said.help}")
