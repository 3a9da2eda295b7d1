"""How things look: one colour, marker, line and hatch a strategy, the same in every chart, and sizes of text."""

import zlib
from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E5A3C")
"""Okabe and Ito's palette for the colour-blind; its black is kept for "used", its yellow is a brown (seen on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h", "*")
LINES = ("-", (0, (6, 2)), (0, (4, 2, 1, 2)), (0, (1, 1.5)), (0, (8, 2, 1, 2, 1, 2)))
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "|||", "ooo")
NUM_LOOKS = len(COLOURS) * len(MARKERS)

KNOWN = (
    "static",
    "dynamic",
    "concat",
    "predictive",
    "exact",
    "paged",
    "streaming",
    "hierarchical",
    "compressed",
    "recompute",
)
"""Strategies whose look is fixed. Any other takes one that its name points at and no strategy beside it has."""

INK = "#222222"
FAINT = "#D9D9D9"
FONT = 9.0
SMALL = 8.0
TITLE = 12.0
NAME_LENGTH = 30
_HEAD = 6


class Look(NamedTuple):
    """A strategy's colour, marker, line style and hatch: any one of the last three tells it apart without colour."""

    colour: str
    marker: str
    line: str | tuple
    hatch: str


def look(number: int) -> Look:
    """The look of this number; 84 differ in colour or marker, and twelve in a row in the marker alone."""
    return Look(
        COLOURS[number % len(COLOURS)],
        MARKERS[number % len(MARKERS)],
        LINES[number % len(LINES)],
        HATCHES[number % len(HATCHES)],
    )


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each strategy of a run.

    Args:
        names: the strategies' names; their order does not matter.
    Returns:
        Name to look, in the order given. Beyond 84 names looks repeat.
    """
    wanted = list(dict.fromkeys(str(name) for name in names))
    numbers = {name: KNOWN.index(name) for name in wanted if name in KNOWN}
    for name in sorted(set(wanted) - set(numbers)):
        first = zlib.crc32(name.encode())
        order = [(first + step) % NUM_LOOKS for step in range(NUM_LOOKS)]
        numbers[name] = min(order, key=partial(_times_taken, taken=list(numbers.values())))
    return {name: look(numbers[name]) for name in wanted}


def _times_taken(number: int, taken: list[int]) -> tuple[int, ...]:
    """How many looks are this one, and how many have its marker, its colour, its hatch and its line."""
    parts = look(number)
    return taken.count(number), *(sum(look(other)[part] == parts[part] for other in taken) for part in (1, 0, 3, 2))


def plain(text: object) -> str:
    """The text as matplotlib shows it letter by letter: no mathematics, no line breaks, nothing hidden from legends."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)).replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def short_names(names: Iterable[str], length: int = NAME_LENGTH) -> dict[str, str]:
    """Names cut in the middle to a length, still different from each other, fit to be shown.

    Args:
        names: any text.
        length: letters at most, > 8 (a number that keeps two apart may add a few).
    """
    distinct = list(dict.fromkeys(str(name) for name in names))
    tail = length // 2 - 1
    cuts = {name: name if len(name) <= length else f"{name[: length - tail - 1]}…{name[-tail:]}" for name in distinct}
    groups: dict[str, list[str]] = {}
    for name, cut in cuts.items():
        groups.setdefault(cut, []).append(name)
    shown: dict[str, str] = {}
    for name, cut in cuts.items():
        columns = zip(*groups[cut], strict=False)
        start = next((at for at, letters in enumerate(columns) if len(set(letters)) > 1), 0)
        if start > _HEAD:
            cut = f"{name[:_HEAD]}…{name[start : start + length - _HEAD - 2]}…"
        unique, twin = plain(cut), 2
        while unique in shown.values():
            unique, twin = f"{plain(cut)} ({twin})", twin + 1
        shown[name] = unique
    return shown
