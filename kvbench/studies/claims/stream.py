"""C11: whether streaming's memory stays bounded, and its steps too, while a stream goes on."""

import pandas as pd

from kvbench.strategy.base import Strategy
from kvbench.studies.claims.article import appending, dynamic, streaming
from kvbench.studies.claims.bench import ClaimsBench, tokens_of
from kvbench.studies.claims.finding import ANY, Evidence, Finding

PIECE, PIECES = 100, 400
WINDOW, RETIRED, OVERLAP = 1024, 10, 128
UNBOUNDED = 1 << 20
TIMED_WINDOW, TIMED_PIECE, TIMED_PIECES = 256, 64, 64
MUCH = 1.25
"""A time that grows by no more is taken as steady."""


def stream(bench: ClaimsBench) -> Evidence:
    """C11: bytes are counted over a long stream, times measured over a shorter one."""
    strategies = {
        "streaming": streaming(WINDOW, OVERLAP, RETIRED),
        "dynamic": dynamic(maximum=UNBOUNDED),
    }
    steps = bench.count_steps(strategies, appending((PIECE,) * PIECES))
    curve = _curve(bench, steps)
    return Evidence(findings=[*_bytes(bench, curve), *_times(bench)], curve=curve)


def _curve(bench: ClaimsBench, steps: pd.DataFrame) -> pd.DataFrame:
    """Bytes after each step: strategy, seen_tokens, context_tokens, allocated_bytes, attended_bytes."""
    done = steps[steps["num_tokens"] > 0].reset_index(drop=True)
    curve = done[["strategy", "seen_tokens", "allocated_bytes", "context_tokens"]]
    attended_bytes = done["context_tokens"] * bench.geometry.bytes_per_token
    return curve.assign(strategy=curve["strategy"].astype(str), attended_bytes=attended_bytes)


def _bytes(bench: ClaimsBench, curve: pd.DataFrame) -> list[Finding]:
    own = curve[curve["strategy"] == "streaming"]
    other = curve[curve["strategy"] == "dynamic"]
    full_tokens = WINDOW + RETIRED * (WINDOW - OVERLAP)
    later = own.loc[own["seen_tokens"] > full_tokens, "allocated_bytes"]
    bound = full_tokens * bench.geometry.bytes_per_token
    condition = f"a stream of {PIECE * PIECES:,} tokens, streaming({WINDOW}, {OVERLAP}), {RETIRED} retired windows"
    growth = own["allocated_bytes"].iloc[-1] / own["allocated_bytes"].iloc[0]
    figures = (
        ("bytes once all windows are there, most over least", later.max() / later.min(), (1, 1), ""),
        (
            "bytes at any time, over those of the window and all retired ones",
            own["allocated_bytes"].max() / bound,
            (0, 1),
            "",
        ),
        ("tokens that attention reads, over the window", own["context_tokens"].max() / WINDOW, (0, 1), ""),
        (
            "bytes at the end, over those of the first window alone",
            growth,
            (1, 1),
            f"retired windows stay allocated: memory grows until {full_tokens:,} tokens were seen",
        ),
        (
            "bytes at the end, over dynamic's",
            own["allocated_bytes"].iloc[-1] / other["allocated_bytes"].iloc[-1],
            (0, 1),
            "",
        ),
    )
    return [
        Finding(condition=condition, definition=name, measured=float(value), unit="×", claimed=claimed, note=note)
        for name, value, claimed, note in figures
    ]


def _timed() -> dict[str, Strategy]:
    return {"streaming": streaming(TIMED_WINDOW, OVERLAP // 4, RETIRED), "dynamic": dynamic(maximum=UNBOUNDED)}


REQUESTS = appending((TIMED_PIECE,) * TIMED_PIECES)
NUM_TOKENS = tokens_of(_timed(), REQUESTS)
"""Tokens that one timed repetition appends."""


def _times(bench: ClaimsBench) -> list[Finding]:
    _, steps = bench.time("C11", _timed(), REQUESTS)
    done = steps[steps["num_tokens"] > 0]
    pieces = done.assign(quarter=4 * (done["seen_tokens"] - 1) // REQUESTS[0].num_tokens)
    quarters = pieces.groupby(["strategy", "quarter"], observed=True)["step_us"]
    median, most = quarters.median(), quarters.quantile(0.9)
    condition = f"a stream of {REQUESTS[0].num_tokens:,} tokens in pieces of {TIMED_PIECE}, window {TIMED_WINDOW}"
    findings = []
    for name, claimed in (("streaming", (0, MUCH)), ("dynamic", ANY)):
        for what, times in (("median step", median), ("ninth decile of steps", most)):
            findings.append(
                Finding(
                    condition=f"{condition}, {name}",
                    definition=f"{what} in the last quarter, over that in the second"
                    + ("" if name == "streaming" else ", dynamic beside it"),
                    measured=float(times[name, 3] / times[name, 1]),
                    unit="×",
                    claimed=claimed,
                    note=f"{times[name, 3] / 1000:,.3g} ms against {times[name, 1] / 1000:,.3g} ms",
                )
            )
    return findings
