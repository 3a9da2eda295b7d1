"""Say what was got, what exists and which name comes nearest: one form for every message about a name."""

import difflib
from collections.abc import Iterable

from kvbench.printable import cut

MOST_LISTED, MOST_LETTERS = 40, 1_500
"""Names, and letters in them, that are listed whole; of more, the nearest."""
NUM_NEIGHBOURS = 5
MOST_COMPARED = 2_000


def unknown(kind: str, got: object, allowed: Iterable[str]) -> str:
    """Describe an unknown name in one or two lines.

    Args:
        kind: what the name stands for, such as "scenario".
        got: what was given.
        allowed: the names that exist.
    Returns:
        The message, with the nearest match where one is close.
    """
    names = sorted(allowed)
    given = cut(got)
    nearest = _nearest(given, names, 1, 0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return f"unknown {kind} {given!r}.{hint}\n  there are: {listed(names, given)}"


def listed(names: list[str], got: str = "") -> str:
    """Names for a message: all of them where they are few, or else those nearest to what was given, and how many."""
    if len(names) <= MOST_LISTED and sum(map(len, names)) <= MOST_LETTERS:
        return ", ".join(names) or "none"
    nearest = _nearest(got, names, NUM_NEIGHBOURS, 0.0)
    return f"{', '.join(nearest)}, … ({len(names):,} in all)"


def _nearest(got: str, names: list[str], most: int, cutoff: float) -> list[str]:
    by_folded = {cut(name).casefold(): cut(name) for name in names[:MOST_COMPARED]}
    return [by_folded[name] for name in difflib.get_close_matches(got.casefold(), by_folded, n=most, cutoff=cutoff)]
