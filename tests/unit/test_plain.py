import pytest

from turnover._plain import plain
from turnover.errors import RunError

ESCAPE = "\x1b[2J\x1b]0;title\x07\u202e"


def test_what_steers_a_terminal_or_cannot_be_written_is_gone():
    found = plain(f"a{ESCAPE}b\x9b\x00\r\u2028\ud800\U000e0041c\n\td")
    assert found == "a[2J]0;titlebc\n\td"
    assert found.encode()


def test_words_of_any_language_stay():
    text = "کتاب‌ها, 猫, naïve, 👩‍🔬"
    assert plain(text) == text


def test_spans_stay_where_they_are_when_each_is_replaced_by_one_letter():
    assert len(plain(f"a{ESCAPE}b", " ")) == len(f"a{ESCAPE}b")


def test_an_error_that_quotes_data_steers_no_terminal(capsys):
    typer = pytest.importorskip("typer")
    from turnover.cli._main import _reported

    def command():
        raise RunError(f"There is no label x; labels are a, {ESCAPE}b.")

    with pytest.raises(typer.Exit):
        _reported(command)()
    said = capsys.readouterr().err
    assert "labels are a, [2J]0;titleb." in said
    assert not {"\x1b", "\x07", "\u202e"} & set(said)
