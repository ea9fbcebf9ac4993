"""Text from data that others made, without what steers a terminal or hides its meaning."""

import re
import unicodedata

__all__ = ["cell", "normalised", "plain"]

# Control characters but tab and line feed; marks that turn the direction of writing; separators of
# lines; halves of characters, which no file can hold; letters that nobody sees.
UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff"
    "\U000e0000-\U000e007f]"
)


def plain(text: object, instead: str = "") -> str:
    r"""The text without characters that steer a terminal or turn the direction of writing.

    A name such as ``cat\x1b[2J.png`` comes from whoever made the data, and must not clear the
    screen of whoever reads about them.

    Args:
        text: a text, or what is to be read as one.
        instead: what stands in the place of each.
    """
    return UNSEEN.sub(instead, str(text))


def normalised(text: str) -> str:
    """What makes two texts copies of each other: letters alone, however they are written.

    Compatible forms of a letter (Unicode's NFKC), capitals, white space, marks that nobody sees and
    a final full stop make no difference.
    """
    letters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    seen = "".join(c for c in letters if unicodedata.category(c) != "Cf")
    return " ".join(seen.split()).rstrip(".。")


def cell(value: object) -> object:
    """A value for a CSV file that a spreadsheet takes for what it is, never for a formula.

    Text that begins with ``= + - @``, a tab or a carriage return gets an apostrophe before it;
    numbers stay numbers.
    """
    if not isinstance(value, str):
        return value
    text = plain(value)
    return f"'{text}" if value[:1] in {"=", "+", "-", "@", "\t", "\r"} else text
