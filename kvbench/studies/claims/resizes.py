"""C4: whether predictive resizes less often than dynamic."""

import math

from kvbench.studies.claims.article import MAXIMUM, PREDICTED, appending, dynamic, predictive
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import Evidence, Finding

INITIAL = 200
RULES = {"append": "fewer resizes by the article's rule", "total": "fewer resizes by the corrected rule"}


def resize_counts(bench: ClaimsBench, name: str) -> dict[str, int] | None:
    """Resizes on one list, of dynamic and of predictive by each rule; None where it is longer than they hold."""
    strategies = {"dynamic": dynamic(INITIAL)} | {rule: predictive(rule, INITIAL) for rule in RULES}
    rows = bench.count(strategies, appending(bench.workloads[name]))
    if (rows["outcome"] != "completed").any():
        return None
    return {strategy: int(rows.loc[strategy, "num_resizes"]) for strategy in strategies}


def predictive_resizes(bench: ClaimsBench) -> Evidence:
    """C4: a list each, and summed over those that the article compares on, and over all."""
    counts = {name: resize_counts(bench, name) for name in bench.workloads}
    held = {name: of for name, of in counts.items() if of is not None}
    sums = {"the article's four lists together": PREDICTED, "all lists that both hold, together": tuple(held)}
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in bench.workloads} | sums
    findings = []
    for rule, definition in RULES.items():
        for condition, names in groups.items():
            own = [held[name] for name in names if name in held]
            before, after = sum(of["dynamic"] for of in own), sum(of[rule] for of in own)
            if own and before:
                measured, note = 100 * (1 - after / before), f"{after} instead of {before}"
            else:
                longer = f"longer than the maximum of {MAXIMUM:,}"
                measured, note = math.nan, "dynamic never resizes" if own else longer
            findings.append(
                Finding(
                    condition=condition, definition=definition, measured=measured, unit="%", claimed=(50, 80), note=note
                )
            )
    return Evidence(findings=findings)
