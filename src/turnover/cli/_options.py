"""Arguments of Python in the messages of the library, as options of the command line."""

import re

__all__ = ["as_options"]

OPTIONS = {
    "adapters": "--adapters",
    "evaluation": "--eval",
    "hold_out": "--hold-out",
    "image": "--image",
    "label": "--label",
    "model": "--model",
    "nothing_is_a_class": "--nothing-is-a-class",
    "on_bad_rows": "--on-bad-rows",
    "pairs": "--pairs",
    "size": "--size",
    "text": "--text",
}
"""Options by the names of the arguments that they become."""
GIVEN = re.compile(rf"\b({'|'.join(OPTIONS)})=(?:(['\"])(.*?)\2|([^\s'\".,;:()]+(?:\.\d+)?))")


def as_options(message: str) -> str:
    """The message with ``--on-bad-rows skip`` in place of ``on_bad_rows='skip'``, and so on.

    The library names its own arguments, which a notebook has; a command line has options.
    """

    def option(found: re.Match[str]) -> str:
        value = found[4] if found[3] is None else found[3]
        return OPTIONS[found[1]] + ("" if value == "True" else f" {value}")

    return GIVEN.sub(option, message)
