"""C10: whether growing beside the steps, and appending by asyncio, raise performance where several are live."""

import asyncio
import math
from dataclasses import replace
from time import perf_counter

import pandas as pd

from kvbench.backend.device import wait_for
from kvbench.backend.measured import MeasuredBackend
from kvbench.quality.structured import structured
from kvbench.results.intervals import half_width
from kvbench.runner.aio import AsyncCaches
from kvbench.strategy.async_growth import Ahead
from kvbench.strategy.base import Strategy
from kvbench.studies.base import Setting
from kvbench.studies.claims.article import MAXIMUM, dynamic
from kvbench.studies.claims.bench import ClaimsBench, tokens_of
from kvbench.studies.claims.finding import ANY, Evidence, Finding
from kvbench.workload.request import Request, Session

INITIAL = 256
REQUESTS = tuple(Session(0, (Request(350, 48),)) for _ in range(4))
"""Each outgrows its buffer once with the prompt, and once more while it decodes."""
LIVE = (1, 4)
SYNCHRONOUS, ASYNCHRONOUS = "dynamic", "async"
NUM_CACHES, NUM_UPDATES, UPDATE_TOKENS = 4, 16, 64


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
                measured=float(rows["peak_bytes"][ASYNCHRONOUS]) / float(rows["peak_bytes"][SYNCHRONOUS]),
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
    """The mean ratio; undecided where its interval has 1 in it."""
    mean, spread = float(ratios.mean()), half_width(ratios)
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


def append_ratios(setting: Setting) -> list[float]:
    """Seconds of appends awaited one after another, over those of the same appends made all at once.

    Returns:
        A ratio a repetition; none where the backend holds no tensors.
    """
    backend = setting.backend
    if not isinstance(backend, MeasuredBackend):
        return []
    geometry = backend.geometry
    sample = structured(geometry, UPDATE_TOKENS, setting.seed)
    tokens = [each[:1].to(backend.device) for each in (sample.keys, sample.values)]
    layers = [[each] * geometry.num_layers for each in tokens]

    async def append(caches: AsyncCaches, name: int) -> None:
        for _ in range(NUM_UPDATES):
            await caches.update(name, *layers)

    async def seconds(at_once: bool) -> float:
        async with AsyncCaches(dynamic(INITIAL), geometry, device=str(backend.device)) as caches:
            start = perf_counter()
            if at_once:
                await asyncio.gather(*(append(caches, name) for name in range(NUM_CACHES)))
            else:
                for name in range(NUM_CACHES):
                    await append(caches, name)
            for name in range(NUM_CACHES):
                await caches.get(name)
            wait_for(backend.device)  # it may run behind the host
            return perf_counter() - start

    ratios = []
    for repetition in range(setting.num_warmup + setting.num_repetitions):
        order = (False, True) if repetition % 2 else (True, False)
        taken = {at_once: asyncio.run(seconds(at_once)) for at_once in order}
        if repetition >= setting.num_warmup:
            ratios.append(taken[False] / taken[True])
    return ratios
