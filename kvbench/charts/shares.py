"""The states of memory that are told apart, and how each looks wherever they stand on each other."""

from typing import NamedTuple

from matplotlib.patches import Patch

EDGE = "#FFFFFF"


class MemoryShare(NamedTuple):
    """A state of memory: what it is called, its columns in a timeline and in a summary, and its look."""

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
