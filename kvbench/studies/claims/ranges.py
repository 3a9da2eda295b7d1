"""C7: whether growth factors from 1.2 to 2.0 and kept fractions from 0.6 to 0.9 are the useful ones."""

import math

import numpy as np
import pandas as pd

from kvbench.backend.measured import MeasuredBackend
from kvbench.results.front import Cost, pareto_front
from kvbench.results.intervals import half_width
from kvbench.runner.drive import drive
from kvbench.studies.claims.article import appending, compressed
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import Evidence, Finding
from kvbench.studies.growth_factors import GrowthFactors
from kvbench.studies.kept_fractions import attention_probe
from kvbench.studies.ranges import COSTS_LITTLE, GROWTH, HALF, KEPT, ON_GROWTH_FRONT, UsefulRange
from kvbench.workload.request import Request, Session
from kvbench.workload.scenario import Appends

FACTORS = (1.05, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
FRACTIONS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
UNBOUNDED = 1 << 20
INITIAL = 512
PIECE, PIECES = 16, 2000
TIMED_PIECE, TIMED_PIECES = 64, 125
LEAST_LENGTH = 1000
NUM_LENGTHS = 200
"""Where sequences may end, spaced by a constant ratio: the peak depends on how full the last buffer then is."""
PROBED = Session(0, (Request(768, 256),))
NO_TENSORS = "this backend holds no tensors"


def ranges(bench: ClaimsBench) -> Evidence:
    """C7: a range is the useful one if its values are useful, and others are not."""
    sweep = _growing(bench)
    on_lists = sweep.rows(bench.counting.run(sweep.points), bench.counting)
    factors, stalls, fractions = _lengths(bench), _stalls(bench), _fractions(bench)
    error = 100 * fractions["error_relative"]
    unknown = NO_TENSORS if error.isna().any() else ""
    findings = [
        _finding(GROWTH, f"{ON_GROWTH_FRONT}, on the lists", GROWTH.shares(on_lists, ON_GROWTH_FRONT)),
        _finding(GROWTH, "on that front, mean over lengths", GROWTH.shares(factors, ON_GROWTH_FRONT)),
        _finding(GROWTH, COSTS_LITTLE, GROWTH.shares(factors, COSTS_LITTLE)),
        _of_stalls(stalls),
        *(_finding(KEPT, definition, KEPT.shares(fractions, definition), unknown) for definition in KEPT.definitions),
    ]
    peak, copied = "Peak (× bytes held)", "Copied (× bytes held)"
    tokens, timed_tokens = f"{PIECE * PIECES:,} tokens", f"{TIMED_PIECE * TIMED_PIECES:,} tokens"
    curves = [
        _curve(
            GROWTH,
            f"Growth factors, mean over lengths of {LEAST_LENGTH:,} to {tokens}",
            factors.assign(x=factors["peak_per_needed"], y=factors["copied_per_needed"], x_label=peak, y_label=copied),
        ),
        _curve(
            GROWTH,
            f"Growth factors, measured stall, up to {timed_tokens}",
            stalls.assign(x_label=peak, y_label="Stall in resizes (ms)"),
        ),
        _curve(
            KEPT,
            "Kept fractions, attention on K and V made with structure",
            fractions.assign(
                x=fractions["kept_share"], y=error, x_label="Kept fraction", y_label="Attention's output off by (%)"
            ),
        ),
    ]
    return Evidence(findings=findings, curve=pd.concat(curves, ignore_index=True))


def _finding(useful: UsefulRange, definition: str, shares: pd.Series, note: str = "") -> Finding:
    """How much more often values in the range are useful than others.

    Args:
        useful: the range.
        definition: of useful.
        shares: by value, how often it is useful, 0 to 1; NaN where that is not known.
        note: instead of which values are useful.
    """
    others = ", ".join(f"{value:g}" for value in shares.index[~useful.inside(shares.index)])
    at_least_half = ", ".join(f"{value:g}" for value in shares.index[100 * shares >= HALF])
    return Finding(
        condition=f"useful more often: {useful.what}s {useful.low:g} to {useful.high:g} than {others}",
        definition=f"{useful.what}s: {definition}",
        measured=useful.excess(shares),
        unit="points",
        claimed=(HALF, 100),
        note=note or f"useful at least half the time: {at_least_half or 'none'}",
    )


def _growing(bench: ClaimsBench) -> GrowthFactors:
    """The sweep over the article's lists, from its default capacity and without a maximum."""
    lists = {name: Appends(appends=appends) for name, appends in bench.workloads.items()}
    return GrowthFactors(
        scenarios=lists, growth_factors=FACTORS, initial_capacity=INITIAL, max_capacity=UNBOUNDED, attend=False
    )


def _mean_over_lengths(values: np.ndarray, piece: int) -> np.ndarray:
    """Means over sequences of different lengths, none shorter than LEAST_LENGTH.

    Args:
        values: [factors, pieces], of a sequence that ends with that piece.
        piece: tokens.
    """
    ends = np.geomspace(LEAST_LENGTH, piece * values.shape[1], NUM_LENGTHS)
    means: np.ndarray = values[:, np.minimum((ends / piece).astype(int), values.shape[1]) - 1].mean(axis=1)
    return means


def _running_costs(bench: ClaimsBench, piece: int, num_pieces: int) -> tuple[np.ndarray, np.ndarray]:
    """Peak and copied bytes of each factor after each piece, in bytes held then: [factors, pieces]."""
    strategies = _growing(bench).strategies()
    steps = bench.count_steps(strategies, appending((piece,) * num_pieces))
    held_bytes = piece * bench.geometry.bytes_per_token * np.arange(1, num_pieces + 1)
    peaks, copied = [], []
    for name in strategies:
        own = steps[steps["strategy"] == name]
        is_append = own["num_tokens"].to_numpy() > 0
        peaks.append((own["allocated_bytes"] + own["transient_bytes"]).cummax().to_numpy()[is_append] / held_bytes)
        copied.append(own["copied_bytes"].cumsum().to_numpy()[is_append] / held_bytes)
    return np.array(peaks), np.array(copied)


def _lengths(bench: ClaimsBench) -> pd.DataFrame:
    """The same costs, means over lengths."""
    peaks, copied = (_mean_over_lengths(values, PIECE) for values in _running_costs(bench, PIECE, PIECES))
    costs = {"peak_per_needed": peaks, "copied_per_needed": copied}
    return pd.DataFrame({"scenario": "lengths", "growth_factor": FACTORS} | costs)


def _stalls(bench: ClaimsBench) -> pd.DataFrame:
    """Peaks (x) and stalls (y), means over lengths: medians of interleaved repetitions, and their intervals."""
    setting, backend = bench.setting, bench.timed_backend
    request = appending((TIMED_PIECE,) * TIMED_PIECES)[0]
    stalls = np.zeros((setting.num_repetitions, len(FACTORS), TIMED_PIECES))
    for repetition in range(-setting.num_warmup, setting.num_repetitions):
        for factor, strategy in enumerate(_growing(bench).strategies().values()):
            times = drive(backend, strategy, request)
            backend.end_repetition()
            if repetition >= 0:
                # Admission comes first; then each piece has a step.
                stalls[repetition, factor] = np.cumsum([step.reserve_ns / 1e6 for step in times[1:]])
    peaks = _running_costs(bench, TIMED_PIECE, TIMED_PIECES)[0]
    x, y = (_mean_over_lengths(values, TIMED_PIECE) for values in (peaks, np.median(stalls, axis=0)))
    halves = [0.0] * len(FACTORS)
    if isinstance(backend, MeasuredBackend):
        own = np.array([_mean_over_lengths(repetition, TIMED_PIECE) for repetition in stalls])
        halves = [half_width(values) for values in own.T]
    return pd.DataFrame({"growth_factor": FACTORS, "x": x, "y": y, "y_half": halves})


def _of_stalls(frame: pd.DataFrame) -> Finding:
    known = frame["y_half"].notna()
    front = pareto_front(Cost.around(frame["x"]), Cost.around(frame["y"], frame["y_half"]))
    shares = pd.Series(np.where(known, front, np.nan), frame["growth_factor"])
    note = "" if known.all() else "one repetition has no interval"
    return _finding(GROWTH, "on the front of peak bytes and measured stall", shares, note)


def _fractions(bench: ClaimsBench) -> pd.DataFrame:
    """Error of attention's output by kept fraction; NaN where the backend holds no tensors."""
    probe = attention_probe(bench.timed_backend, bench.num_heads, PROBED, bench.setting.seed)
    found = [None if probe is None else probe(compressed(fraction)) for fraction in FRACTIONS]
    errors = [math.nan if each is None else each.error_relative for each in found]
    return pd.DataFrame(
        {"scenario": "probed", "fraction": FRACTIONS, "kept_share": FRACTIONS, "error_relative": errors}
    )


def _curve(useful: UsefulRange, panel: str, frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of x and y as the chart takes it."""
    values = frame[useful.column]
    half = frame.get("y_half", 0.0)
    told = {"panel": panel, "value": values, "inside": useful.inside(values), "y_half": half}
    return frame.assign(**told)[["panel", "value", "x", "y", "x_label", "y_label", "y_half", "inside"]]
