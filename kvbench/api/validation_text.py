"""A validation as text and as plain values."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kvbench.api.held_file import HeldFile
from kvbench.api.validation import Validation
from kvbench.calibration.validation.rows import HELD_OUT, OF_REQUEST, Errors, errors_by, errors_of
from kvbench.charts.frame import TextColumn, terminal_table
from kvbench.charts.text import duration, number
from kvbench.messages import cut, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_ROWS, NUM_WORST = 250, 5
NOTHING = "–"
WHAT_WIDTH = 60


def text_of(found: Validation, most_rows: int = MOST_ROWS) -> str:
    """See `Validation.text`.

    Args:
        found: what was found.
        most_rows: figures of a file, but for those of single requests, that are shown one by one; of more the worst
            are; 0: none are shown.
    """
    if not found.files:
        return "\n\n".join(each.text for each in found.printed)
    parts = [each.text for each in found.printed]
    for each in found.files:
        parts += [f"{printable(each.name)}: {each.about}", *_tables(each, most_rows)]
    if found.not_told:
        parts.append("\n".join(map(printable, found.not_told)))
    return "\n\n".join([*parts, found.summary])


def summary_of(found: Validation) -> str:
    """See `Validation.summary`."""
    if not found.files:
        return found.agreement.sentence
    rows = found.rows
    if rows.empty:
        return f"0 rows{_left(found)}"
    of_all, held = errors_of(rows), errors_of(rows[rows[HELD_OUT]])
    worst = rows.iloc[int(rows["error"].abs().argmax())]
    coverage = ""
    if not math.isnan(held.coverage):
        low, high = 100 * held.coverage_low, 100 * held.coverage_high
        coverage = f", {100 * held.coverage:,.0f} % of those held out within ours ({low:,.0f} to {high:,.0f} %)"
    return (
        f"{len(rows):,} rows: MAPE {_percent(of_all.mape)} % (held out {_percent(held.mape)} %), bias "
        f"{_signed(of_all.bias)} %, worst {_signed(of_all.worst)} % ({worst['kind']}, "
        f"{cut(printable(worst['what']), WHAT_WIDTH)}){coverage}{_left(found)}"
    )


def _left(found: Validation) -> str:
    return f"; {len(found.not_told)} not told" if found.not_told else ""


def as_dict(found: Validation) -> dict[str, Any]:
    """See `Validation.as_dict`."""
    printed = [each.as_dict() for each in found.printed]
    if len(printed) == 1 and not found.files:
        return printed[0]
    return {
        "files": [{"name": each.name, "about": each.about} for each in found.files],
        "rows": _plain(found.rows),
        "groups": _plain(found.groups),
        "regions": _plain(found.regions),
        "errors": {name: _value(value) for name, value in found.errors._asdict().items()},
        "printed": printed,
        "not_told": list(found.not_told),
        "failed": list(found.failed),
        "sentence": found.summary,
    }


def _plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _value(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _value(value: object) -> object:
    """A plain value; None of no number."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tables(each: HeldFile, most_rows: int) -> Iterator[str]:
    rows = each.rows
    if rows.empty:
        return
    yield terminal_table(_of_groups(rows, ("kind", "group")), 2)
    if rows["region"].nunique() > 1:
        yield terminal_table(_of_groups(rows, ("kind", "region")), 2)
    figures = rows[~rows["kind"].str.endswith(OF_REQUEST)]
    if most_rows and len(figures) <= most_rows:
        yield terminal_table(_of_rows(figures), 2)
    elif most_rows:
        worst = figures.loc[figures["error"].abs().nlargest(NUM_WORST).index]
        yield f"The {NUM_WORST} that are farthest off"
        yield terminal_table(_of_rows(worst), 2)


def _of_groups(rows: pd.DataFrame, columns: tuple[str, str]) -> "list[TextColumn]":
    found = list(errors_by(rows, columns))
    every, held = [of_all for _, of_all, _ in found], [of_held for _, _, of_held in found]
    return [
        TextColumn("", "", [_words(key[0]) for key, _, _ in found], is_number=False),
        TextColumn("", "", [printable(key[1]) for key, _, _ in found], is_number=False),
        *_columns(every, "rows", ""),
        *_columns(held, "held", "out"),
        TextColumn("worst", "%", [_signed(errors.worst) for errors in every]),
        *_coverage(held),
    ]


def _columns(found: "Sequence[Errors]", name: str, rest: str) -> Iterator[TextColumn]:
    yield TextColumn(name, rest, [f"{errors.number:,}" for errors in found])
    yield TextColumn("MAPE", "%", [_percent(errors.mape) for errors in found])
    yield TextColumn("bias", "%", [_signed(errors.bias) for errors in found])


def _coverage(found: "Sequence[Errors]") -> Iterator[TextColumn]:
    if all(math.isnan(errors.coverage) for errors in found):
        return
    cells = [
        NOTHING
        if math.isnan(errors.coverage)
        else f"{100 * errors.coverage:.0f} ({100 * errors.coverage_low:.0f}–{100 * errors.coverage_high:.0f})"
        for errors in found
    ]
    yield TextColumn("within", "%", cells)


def _of_rows(rows: pd.DataFrame) -> "list[TextColumn]":
    units = rows["unit"].tolist()
    shown = {
        name: [_figure(value, unit) for value, unit in zip(rows[name], units, strict=True)]
        for name in ("published", "ours", "low", "high")
    }
    between = [f"{low} to {high}" for low, high in zip(shown["low"], shown["high"], strict=True)]
    return [
        TextColumn("", "", [cut(printable(what), WHAT_WIDTH) for what in rows["what"]], is_number=False),
        TextColumn("", "", [_words(kind) for kind in rows["kind"]], is_number=False),
        TextColumn("published", "", shown["published"]),
        TextColumn("ours", "", shown["ours"]),
        *([TextColumn("interval", "", between)] if rows["low"].notna().any() else []),
        TextColumn("off", "%", [_signed(error) for error in rows["error"]]),
    ]


def _figure(value: float, unit: str) -> str:
    if not math.isfinite(value):
        return NOTHING
    return duration(value) if unit == "s" else f"{number(value)} {unit}"


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _percent(share: float) -> str:
    return NOTHING if math.isnan(share) else f"{100 * share:,.1f}"


def _signed(share: float) -> str:
    return NOTHING if math.isnan(share) else f"{100 * share:+,.1f}"
