"""C6: whether hierarchical serves documents that the fast tier does not hold, unchanged, and what that costs."""

import math
from typing import Any

from kvbench.backend.measured import MeasuredBackend
from kvbench.runner.drive import SEQ, drive
from kvbench.strategy.base import Strategy
from kvbench.studies.claims.article import appending, hierarchical, static
from kvbench.studies.claims.bench import ClaimsBench, tokens_of
from kvbench.studies.claims.finding import ANY, Evidence, Finding
from kvbench.workload.request import Request, Session

FAST, SLOW = 512, 4096
CAPACITIES = ((FAST, SLOW), (1024, 4096), (1024, 8192))
"""Of the article's benchmark, its chatbot, and its defaults."""
DECODED = 64
DOCUMENT = Session(0, (*[Request(500) for _ in range(9)], Request(FAST + SLOW - 9 * 500 - DECODED, DECODED + 1)))
"""A document that fills both tiers to the last slot, in appends that the fast tier holds, and an answer."""
NAME = f"hierarchical({FAST}, {SLOW})"
WHOLE = f"a document of {DOCUMENT.num_tokens:,} tokens, {NAME}"
SAME = 1e-5
"""Outputs of attention that differ by no more, relative to their largest, differ by the order of additions alone."""


def tiers(bench: ClaimsBench) -> Evidence:
    """C6 by counts, by contents and, beside the claim, by time."""
    return Evidence(findings=[*_lists(bench), *_counts(bench), *_contents(bench), *_times(bench)])


def _lists(bench: ClaimsBench) -> list[Finding]:
    """The article's lists that are longer than the fast tier: served whole, or too long for both tiers."""
    findings = []
    for fast, slow in CAPACITIES:
        for name, appends in bench.workloads.items():
            if sum(appends) <= fast:
                continue
            (row,) = bench.count({"tiers": hierarchical(fast, slow)}, appending(appends)).to_dict("records")
            fits = row["outcome"] == "completed"
            findings.append(
                Finding(
                    condition=f"{name}, hierarchical({fast}, {slow})",
                    definition="share of a list longer than the fast tier that is served",
                    measured=100.0 * row["num_tokens"] / sum(appends),
                    unit="%",
                    claimed=(100, 100),
                    note="" if fits else f"{sum(appends):,} tokens; both tiers hold {fast + slow:,}",
                )
            )
    return findings


def _counts(bench: ClaimsBench) -> list[Finding]:
    strategies = {"tiers": hierarchical(FAST, SLOW)}
    row = bench.count(strategies, (DOCUMENT,)).loc["tiers"]
    longer = bench.count(strategies, appending((FAST + SLOW, 1))).loc["tiers"]
    slot_bytes = bench.geometry.bytes_per_token
    steps = bench.count_steps(strategies, (DOCUMENT,))
    document_bytes = DOCUMENT.num_tokens * slot_bytes
    allowed_bytes = FAST * slot_bytes + steps["workspace_bytes"].max()
    figures: tuple[tuple[str, Any, str, tuple[float, float]], ...] = (
        ("longest document served, in fast tiers", longer["num_tokens"] / FAST, "×", (1 + 1 / FAST, math.inf)),
        ("peak on the device, in fast tier and staging buffers", row["peak_bytes"] / allowed_bytes, "×", (0, 1)),
        ("peak on the device, in bytes of the whole document", row["peak_bytes"] / document_bytes, "×", (0, 1)),
        ("tokens evicted or changed", row["altered_tokens"], "tokens", (0, 0)),
    )
    return [
        Finding(condition=WHOLE, definition=name, measured=float(value), unit=unit, claimed=claimed)
        for name, value, unit, claimed in figures
    ]


def _contents(bench: ClaimsBench) -> list[Finding]:
    """K and V, and attention's output, against a cache that is all on the device and was given the same tokens."""
    names = ("K and V that differ from a cache all on the device", "attention's output, difference to that")
    if not isinstance(bench.timed_backend, MeasuredBackend):
        note = "this backend holds no tensors"
        return [
            Finding(condition=WHOLE, definition=name, measured=math.nan, unit="", claimed=(0, 0), note=note)
            for name in names
        ]
    contexts, outputs = [], []
    for strategy in _compared().values():
        drive(bench.timed_backend, strategy, DOCUMENT)
        contexts.append(bench.timed_backend.sequence(SEQ).full_context(0)[:2])
        outputs.append(bench.timed_backend.attention(SEQ, 1)[0][0])
        bench.timed_backend.end_repetition()
    differing = sum(int((ours != theirs).sum()) for ours, theirs in zip(*contexts, strict=True))
    error = float((outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max())
    return [
        Finding(condition=WHOLE, definition=names[0], measured=float(differing), unit="elements", claimed=(0, 0)),
        Finding(condition=WHOLE, definition=names[1], measured=error, unit="relative", claimed=(0, SAME)),
    ]


def _compared() -> dict[str, Strategy]:
    return {"hierarchical": hierarchical(FAST, SLOW), "static": static(FAST + SLOW)}


def _times(bench: ClaimsBench) -> list[Finding]:
    rows, _ = bench.time("C6", _compared(), (DOCUMENT,))
    figures = (
        ("time of a decoded token, of that all on the device", "decode_p50_us"),
        ("time of document and answer, of that all on the device", "total_s"),
    )
    return [
        Finding(
            condition=WHOLE,
            definition=name,
            measured=float(rows[column]["hierarchical"] / rows[column]["static"]),
            unit="×",
            claimed=ANY,
            note="the claim does not mention what it costs; on a CPU both tiers are the same memory",
        )
        for name, column in figures
    ]


NUM_TOKENS = tokens_of(_compared(), (DOCUMENT,))
"""Tokens that one timed repetition appends."""
