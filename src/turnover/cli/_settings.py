"""Options of a command from the fields of configurations, and which of them were typed."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from inspect import Parameter, signature
from typing import Annotated, Any, get_args, get_type_hints

import typer

from turnover._settings import settings_of

__all__ = ["only_in", "typed_settings", "was_typed", "with_settings"]

Command = Callable[..., None]
MORE = "More"


def with_settings(
    configs: Mapping[str, type], *, first: Mapping[str, str], more: str, panel: str = MORE
) -> Callable[[Command], Command]:
    """A decorator: the settings of configurations are options of a command, in its ``**settings``.

    Args:
        configs: dataclasses, by what they train on. A setting that several have is one option.
        first: settings of the first panel of the help, by the parameter that follows them.
        more: the parameter that follows the others.
        panel: of the help, where these stand.
    """

    def decorate(command: Command) -> Command:
        shape, added = signature(command), _parameters(configs, tuple(first), panel)
        places = {name: first.get(name, more) for name in added}
        found: list[Parameter] = []
        for own in shape.parameters.values():
            found += [added[name] for name, place in places.items() if place == own.name]
            found += [own] if own.kind is not Parameter.VAR_KEYWORD else []
        command.__signature__ = shape.replace(parameters=found)  # type: ignore[attr-defined]
        command.__annotations__ |= {name: each.annotation for name, each in added.items()}
        command.__annotations__.pop("settings", None)
        return command

    return decorate


def _parameters(
    configs: Mapping[str, type], first: tuple[str, ...], panel: str
) -> dict[str, Parameter]:
    found: dict[str, dict[str, type]] = {}
    for rows, config in configs.items():
        for name in settings_of(config):
            found.setdefault(name, {})[rows] = config
    return {
        name: _parameter(name, of, None if name in first else panel) for name, of in found.items()
    }


def _parameter(name: str, configs: Mapping[str, type], panel: str | None) -> Parameter:
    """One option, of one or several configurations; None where their defaults differ."""
    told = [settings_of(config)[name] for config in configs.values()]
    defaults = [f.default for config in configs.values() for f in fields(config) if f.name == name]
    kind = get_type_hints(next(iter(configs.values())))[name]
    said, default, help, shown = told[0], defaults[0], told[0].help, told[0].shown
    if any(each.help != help for each in told):
        parts = zip(configs, told, strict=True)
        help = " ".join(f"Of {rows}: {each.help}" for rows, each in parts)
    if any(each != default for each in defaults):
        default, kind, shown = None, kind | None, " or ".join(map(str, defaults))
    option = typer.Option(
        help=help,
        metavar="N" if {int, float} & {kind, *get_args(kind)} else None,
        min=said.least,
        max=said.most,
        show_default=shown or True,
        rich_help_panel=panel,
    )
    return Parameter(
        name,
        Parameter.KEYWORD_ONLY,
        default=Parameter.empty if default is MISSING else default,
        annotation=Annotated[kind, option],
    )


def only_in(config: type, other: type) -> tuple[str, ...]:
    """Settings of a configuration that another one lacks."""
    return tuple(name for name in settings_of(config) if name not in settings_of(other))


def was_typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def typed_settings(context: typer.Context, config: type) -> dict[str, Any]:
    """What was typed of a configuration; the rest is left to its own defaults.

    A typed 0 where the default is 0 lets the configuration choose, as the default does.
    """
    names = {each.name for each in fields(config)}
    given = {p.name: p.default for p in context.command.params if p.name in names}
    values = {name: context.params[name] for name in given if was_typed(context, name)}
    return {name: v for name, v in values.items() if v or v != given[name]}
