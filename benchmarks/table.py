"""The table of results: a row a measurement, printed as soon as it is there."""

from dataclasses import dataclass

import numpy as np

HEADINGS = (
    ("what", 42),
    ("tokens", 14),
    ("dtype", 8),
    ("ours, median", 12),
    ("theirs, median", 14),
    ("ours, mean", 10),
    ("theirs, mean", 12),
    ("ratio, median", 13),
    ("ratio, mean", 11),
    ("goal", 20),
    ("", 6),
    ("note", 0),
)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should come to.

    Args:
        bound: the limit.
        at_least: whether it is the lowest figure allowed, rather than the highest.
        of: "median" or "mean": which figure of a row is held against it.
        unit: × for a ratio.
    """

    bound: float
    at_least: bool
    of: str = "median"
    unit: str = "×"

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit} ({self.of})"

    def verdict(self, median: float, mean: float) -> str:
        """ "met" or "MISSED"."""
        figure = median if self.of == "median" else mean
        return "met" if (figure >= self.bound if self.at_least else figure <= self.bound) else "MISSED"


def print_head() -> None:
    """Print the headings."""
    _print_cells([name for name, _ in HEADINGS])
    _print_cells(["-" * max(width, 4) for _, width in HEADINGS])


def print_row(
    what: str,
    tokens: str,
    dtype: str,
    ours_s: np.ndarray,
    theirs_s: np.ndarray,
    goal: Goal | None = None,
    *,
    speedup: bool = False,
    note: str = "",
) -> None:
    """Print a comparison: ours over theirs, or, as a speedup, theirs over ours.

    Args:
        what: what was measured.
        tokens: at which length.
        dtype: of K and V.
        ours_s: seconds of each call.
        theirs_s: as ours_s, of what it is held against.
        goal: what the ratio should come to.
        speedup: which way the ratio goes.
        note: what else there is to know.
    """
    above, below = (theirs_s, ours_s) if speedup else (ours_s, theirs_s)
    median, mean = float(np.median(above) / np.median(below)), float(np.mean(above) / np.mean(below))
    seconds = [shown(pick(times)) for pick in (np.median, np.mean) for times in (ours_s, theirs_s)]
    verdict = goal.verdict(median, mean) if goal else ""
    ratios = [f"{median:.4g}×", f"{mean:.4g}×"]
    _print_cells([what, tokens, dtype, *seconds, *ratios, str(goal or ""), verdict, note])


def print_share(
    what: str,
    tokens: str,
    dtype: str,
    ours_s: np.ndarray,
    theirs_s: np.ndarray,
    shares: np.ndarray,
    goal: Goal,
    *,
    note: str = "",
) -> None:
    """Print a share of each run that is held against a bound.

    Args:
        what: what was measured.
        tokens: at which length.
        dtype: of K and V.
        ours_s: seconds of each run.
        theirs_s: as ours_s, of what it is held against.
        shares: of each run, in the goal's unit.
        goal: what the share should come to.
        note: what else there is to know.
    """
    median, mean = float(np.median(shares)), float(np.mean(shares))
    seconds = [shown(pick(times)) for pick in (np.median, np.mean) for times in (ours_s, theirs_s)]
    figures = [f"{median:.4g}{goal.unit}", f"{mean:.4g}{goal.unit}"]
    _print_cells([what, tokens, dtype, *seconds, *figures, str(goal), goal.verdict(median, mean), note])


def print_figure(what: str, tokens: str, ours_s: np.ndarray | None, figures: np.ndarray, goal: Goal, note: str) -> None:
    """Print a figure of each run that is held against a bound, and not against another's.

    Args:
        what: what was measured.
        tokens: at which length.
        ours_s: seconds of each run; None where it is not of time.
        figures: of each run, in the goal's unit.
        goal: what they should come to.
        note: what else there is to know.
    """
    median, mean = float(np.median(figures)), float(np.mean(figures))
    seconds = ["", ""] if ours_s is None else [shown(np.median(ours_s)), shown(np.mean(ours_s))]
    cells = [seconds[0], "", seconds[1], "", f"{median:.4g}{goal.unit}", f"{mean:.4g}{goal.unit}"]
    _print_cells([what, tokens, "", *cells, str(goal), goal.verdict(median, mean), note])


def print_absolute(what: str, seconds: np.ndarray, goal: Goal, note: str) -> None:
    """Print a time that is held against a bound and not against another time."""
    median, mean = float(np.median(seconds)), float(np.mean(seconds))
    cells = [shown(median), "", shown(mean), "", "", "", str(goal), goal.verdict(median, mean), note]
    _print_cells([what, "", "", *cells])


def shown(seconds: float) -> str:
    """A time in the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _print_cells(cells: list[str]) -> None:
    padded = [cell.ljust(width) for cell, (_, width) in zip(cells, HEADINGS, strict=True)]
    print(f"| {' | '.join(padded)} |", flush=True)
