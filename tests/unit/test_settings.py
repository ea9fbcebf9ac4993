"""One choice has one default and one range, whether it is typed or handed over in Python."""

from dataclasses import MISSING, fields
from inspect import Parameter, signature

import pytest
import typer
from typer.testing import CliRunner

from turnover._settings import settings_of
from turnover.cli import app
from turnover.cli._settings import typed_settings, with_settings
from turnover.errors import ConfigError
from turnover.runs import CleansingConfig, check_leaks, prove_run
from turnover.runs.images import ImageConfig
from turnover.runs.language import LanguageConfig, LanguageIndexConfig
from turnover.runs.text import IndexConfig, TextConfig

COMMANDS = {command.callback.__name__: command.callback for command in app.registered_commands}
NO_OPTION = {
    "batch_size": "it changes memory and noise alike, and lr with it: of experts, in Python",
    "decay": "gains of it are small beside those of lr and epochs",
}
CONFIGS = [
    *(("train", config) for config in (TextConfig, ImageConfig, LanguageConfig)),
    *(("index", config) for config in (IndexConfig, LanguageIndexConfig)),
]


def options(command):
    return signature(COMMANDS[command]).parameters


@pytest.mark.parametrize(("command", "config"), CONFIGS)
def test_every_field_is_an_option_or_has_a_reason(command, config):
    missing = {field.name for field in fields(config)} - options(command).keys()
    assert missing <= NO_OPTION.keys()


@pytest.mark.parametrize(
    ("command", "config"),
    [("train", TextConfig), ("train", ImageConfig), ("index", IndexConfig)],
)
def test_defaults_and_bounds_are_those_of_the_fields(command, config):
    shown, defaults = options(command), {field.name: field.default for field in fields(config)}
    assert len(settings_of(config)) >= 3
    for name, setting in settings_of(config).items():
        (option,) = shown[name].annotation.__metadata__
        assert (option.min, option.max) == (setting.least, setting.most), name
        assert setting.help in option.help, name
        default = Parameter.empty if defaults[name] is MISSING else defaults[name]
        # Each kind of rows has a model of its own.
        assert shown[name].default == default or (command, name) == ("train", "model")


@pytest.mark.parametrize(
    ("command", "names", "asked"),
    [
        ("prove", {"trainings", "until", "budget"}, prove_run),
        ("check", {"instances"}, check_leaks),
        ("cleanse", {"seeds"}, CleansingConfig),
    ],
)
def test_options_have_the_defaults_of_what_they_call(command, names, asked):
    parameters, shown = signature(asked).parameters, options(command)
    assert {n: shown[n].default for n in names} == {n: parameters[n].default for n in names}


def test_percents_to_remove_are_the_fractions():
    percents = options("cleanse")["remove"].default.split(",")
    assert [float(p) / 100 for p in percents] == list(
        signature(CleansingConfig).parameters["fractions"].default
    )


def typed(*words, of):
    """What a configuration is given of a command line."""
    small, found = typer.Typer(), {}

    @small.command()
    @with_settings({"texts": TextConfig, "images": ImageConfig}, first={}, more="last")
    def train(context: typer.Context, *, last: int = 0, **settings) -> None:
        assert settings["seed"] == context.params["seed"] and last == 0
        found.update(typed_settings(context, of))

    said = CliRunner().invoke(small, [*words])
    assert said.exit_code == 0, said.output
    return found


def test_what_is_not_typed_is_left_to_the_configuration():
    assert typed(of=TextConfig) == {}
    assert typed("--max-length", "128", of=LanguageConfig) == {"max_length": 128}
    assert typed("--lora", "0", "--epochs", "0", of=LanguageConfig) == {}
    words = ("--dropout", "0", "--no-augment", "--no-control", "--units", "9", "--model", "m")
    assert typed(*words, of=ImageConfig) == {
        "dropout": 0.0,
        "augment": False,
        "control": False,
        "model": "m",
    }


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (TextConfig, {"epochs": -1}),
        (TextConfig, {"max_length": 7}),
        (TextConfig, {"dropout": float("nan")}),
        (ImageConfig, {"dropout": 0.96}),
        (ImageConfig, {"lr": 1e4}),
        (IndexConfig, {"model": "m", "damping": 0.0}),
    ],
)
def test_bounds_hold_in_python_too(config, wrong):
    name = list(wrong)[-1]
    with pytest.raises(
        ConfigError, match=rf"^{name}=.* must be at (least|most) [\d.e-]+\+?\d*: [A-Z]"
    ):
        config(**wrong)
