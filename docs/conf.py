"""The documentation site: ``make docs``. Pages stay plain Markdown, which code hosts show too."""

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

from sphinx.application import Sphinx

import turnover

HERE = Path(__file__).parent

project = "turnover"
author = "The turnover authors"
version = release = turnover.__version__
copyright = author  # Sphinx reads this name

extensions = [
    "myst_nb",  # and MyST with it
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
exclude_patterns = ["_build"]
nb_execution_mode = "off"  # notebooks come executed: make notebooks
suppress_warnings = ["myst.header"]  # a changelog goes from its second level to its fourth
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
nitpicky = False  # annotations name classes of torch and pandas, whose pages are elsewhere

autodoc_member_order = "groupwise"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "imported-members": True}
autodoc_preserve_defaults = True
autodoc_mock_imports = ["lightning"]  # brings nothing that a page shows
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # an attribute is described once, in its class
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = "turnover"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_dark_style = "github-dark"


def public(package: str) -> Iterator[tuple[str, str]]:
    """Each public name of a package, and the first line of its docstring."""
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        said = inspect.getdoc(thing) if inspect.isclass(thing) or inspect.isroutine(thing) else ""
        yield name, (said or "").partition("\n")[0]


def home(name: str) -> str:
    """The page that documents a name of the root."""
    thing = getattr(turnover, name)
    return ".".join(thing.__module__.split(".")[:2])


def root_table(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the table of the root's names into the first page of the reference."""
    if docname == "reference/index":
        rows = [
            f"| [`{name}`](#{home(name)}.{name}) | {said} | `{home(name)}` |"
            for name, said in public("turnover")
        ]
        head = ["| name | what it is | home |", "| --- | --- | --- |"]
        source[0] = source[0].replace("ROOT_NAMES", "\n".join([*head, *rows]))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", root_table)
