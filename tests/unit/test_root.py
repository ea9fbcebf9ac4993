"""Every name of the root can be reached, and no package is missing there."""

import importlib
import subprocess
import sys

import pytest

import turnover
from tests.shape.tree import PACKAGE
from turnover import errors

PACKAGES = sorted(p.parent.name for p in PACKAGE.glob("*/__init__.py"))


@pytest.mark.parametrize("name", [*PACKAGES, "errors"])
def test_every_package_is_known_to_the_root(name):
    """Asked past the attributes, which an import elsewhere sets."""
    assert turnover.__getattr__(name) is importlib.import_module(f"turnover.{name}")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*PACKAGES, "errors"])
def test_every_package_is_an_attribute_of_the_root(name):
    """In a new process: an import elsewhere would hide that a name is missing."""
    code = f"import turnover; turnover.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", turnover.__all__)
def test_every_public_name_resolves(name):
    assert getattr(turnover, name) is not None and name in dir(turnover)


@pytest.mark.parametrize("name", errors.__all__)
def test_exceptions_stand_at_the_root_too(name):
    assert getattr(turnover, name) is getattr(errors, name)


def test_the_exceptions_are_drawn_as_they_are():
    """The tree of the docstring names every exception, all below one root."""
    for name in errors.__all__:
        assert f" {name} " in f"{errors.__doc__} ".replace("\n", " \n"), name
        assert issubclass(getattr(errors, name), errors.TurnoverError)


def test_importing_the_root_imports_no_torch():
    code = "import sys, turnover; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert importlib.import_module("turnover") is turnover


def test_the_package_runs_as_the_command():
    found = subprocess.run(
        [sys.executable, "-m", "turnover", "--version"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout.strip()) == (0, f"turnover {turnover.__version__}")
