"""Warnings of the library on a command line: on one line, with options for arguments."""

import sys
import warnings

from turnover.cli import _main, main
from turnover.data import DataWarning


def test_a_warning_names_options(monkeypatch, capsys):
    def command():
        warnings.simplefilter("always")
        warnings.warn("Give a file as evaluation=FILE,\nif you can.", DataWarning, stacklevel=1)

    monkeypatch.setattr(_main, "app", command)
    monkeypatch.setattr(_main, "ENDINGS", ())
    monkeypatch.setattr(sys, "argv", ["turnover"])
    main()
    assert capsys.readouterr().err == "turnover: Give a file as --eval FILE, if you can.\n"
