"""How an engine fills a step: what a scheduler asks of its settings."""

from typing import NamedTuple


class Scheduling(NamedTuple):
    """Rules of a step.

    Args:
        tokens: of a step, at most; None: no bound.
        sequences: live at once, at most; None: as many as fit.
        chunks: whether a prompt that a step has no room for is computed in several.
        mixes: whether prompts and decoding sequences share a step; else prompts go first, and alone.
        counts_decode: whether decoding sequences' tokens come first and are among `tokens`; else those are prompts'.
    """

    tokens: int | None = None
    sequences: int | None = None
    chunks: bool = True
    mixes: bool = True
    counts_decode: bool = False
