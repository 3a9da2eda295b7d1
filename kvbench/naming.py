"""Say what was got, what exists and which name comes nearest: one form for every message about a name."""

import difflib
from collections.abc import Iterable


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
    by_folded = {name.casefold(): name for name in names}
    nearest = difflib.get_close_matches(str(got).casefold(), by_folded, n=1, cutoff=0.5)
    hint = f" Did you mean {by_folded[nearest[0]]!r}?" if nearest else ""
    return f"unknown {kind} {str(got)!r}.{hint}\n  there are: {', '.join(names) or 'none'}"
