"""Published figures beside ours: the one form of rows, and what they come to."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from kvbench.results.columns import PERCENT

COLUMNS = (
    *("file", "what", "kind", "group", "region", "unit", "published", "ours", "error"),
    *("held_out", "low", "high", "judges"),
)
"""Of rows: `error` is ours ÷ published − 1; `held_out` whether it fitted nothing; `low` and `high` our interval's ends,
or nothing; `judges` whether it says if intervals hold, having had no part in them. `kind` is an operation's name or a
figure's, `group` tells alike systems apart, `region` sizes."""
HELD_OUT, JUDGES, OF_REQUEST = "held_out", "judges", "_of_request"


def held_rows(
    *,
    what: Sequence[str],
    kind: Sequence[str] | str,
    group: Sequence[str] | str,
    region: Sequence[str] | str,
    unit: Sequence[str] | str,
    published: ArrayLike,
    ours: ArrayLike,
    held_out: ArrayLike = True,
    low: ArrayLike = math.nan,
    high: ArrayLike = math.nan,
    judges: ArrayLike = True,
) -> pd.DataFrame:
    """Rows in the one form, but for their file.

    Args:
        what: each one's own name.
        kind: theirs.
        group: theirs.
        region: theirs.
        unit: of the figures.
        published: > 0.
        ours: >= 0.
        held_out: whether a row fitted nothing.
        low: the low end of ours, or NaN.
        high: the high end.
        judges: whether a row says if intervals hold.
    """
    found = pd.DataFrame(
        {
            "file": "",
            "what": list(what),
            "kind": kind,
            "group": group,
            "region": region,
            "unit": unit,
            "published": np.asarray(published, np.float64),
            "ours": np.asarray(ours, np.float64),
        }
    )
    found["error"] = found["ours"] / found["published"] - 1
    told = ((HELD_OUT, held_out, np.bool_), ("low", low, np.float64), ("high", high, np.float64))
    for name, values, dtype in (*told, (JUDGES, judges, np.bool_)):
        found[name] = np.broadcast_to(np.asarray(values, dtype), len(found))
    return found


class Errors(NamedTuple):
    """What rows come to.

    Args:
        number: of rows.
        mape: mean of the errors' sizes.
        bias: mean of the errors.
        median: of the errors' sizes.
        worst: the largest error, with its sign.
        coverage: share of the published that lie in our interval, of those rows that judge it; NaN: none does.
        coverage_low: the low end of that share's own interval.
        coverage_high: its high end.
    """

    number: int
    mape: float
    bias: float
    median: float
    worst: float
    coverage: float
    coverage_low: float
    coverage_high: float


def errors_of(rows: pd.DataFrame) -> Errors:
    """What rows come to; NaN of none."""
    errors = rows["error"].to_numpy(np.float64)
    if not errors.size:
        return Errors(0, *[math.nan] * 7)
    sizes = np.abs(errors)
    told = rows[rows[JUDGES] & rows["low"].notna() & rows["high"].notna()]
    inside = int(told["published"].between(told["low"], told["high"]).sum())
    return Errors(
        number=len(rows),
        mape=float(sizes.mean()),
        bias=float(errors.mean()),
        median=float(np.median(sizes)),
        worst=float(errors[sizes.argmax()]),
        coverage=inside / len(told) if len(told) else math.nan,
        **dict(zip(("coverage_low", "coverage_high"), share_interval(inside, len(told)), strict=True)),
    )


def errors_by(rows: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple[str, ...], Errors, Errors]]:
    """The same by what columns say, in the order in which it is first seen: of all rows, and of those held out."""
    for key, own in rows.groupby(list(columns), sort=False, observed=True):
        yield tuple(map(str, key)), errors_of(own), errors_of(own[own[HELD_OUT]])


def share_interval(inside: int, number: int) -> tuple[float, float]:
    """The interval of a share of which so many of a number were seen.

    Source: Wilson 1927, the score interval.
    """
    if not number:
        return math.nan, math.nan
    share, z = inside / number, _Z
    middle = (share + z * z / (2 * number)) / (1 + z * z / number)
    half = z / (1 + z * z / number) * math.sqrt(share * (1 - share) / number + z * z / (4 * number * number))
    return max(0.0, middle - half), min(1.0, middle + half)


_Z = {90: 1.6448536269514722}[PERCENT]
"""Of a normal distribution, what so many per cent lie within on either side."""
