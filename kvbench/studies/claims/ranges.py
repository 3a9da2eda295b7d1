"""C7: whether growth factors from 1.2 to 2.0 and kept fractions from 0.6 to 0.9 are the useful ones."""

import math

import numpy as np
import pandas as pd

from kvbench.backend.measured import Measured
from kvbench.quality.probe import Probe
from kvbench.quality.structured import structured
from kvbench.results.front import Cost, pareto_front
from kvbench.results.statistics import confidence_half_width
from kvbench.runner.drive import drive
from kvbench.studies.claims.article import appending, compressed, dynamic
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import Evidence, Finding
from kvbench.workload.request import Request, Session

FACTORS = (1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
USEFUL = {"growth factor": (1.2, 2.0), "kept fraction": (0.6, 0.9)}
UNBOUNDED = 1 << 20
INITIAL = 512
PIECE, PIECES = 16, 2000
TIMED_PIECE, TIMED_PIECES = 64, 125
LEAST_LENGTH = 1000
NUM_LENGTHS = 200
"""Where sequences may end, spaced by a constant ratio: the peak depends on how full the last buffer then is."""
PROBED = Session(0, (Request(768, 256),))
HALF = 50.0
"""In %: values are useful at least so often, and those in a useful range by so many points more often than others."""
LOW_COST = 1.5
"""Peak and copied bytes together are low where they are at most so many times the least of all factors."""
SAVED, ERROR = 10.0, 10.0
"""In %: a fraction is useful if it saves so much memory, and changes attention's output by no more."""


def ranges(bench: ClaimsBench) -> Evidence:
    """C7: a range is the useful one if its values are useful, and others are not."""
    factors, stalls, fractions = _lengths(bench), _stalls(bench), _fractions(bench)
    findings = [_on_lists(bench), *_of_factors(factors), _of_stalls(stalls), *_of_fractions(fractions)]
    curves = [
        _curve(
            factors,
            "growth factor",
            f"Growth factors, mean over lengths of {LEAST_LENGTH:,} to {PIECE * PIECES:,} tokens",
        ),
        _curve(stalls, "growth factor", f"Growth factors, measured stall, up to {TIMED_PIECE * TIMED_PIECES:,} tokens"),
        _curve(fractions, "kept fraction", "Kept fractions, attention on K and V made with structure"),
    ]
    return Evidence(findings=findings, curve=pd.concat(curves, ignore_index=True))


def _finding(what: str, values: tuple[float, ...], definition: str, useful: np.ndarray, note: str = "") -> Finding:
    """How much more often values in the range are useful than others.

    Args:
        what: growth factor or kept fraction.
        values: those tried.
        definition: of useful.
        useful: of each value, how often it is useful, 0 to 1; NaN where that is not known.
        note: beside which values are useful.
    """
    low, high = USEFUL[what]
    inside = np.array([low <= value <= high for value in values])
    shares = np.asarray(useful, dtype=float)
    others = ", ".join(f"{value:g}" for value in np.array(values)[~inside])
    at_least_half = ", ".join(f"{value:g}" for value, share in zip(values, shares, strict=True) if 100 * share >= HALF)
    return Finding(
        condition=f"useful more often: {what}s {low:g} to {high:g} than {others}",
        definition=f"{what}s: {definition}",
        measured=100.0 * float(shares[inside].mean() - shares[~inside].mean()),
        unit="points",
        claimed=(HALF, 100),
        note=note or f"useful at least half the time: {at_least_half or 'none'}",
    )


def _growing() -> dict[str, object]:
    return {f"{factor:g}": dynamic(INITIAL, factor, UNBOUNDED) for factor in FACTORS}


def _costs(bench: ClaimsBench, appends: tuple[int, ...]) -> pd.DataFrame:
    """Peak and copied bytes of each factor, in bytes held at the end: value, x, y."""
    rows = bench.count(_growing(), appending(appends)).loc[list(_growing())]
    held_bytes = sum(appends) * bench.geometry.bytes_per_token
    values = {"value": FACTORS, "x": rows["peak_bytes"] / held_bytes, "y": rows["copied_bytes"] / held_bytes}
    return pd.DataFrame(values).reset_index(drop=True)


def _front(frame: pd.DataFrame) -> np.ndarray:
    return pareto_front(Cost.around(frame["x"]), Cost.around(frame["y"], frame.get("y_half", 0.0)))


def _on_lists(bench: ClaimsBench) -> Finding:
    shares = np.mean([_front(_costs(bench, appends)) for appends in bench.workloads.values()], axis=0)
    return _finding("growth factor", FACTORS, "on the front of peak and copied bytes, on the lists", shares)


def _mean_over_lengths(values: np.ndarray, piece: int) -> np.ndarray:
    """Means over sequences of different lengths, none shorter than LEAST_LENGTH.

    Args:
        values: [factors, pieces], of a sequence that ends with that piece.
        piece: tokens.
    """
    ends = np.geomspace(LEAST_LENGTH, piece * values.shape[1], NUM_LENGTHS)
    return values[:, np.minimum((ends / piece).astype(int), values.shape[1]) - 1].mean(axis=1)


def _running_costs(bench: ClaimsBench, piece: int, num_pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Peak and copied bytes of each factor after each piece, in bytes held then: [factors, pieces]."""
    steps = bench.count_steps(_growing(), appending((piece,) * num_pieces))
    held_bytes = piece * bench.geometry.bytes_per_token * np.arange(1, num_pieces + 1)
    peaks, copied = [], []
    for name in _growing():
        own = steps[steps["strategy"] == name]
        is_append = own["num_tokens"].to_numpy() > 0
        peaks.append((own["allocated_bytes"] + own["transient_bytes"]).cummax().to_numpy()[is_append] / held_bytes)
        copied.append(own["copied_bytes"].cumsum().to_numpy()[is_append] / held_bytes)
    return np.array(peaks), np.array(copied)


def _lengths(bench: ClaimsBench) -> pd.DataFrame:
    """Counted costs, means over lengths."""
    peaks, copied = (_mean_over_lengths(values, PIECE) for values in _running_costs(bench, PIECE, PIECES))
    labels = {"x_label": "Peak (× bytes held)", "y_label": "Copied (× bytes held)"}
    return pd.DataFrame({"value": FACTORS, "x": peaks, "y": copied}).assign(**labels)


def _of_factors(frame: pd.DataFrame) -> list[Finding]:
    together = frame["x"] + frame["y"]
    low = (together <= LOW_COST * together.min()).to_numpy()
    name = f"peak and copied bytes together within {LOW_COST:g} times the least"
    return [
        _finding("growth factor", FACTORS, "on that front, mean over lengths", _front(frame)),
        _finding("growth factor", FACTORS, name, low),
    ]


def _stalls(bench: ClaimsBench) -> pd.DataFrame:
    """Measured stalls, repetitions interleaved: medians, means over lengths, and the intervals from repetitions."""
    setting, backend = bench.setting, bench.timed_backend
    request = appending((TIMED_PIECE,) * TIMED_PIECES)[0]
    stalls = np.zeros((setting.num_repetitions, len(FACTORS), TIMED_PIECES))
    for repetition in range(-setting.num_warmup, setting.num_repetitions):
        for factor, strategy in enumerate(_growing().values()):
            times = drive(backend, strategy, request)
            backend.end_repetition()
            if repetition >= 0:
                # Admission comes first; then each piece has a step, and one that plans nothing more.
                stalls[repetition, factor] = np.cumsum([step.reserve_ns / 1e6 for step in times[1::2]])
    peaks = _running_costs(bench, TIMED_PIECE, TIMED_PIECES)[0]
    x, y = (_mean_over_lengths(values, TIMED_PIECE) for values in (peaks, np.median(stalls, axis=0)))
    labels = {"x_label": "Peak (× bytes held)", "y_label": "Stall in resizes (ms)"}
    halves = [0.0] * len(FACTORS)
    if isinstance(backend, Measured):
        own = np.array([_mean_over_lengths(repetition, TIMED_PIECE) for repetition in stalls])
        halves = [confidence_half_width(values) for values in own.T]
    return pd.DataFrame({"value": FACTORS, "x": x, "y": y, "y_half": halves}).assign(**labels)


def _of_stalls(frame: pd.DataFrame) -> Finding:
    definition = "on the front of peak bytes and measured stall"
    known = frame["y_half"].notna()
    note = "" if known.all() else "one repetition has no interval"
    return _finding("growth factor", FACTORS, definition, np.where(known, _front(frame), np.nan), note)


def _fractions(bench: ClaimsBench) -> pd.DataFrame:
    """Error of attention's output by kept fraction; NaN where the backend holds no tensors."""
    errors = [math.nan] * len(FRACTIONS)
    if isinstance(bench.timed_backend, Measured):
        geometry = bench.timed_backend.geometry
        sample = structured(geometry, PROBED.num_tokens, bench.setting.seed)
        probe = Probe(PROBED, sample, geometry, str(bench.timed_backend.device))
        errors = [100 * probe(compressed(fraction)).error_relative for fraction in FRACTIONS]
    labels = {"x_label": "Kept fraction", "y_label": "Attention's output off by (%)"}
    return pd.DataFrame({"value": FRACTIONS, "x": FRACTIONS, "y": errors}).assign(**labels)


def _of_fractions(frame: pd.DataFrame) -> list[Finding]:
    known = frame["y"].notna().all()
    saving = 100 * (1 - frame["x"]) >= SAVED - 1e-9
    good = (saving & (frame["y"] <= ERROR)).to_numpy()
    note = "" if known else "this backend holds no tensors"
    return [
        _finding("kept fraction", FRACTIONS, definition, useful if known else np.full(len(useful), np.nan), note)
        for definition, useful in (
            ("on the front of memory and attention error", _front(frame)),
            (f"{SAVED:g} % of memory saved, attention off by {ERROR:g} % at most", good),
        )
    ]


def _curve(frame: pd.DataFrame, what: str, panel: str) -> pd.DataFrame:
    """The frame for its chart."""
    low, high = USEFUL[what]
    return frame.assign(panel=panel, inside=frame["value"].between(low, high), y_half=frame.get("y_half", 0.0))
