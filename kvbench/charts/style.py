"""How things look: a colour, marker, line and hatch a strategy, the same in all charts of a run; and sizes of text."""

import zlib
from collections.abc import Container, Iterable
from typing import Any, NamedTuple

from matplotlib.patches import Patch
from matplotlib.typing import LineStyleType

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6E5A3C", "#882255")
"""Okabe and Ito's palette for the colour-blind; its black is kept for "used", its yellow is a brown (seen on white)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[LineStyleType, ...] = (
    "-",
    (0, (6, 2)),
    (0, (1, 1.2)),
    (0, (4, 1.5, 1, 1.5)),
    (0, (9, 2, 1, 2, 1, 2)),
    (0, (3, 1)),
    (0, (12, 3)),
    (0, (5, 1, 1, 1, 1, 1)),
)
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---", "|||", "ooo")
NUM_LOOKS = len(COLOURS)

KNOWN = (
    "static",
    "dynamic",
    "paged",
    "predictive",
    "exact",
    "concat",
    "streaming",
    "hierarchical",
    "compressed",
    "recompute",
)
"""Strategies that have their look first. Any other takes one that its name points at and no strategy beside it has."""

INK = "#222222"
FAINT = "#D9D9D9"
FONT = 9.0
SMALL = 8.0
TITLE = 12.0
NAME_LENGTH = 30
_HEAD = 6


Settings = dict[str, Any]
"""Of what is drawn, by matplotlib's keyword."""


class Look(NamedTuple):
    """A strategy's colour, marker, line style and hatch: any one of them tells it apart from the other seven."""

    colour: str
    marker: str
    line: LineStyleType
    hatch: str

    def of_line(self) -> dict[str, Any]:
        """A line's keywords; a white edge tells its marks from the lines that they stand on."""
        marks = {"marker": self.marker, "markeredgecolor": "white", "markeredgewidth": 0.4}
        return {"color": self.colour, "linestyle": self.line, **marks}


REST = Look("#9A9A9A", ".", "-", "")
"""Of all strategies beyond eight: their names stand at what is drawn of them."""


def look(number: int) -> Look:
    """The look of this number; eight differ in everything, and then they repeat."""
    turn = number % NUM_LOOKS
    return Look(COLOURS[turn], MARKERS[turn], LINES[turn], HATCHES[turn])


def variant(of: Look, turn: int) -> Look:
    """A strategy's look in its later lines: the same colour, another marker and line."""
    if turn == 0 or of is REST:
        return of
    at = MARKERS.index(of.marker) + turn
    return Look(of.colour, MARKERS[at % NUM_LOOKS], LINES[at % NUM_LOOKS], of.hatch)


def looks(names: Iterable[str], coloured: Container[str] | None = None) -> dict[str, Look]:
    """A look for each strategy of a run.

    Args:
        names: the strategies' names; their order does not matter up to eight.
        coloured: of more than eight, those that have a look of their own; None: the first eight.
    Returns:
        Name to look, in the order given; grey for the rest.
    """
    wanted = list(dict.fromkeys(str(name) for name in names))
    own = None if len(wanted) <= NUM_LOOKS else coloured
    shown = [name for name in wanted if own is None or name in own][:NUM_LOOKS]
    ordered = [name for name in KNOWN if name in shown] + sorted(set(shown) - set(KNOWN))
    free, found = list(range(NUM_LOOKS)), {}
    for name in ordered:
        first = KNOWN.index(name) if name in KNOWN else zlib.crc32(name.encode())
        number = min(free, key=lambda number: (number - first) % NUM_LOOKS)
        free.remove(number)
        found[name] = look(number)
    return {name: found.get(name, REST) for name in wanted}


EDGE = "#FFFFFF"
"""Between areas that stand on each other."""


class MemoryShare(NamedTuple):
    """A state of memory that is told apart: its name, its columns in a timeline and in a summary, and its look."""

    text: str
    timeline: str
    share: str
    colour: str
    hatch: str
    ink: str


STATES = (
    MemoryShare("used", "used_bytes", "utilization_mean", "#3C4A57", "", "#FFFFFF"),
    MemoryShare("reserved for tokens to come", "reserved_bytes", "reserved_share", "#8FB7D9", "", "#222222"),
    MemoryShare("internal waste", "waste_bytes", "waste_share", "#E69F00", "///", "#222222"),
    MemoryShare(
        "external waste, while a request waits", "external_bytes", "external_share", "#C8546A", "...", "#FFFFFF"
    ),
)
NOT_SPLIT = MemoryShare("allocated and not used", "", "", "#C9C9C9", "", "#222222")
"""Of a simulation that does not tell reserved slots from wasted ones."""


def state_patch(state: MemoryShare) -> Patch:
    """A state's area, for a legend."""
    return Patch(facecolor=state.colour, hatch=state.hatch, edgecolor=EDGE, linewidth=0.5)


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
