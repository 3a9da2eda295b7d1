"""C10: whether growing beside the steps raises performance where several requests are live."""

import math
from dataclasses import replace

import pandas as pd

from kvbench.results.statistics import confidence_half_width
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.base import Strategy
from kvbench.studies.claims.article import MAXIMUM, dynamic
from kvbench.studies.claims.awaited import NUM_CACHES, NUM_UPDATES, UPDATE_TOKENS, append_ratios
from kvbench.studies.claims.bench import ClaimsBench, tokens_of
from kvbench.studies.claims.finding import ANY, Evidence, Finding
from kvbench.workload.request import Request, Session

INITIAL = 256
REQUESTS = tuple(Session(0, (Request(350, 48),)) for _ in range(4))
"""Each outgrows its buffer once with the prompt, and once more while it decodes."""
LIVE = (1, 4)
SYNCHRONOUS, ASYNCHRONOUS = "dynamic", "async"


def compared() -> dict[str, Strategy]:
    """Dynamic, and the same growth begun ahead of need, beside the steps."""
    ahead = Ahead(initial_capacity=INITIAL, growth_factor=1.5, max_capacity=MAXIMUM, round_to=1, start_at=0.9)
    return {SYNCHRONOUS: dynamic(INITIAL), ASYNCHRONOUS: ahead}


def concurrency(bench: ClaimsBench) -> Evidence:
    """C10: asynchronous over synchronous growth, on all the model's heads; one request alone is not claimed."""
    findings = []
    for num_live in LIVE:
        rows, steps = bench.time(f"C10 {num_live} live", compared(), REQUESTS, num_live, bench.setting.backend)
        condition = f"{len(REQUESTS)} requests, {num_live} live at once"
        for definition, values, more in _figures(steps):
            ratios = values[ASYNCHRONOUS] / values[SYNCHRONOUS]
            finding = _finding(condition, definition, ratios, more)
            findings.append(finding if num_live > 1 else replace(finding, claimed=ANY))
        findings.append(
            Finding(
                condition=condition,
                definition="peak memory, of dynamic's",
                measured=float(rows.loc[ASYNCHRONOUS, "peak_bytes"] / rows.loc[SYNCHRONOUS, "peak_bytes"]),
                unit="×",
                claimed=ANY,
                note="old and new buffer are held beside each other; the claim does not mention it",
            )
        )
    ratios = pd.Series(append_ratios(bench.setting), dtype=float)
    condition = f"{NUM_UPDATES} appends of {UPDATE_TOKENS} tokens to each of {NUM_CACHES} caches, by asyncio"
    findings.append(_finding(condition, "appends a second, all at once, of those one after another", ratios, True))
    return Evidence(findings=findings)


def _figures(steps: pd.DataFrame) -> list[tuple[str, pd.DataFrame, bool]]:
    """Definition, a row a repetition and a column a strategy, and whether more is better."""
    by = [steps["repetition"], steps["strategy"].astype(str)]
    decode = steps[steps["phase"] == "decode"]
    of_decode = [decode["repetition"], decode["strategy"].astype(str)]
    grown = (steps["reserve_us"] + steps["move_us"]).where(steps["num_tokens"] > 0, 0.0)
    total_us = steps["step_us"].groupby(by).sum().unstack()
    return [
        ("throughput, of dynamic's", steps["num_tokens"].groupby(by).sum().unstack() / total_us, True),
        ("time that appending steps spend on memory, of dynamic's", grown.groupby(by).sum().unstack(), False),
        ("slowest decode step, of dynamic's", decode["step_us"].groupby(of_decode).max().unstack(), False),
        ("decode step, mean, of dynamic's", decode["step_us"].groupby(of_decode).mean().unstack(), False),
    ]


def _finding(condition: str, definition: str, ratios: pd.Series, more: bool) -> Finding:
    """The mean ratio; undecided where its 95 % confidence interval has 1 in it."""
    mean, spread = float(ratios.mean()), confidence_half_width(ratios)
    if ratios.empty:
        note = "this backend holds no tensors"
    else:
        note = f"{mean:.3g} ± {spread:.2g}, from {len(ratios)} repetitions"
    is_told = abs(mean - 1) > spread
    return Finding(
        condition=condition,
        definition=definition,
        measured=mean,
        unit="×",
        claimed=(1, math.inf) if more else (0, 1),
        note=note if is_told or ratios.empty else f"{note}: not to be told from 1",
        is_decided=is_told or ratios.empty,
    )


NUM_TOKENS = len(LIVE) * tokens_of(compared(), REQUESTS)
"""Tokens that one timed repetition appends."""
