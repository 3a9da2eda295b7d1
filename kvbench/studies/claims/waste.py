"""C1 to C3: what static wastes, and what dynamic uses."""

import math

from kvbench.studies.claims.article import MAXIMUM, appending, dynamic, static
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import Evidence, Finding

TABLE = {512: 93.8, 1024: 87.5, 2048: 75.0, 4096: 50.0}
"""Tokens held, and the waste in % that the article gives, rounded to a tenth."""


def waste_table(bench: ClaimsBench) -> Evidence:
    """C1: the article's table, from the ledger."""
    findings = []
    for num_tokens, claimed in TABLE.items():
        row = bench.count({"static": static()}, appending((num_tokens,))).loc["static"]
        findings.append(
            Finding(
                condition=f"{num_tokens} tokens in static({MAXIMUM})",
                definition="allocated and not used, share of allocated",
                measured=100 * (1 - row["utilization_final"]),
                unit="%",
                claimed=(round(claimed - 0.05, 3), round(claimed + 0.05, 3)),
            )
        )
    return Evidence(findings=findings)


def static_waste(bench: ClaimsBench) -> Evidence:
    """C2: over all lists and both maxima that the article uses."""
    findings = []
    for maximum in (MAXIMUM, 4000):
        for name, appends in bench.workloads.items():
            row = bench.count({"static": static(maximum)}, appending(appends)).loc["static"]
            fits = row["outcome"] == "completed"
            for column, definition in (
                ("utilization_final", "allocated and not used, at the end"),
                ("utilization_mean", "allocated and not used, mean over tokens"),
            ):
                findings.append(
                    Finding(
                        condition=f"{name}, static({maximum})",
                        definition=definition,
                        measured=100 * (1 - row[column]) if fits else math.nan,
                        unit="%",
                        claimed=(50, 95),
                        note="" if fits else "longer than it holds",
                    )
                )
    return Evidence(findings=findings)


def dynamic_use(bench: ClaimsBench) -> Evidence:
    """C3: over all lists, with the article's default capacity and that of its comparison."""
    findings = []
    for initial in (512, 256):
        for name, appends in bench.workloads.items():
            row = bench.count({"dynamic": dynamic(initial)}, appending(appends)).loc["dynamic"]
            fits = row["outcome"] == "completed"
            for column, definition in (
                ("utilization_peak", "used of allocated, at the best step"),
                ("utilization_final", "used of allocated, at the end"),
                ("utilization_mean", "used of allocated, mean over tokens"),
            ):
                findings.append(
                    Finding(
                        condition=f"{name}, dynamic({initial}, 1.5)",
                        definition=definition,
                        measured=100 * row[column] if fits else math.nan,
                        unit="%",
                        claimed=(85, 95),
                        note="" if fits else f"longer than its maximum of {MAXIMUM:,}",
                    )
                )
    return Evidence(findings=findings)
