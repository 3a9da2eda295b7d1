"""Columns of a table from outside, checked."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.messages import cut

MOST = 2**53


def checked_columns(
    path: Path,
    frame: pd.DataFrame,
    what: str,
    *,
    whole: Sequence[str] = (),
    positive: Sequence[str] = (),
    texts: Sequence[str] = (),
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """A table's columns as numbers and texts; others are left as they are.

    Args:
        path: for messages.
        frame: as read.
        what: a row is, in the plural.
        whole: columns of whole numbers of at least 0.
        positive: columns of numbers above 0.
        texts: columns of text, "" where there is none.
        optional: of these, columns that may be missing, and values that may be: they are NaN, or "".
    Raises:
        ValueError: a column is missing, there are no rows, or a value is not allowed; the message says where.
    """
    missing = [name for name in (*whole, *positive, *texts) if name not in frame and name not in optional]
    if missing:
        raise ValueError(
            f"{path}: a table of {what} has {', '.join(missing)}, too; it has {', '.join(map(str, frame))}"
        )
    if frame.empty:
        raise ValueError(f"{path} has no rows")
    found = frame.copy()
    for name in texts:
        found[name] = frame[name].astype("string").fillna("") if name in frame else ""
    for name in (*whole, *positive):
        values = _numbers(frame, name)
        is_allowed = np.isfinite(values) & (values > 0 if name in positive else (values >= 0) & (values <= MOST))
        if name in whole:
            is_allowed &= values == np.floor(values)
        if name in optional:
            is_allowed |= frame[name].isna().to_numpy() if name in frame else np.True_
        bad = np.flatnonzero(~is_allowed)
        if bad.size:
            allowed = "a number above 0" if name in positive else "a whole number of at least 0"
            got = frame[name].iloc[int(bad[0])]
            raise ValueError(
                f"{path}, row {bad[0] + 1}: {name} is {allowed}, got {cut(repr(got) if isinstance(got, str) else got)}"
            )
        found[name] = values.astype(np.int64) if name in whole and name not in optional else values
    return found


def _numbers(frame: pd.DataFrame, name: str) -> NDArray[np.float64]:
    if name not in frame:
        return np.full(len(frame), np.nan)
    found: NDArray[np.float64] = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64, na_value=np.nan)
    return found
