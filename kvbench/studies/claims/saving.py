"""C5: what dynamic saves of static's memory in a short chat, by what "memory" may mean."""

from kvbench.studies.claims.article import MAXIMUM, SHORT_CHATS, appending, dynamic, static
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import Evidence, Finding

MEMORY = {
    "cumulative_bytes": "every allocation ever made, summed (the article's figure)",
    "final_bytes": "allocated at the end",
    "peak_bytes": "peak, a resize holding one tensor twice (as measured here)",
    "whole_peak_bytes": "peak, a resize holding both whole buffers",
    "mean_allocated_bytes": "allocated, mean over tokens",
}
"""Columns of a count, and what each takes memory to be."""


def savings(bench: ClaimsBench, appends: tuple[int, ...], maximum: int, initial: int) -> dict[str, float]:
    """Dynamic's saving in % by each column of MEMORY.

    Args:
        bench: counts.
        appends: tokens of each append.
        maximum: static's.
        initial: dynamic's initial capacity; its factor is 1.5.
    """
    rows = bench.count({"static": static(maximum), "dynamic": dynamic(initial)}, appending(appends))
    return {column: 100 * (1 - rows.loc["dynamic", column] / rows.loc["static", column]) for column in MEMORY}


def short_chat_saving(bench: ClaimsBench) -> Evidence:
    """C5: both lists of short chats, both maxima, both initial capacities."""
    findings = [
        Finding(
            condition=f"{name}, dynamic({initial}, 1.5) against static({maximum})",
            definition=MEMORY[column],
            measured=saved,
            unit="%",
            claimed=(70, 90),
        )
        for name in SHORT_CHATS
        if name in bench.workloads
        for maximum in (4000, MAXIMUM)
        for initial in (256, 512)
        for column, saved in savings(bench, bench.workloads[name], maximum, initial).items()
    ]
    return Evidence(findings=findings)
