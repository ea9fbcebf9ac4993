"""Names that are made to fit, and numbers that do not vanish: a long path loses its middle."""

__all__ = ["SHORTEST", "points", "shorten", "signed", "told"]

SHORTEST = 12


def shorten(name: str, most: int) -> str:
    """A path in at most so many letters: its middle goes, so that class and file remain.

    >>> shorten("cat/2019/summer/evening/IMG_0017.jpg", 24)
    'cat/…/IMG_0017.jpg'
    >>> shorten("cat/IMG_20190704_204512_edited.jpg", 24)
    'cat/IMG_201…2_edited.jpg'
    """
    if len(name) <= most:
        return name
    *folders, file = name.split("/")
    if not folders:
        return _cut(name, most)
    first, *between = folders
    for kept in range(len(between) - 1, -1, -1):
        found = "/".join((first, "…", *between[len(between) - kept :], file))
        if len(found) <= most:
            return found
    head = f"{first}/…/" if between else f"{first}/"
    if len(head) > most - SHORTEST:
        return _cut(name, most)
    return head + _cut(file, most - len(head))


def signed(score: float, places: int = 2) -> str:
    """A score with its sign: a small one with two digits in place of zeros.

    >>> signed(1.2345), signed(-0.0000123), signed(0.0)
    ('+1.23', '-1.2e-05', '+0.00')
    """
    return ("+" if score >= 0 else "") + told(score, places)


def told(number: float, places: int = 3) -> str:
    """A number of nats: a small one with two digits in place of zeros.

    >>> told(1.2345), told(0.0000123), told(0.0)
    ('1.234', '1.2e-05', '0.000')
    """
    small = 0 < abs(number) < 10 ** (1 - places)
    return f"{number:.2g}" if small else f"{number:.{places}f}"


def _cut(text: str, most: int) -> str:
    """The text without its middle; most of what is kept is its end."""
    if len(text) <= most:
        return text
    start = max(0, most - 1) * 2 // 5
    stop = len(text) - max(0, most - 1 - start)
    return text[:start] + "…" + text[stop:]


def points(interval: tuple[float, float, float] | None) -> str:
    """Points of accuracy with their interval: +0.4 [−0.1,+0.9]."""
    if interval is None:
        return "–"
    mean, low, high = (f"{value:+.1f}".replace("-", "−") for value in interval)
    return f"{mean} [{low},{high}]"
