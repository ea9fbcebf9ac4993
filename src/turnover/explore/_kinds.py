"""Which explorer and which pages a run has, by its kind."""

from pathlib import Path
from typing import Any

from turnover.errors import ConfigError
from turnover.explore._explorer import Explorer
from turnover.explore._site import Pages, Site, SiteOf
from turnover.runs import is_language

__all__ = ["open_site"]


def open_site(run: str | Path, other: str | Path | None) -> tuple[SiteOf[Any], Pages | None]:
    """A run, or two of them, opened to be looked at; and its pages, but for those of classifiers.

    Raises:
        ConfigError: for a run of a language model beside another run.
        RunError: for a folder that cannot be opened.
        MissingExtra: when a package that this kind needs is not installed.
    """
    if speaks := [folder for folder in (run, other) if folder is not None and is_language(folder)]:
        if other is not None:
            raise ConfigError(
                f"{speaks[0]} is a run of a language model, and two runs are compared by the "
                "classes that they say. Explore one run at a time."
            )
        from turnover.explore.language._explorer import LanguageExplorer
        from turnover.explore.language._pages import NAV, PAGES

        return SiteOf(LanguageExplorer(run), nav=NAV), PAGES
    first = Explorer(run)
    second = None if other is None else Explorer(other, jobs=first.jobs, scores=False)
    return Site(first, second), None
