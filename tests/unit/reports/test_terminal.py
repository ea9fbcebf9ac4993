import io

import numpy as np
import pytest

from tests.unit.reports.conftest import OPTIONAL, leak, named
from turnover.reports import render_terminal
from turnover.reports.renderers._terminal import ASCII_SHADES, SHADES, _draw

rich = pytest.importorskip("rich.console")


def shown(run, width=80, encoding="utf-8", **options):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    render_terminal(run, rich.Console(file=file, width=width, **options))
    file.flush()
    return raw.getvalue().decode(encoding)


def test_lines_fit_into_80_columns(make_run, results):
    text = shown(make_run(results))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text


def test_no_colour_is_needed(make_run, results):
    text = shown(make_run(results), color_system="truecolor", force_terminal=True, no_color=True)
    assert "\x1b[3" not in text


def test_the_answer_comes_first_and_the_control_next(make_run, results):
    first, second = shown(make_run(results)).split("\n\n")[:2]
    assert "3 of 4 planted label errors found" in first
    assert "control does better" in second


def test_planted_errors_are_marked(make_run, results):
    assert "label 8 (is 1)" in shown(make_run(results))


def test_what_a_run_says_is_no_markup(make_run, results):
    results = named(results, ["[red]x[/red]"] * 10)
    results["audit"] = {
        **{"ok": False, "crosstalk": [], "drift": None, "instances": 4},
        "leaks": [leak("[bold]", 1.0, "[/y]", kind="[/x]")],
    }
    text = shown(make_run(results))
    assert "[red]x[/red]" in text
    assert "[bold] ([/x]), 1.00 nats: [/y]" in text


def test_a_console_without_unicode_gets_letters(make_run, results):
    assert "label 8" in shown(make_run(results), encoding="ascii")


@pytest.mark.parametrize("section", OPTIONAL)
def test_any_section_may_be_missing(make_run, results, section):
    del results[section]
    assert shown(make_run(results))


@pytest.mark.parametrize("shape", [(8, 8), (28, 28), (32, 32, 3), (5, 3)])
@pytest.mark.parametrize("shades", [SHADES, ASCII_SHADES])
def test_images_of_any_size_become_8_lines_of_16_letters(shape, shades):
    lines = _draw(np.full(shape, 255, np.uint8), shades)
    assert len(lines) == 8
    assert set(lines) == {shades[-1] * 16}


def test_long_names_of_classes_are_wrapped_not_cut(make_run, results):
    results = named(results, ["a remarkably long name of a class"] * 10)
    text = shown(make_run(results))
    assert max(map(len, text.splitlines())) <= 80
    assert "remarkably long" in text and "name of a class" in text
