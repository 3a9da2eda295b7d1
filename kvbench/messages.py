"""What messages say: a kind's nearest names; text from outside, cut, without what a terminal would obey."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping

MOST_NAME = 80
MOST_LINE = 700
MOST_LINES = 40
_LONG_WORD = re.compile(rf"\S{{{3 * MOST_NAME},}}")


def printable(text: object) -> str:
    """Text with each character that is not printed, line breaks too, as its escape, such as \\x1b."""
    text = str(text)
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str) -> str:
    """The same of each line of a text."""
    return text if text.isprintable() else "\n".join(map(printable, text.split("\n")))


def cut(text: object, most: int = MOST_NAME) -> str:
    """Text of at most so many characters, with an ellipsis where it was longer."""
    text = str(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def bounded(message: str) -> str:
    """A message with each long word, and each long line, cut in its middle, and without the lines beyond the most."""
    lines = message.split("\n")
    if len(lines) > MOST_LINES:
        lines = [*lines[:MOST_LINES], "…"]
    return "\n".join(_without_middle(_LONG_WORD.sub(_shortened, line), MOST_LINE) for line in lines)


def _shortened(word: re.Match[str]) -> str:
    return _without_middle(word[0], 2 * MOST_NAME)


def _without_middle(text: str, most: int) -> str:
    kept = (most - 1) // 2
    return text if len(text) <= most else f"{text[:kept]}…{text[-kept:]}"


def _shown(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")


MOST_LISTED, MOST_LETTERS = 40, 1_500
"""Names, and letters in them, that are listed whole; of more, the nearest."""
NUM_NEIGHBOURS = 5
MOST_COMPARED = 2_000
MOST_MEANT = 3
LEAST_LIKENESS, LEAST_LIKENESS_BELOW = 0.5, 0.75
"""Of a name that may have been meant, from 0 to 1; and of one that stands below another."""


def unknown(kind: str, got: object, allowed: Iterable[str]) -> str:
    """Describe an unknown name in one or two lines.

    Args:
        kind: what the name stands for, such as "scenario".
        got: what was given.
        allowed: the names that exist.
    Returns:
        The message, with the nearest match where one is close.
    """
    names, given = sorted(allowed), cut(got)
    return _unknown(kind, given, _nearest(given, names, 1, LEAST_LIKENESS), names)


def unknown_key(got: str, settings: Mapping[str, object], others: Iterable[str] = ()) -> str:
    """Describe an unknown key of nested settings: as `unknown`, but what is nearest may stand below another key.

    Args:
        got: what was given.
        settings: those that exist, which may hold others.
        others: further names that exist beside them.
    """
    names, given = sorted({*map(str, settings), *others}), cut(got)
    below: dict[str, list[str]] = {}
    for path in _paths(settings):
        for name in (path, path.rpartition(".")[2]):
            below.setdefault(name, []).append(path)
    near = _nearest(given, [name for name in below if name not in names], NUM_NEIGHBOURS, LEAST_LIKENESS_BELOW)
    nearest = _nearest(given, [*names, *near], 1, LEAST_LIKENESS)
    return _unknown("key", given, below.get(nearest[0], nearest) if nearest and nearest[0] in near else nearest, names)


def _paths(settings: Mapping[str, object], before: str = "") -> Iterator[str]:
    """Dotted keys below others."""
    for key, value in settings.items():
        if before and key != "_target_":
            yield f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{before}{key}.")


def _unknown(kind: str, given: str, nearest: list[str], names: list[str]) -> str:
    hint = f" Did you mean {' or '.join(map(repr, nearest[:MOST_MEANT]))}?" if nearest else ""
    return f"unknown {kind} {given!r}.{hint}\n  there are: {listed(names, given)}"


def listed(names: list[str], got: str = "") -> str:
    """Names for a message: all of them where they are few, or else those nearest to what was given, and how many."""
    if len(names) <= MOST_LISTED and sum(map(len, names)) <= MOST_LETTERS:
        return ", ".join(names) or "none"
    nearest = _nearest(got, names, NUM_NEIGHBOURS, 0.0)
    return f"{', '.join(nearest)}, … ({len(names):,} in all)"


def _nearest(got: str, names: list[str], most: int, cutoff: float) -> list[str]:
    by_folded, folded = {cut(name).casefold(): cut(name) for name in names[:MOST_COMPARED]}, got.casefold()
    begun = [name for name in by_folded if name.startswith(f"{folded}_")]  # whose first words were given
    close = difflib.get_close_matches(folded, begun or by_folded, n=most, cutoff=0.0 if begun else cutoff)
    return [by_folded[name] for name in close]
