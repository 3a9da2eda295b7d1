"""C1 to C5, which are counted: of each its cases, its definitions and the range that is claimed."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import pandas as pd

from kvbench.strategy.base import Strategy
from kvbench.studies.claims.article import MAXIMUM, PREDICTED, SHORT_CHATS, appending, dynamic, predictive, static
from kvbench.studies.claims.bench import ClaimsBench
from kvbench.studies.claims.finding import Evidence, Finding

Lists = Mapping[str, tuple[int, ...]]
Count = Callable[[Strategy, Strategy | None, tuple[int, ...]], pd.DataFrame]

TABLE = {512: 93.8, 1024: 87.5, 2048: 75.0, 4096: 50.0}
"""Tokens held, and the waste in % that the article gives, rounded to a tenth."""
TABLED = {"utilization_final": "allocated and not used, share of allocated"}
WASTED = {
    "utilization_final": "allocated and not used, at the end",
    "utilization_mean": "allocated and not used, mean over tokens",
}
USED = {
    "utilization_peak": "used of allocated, at the best step",
    "utilization_final": "used of allocated, at the end",
    "utilization_mean": "used of allocated, mean over tokens",
}
RULES = {"append": "fewer resizes by the article's rule", "total": "fewer resizes by the corrected rule"}
MEMORY = {
    "cumulative_bytes": "every allocation ever made, summed (the article's figure)",
    "final_bytes": "allocated at the end",
    "peak_bytes": "peak, a resize holding one tensor twice (as measured here)",
    "whole_peak_bytes": "peak, a resize holding both whole buffers",
    "mean_allocated_bytes": "allocated, mean over tokens",
}
FIRST_CAPACITY = 200
"""Of dynamic and predictive where their resizes are compared."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is counted at once, for a figure a definition.

    Args:
        condition: in words.
        lists: of appends, each a request of its own; counts are summed over those that all strategies hold.
        own: whose counts they are.
        other: what they are a part of; None: a column that is a share already.
        definitions: by column of a count, what it takes the claim's words to mean.
        is_rest: whether the figure is what is left of the whole, and not the part.
        claimed: the least and the most, in %.
        note: beside a figure, with the two counts filled in.
        too_long: the note where no list is held.
    """

    condition: str
    lists: tuple[tuple[int, ...], ...]
    own: Strategy
    other: Strategy | None = None
    definitions: Mapping[str, str]
    is_rest: bool = True
    claimed: tuple[float, float]
    note: str = ""
    too_long: str = f"longer than its maximum of {MAXIMUM:,}"

    def findings(self, count: Count) -> Iterator[Finding]:
        """Each definition's figure, from counts of the lists."""
        counts = [count(self.own, self.other, appends) for appends in self.lists]
        held = [rows for rows in counts if (rows["outcome"] == "completed").all()]
        for column, definition in self.definitions.items():
            part = sum(float(rows[column]["own"]) for rows in held)
            whole = sum(float(rows[column]["other"]) for rows in held) if self.other is not None else 1.0
            if held and whole:
                share = part / whole
                measured, note = 100 * (1 - share if self.is_rest else share), self.note.format(part, whole)
            else:
                measured, note = math.nan, self.too_long if not held else "dynamic never resizes"
            yield Finding(
                condition=self.condition,
                definition=definition,
                measured=float(measured),
                unit="%",
                claimed=self.claimed,
                note=note,
            )


def counted(cases: Callable[[Lists], Iterable[Case]]) -> Callable[[ClaimsBench], Evidence]:
    """What a claim is measured by: all its cases, on the article's lists."""

    def measure(bench: ClaimsBench) -> Evidence:
        @cache
        def count(own: Strategy, other: Strategy | None, appends: tuple[int, ...]) -> pd.DataFrame:
            strategies = {"own": own} | ({} if other is None else {"other": other})
            return bench.count(strategies, appending(appends))

        return Evidence(findings=[each for case in cases(bench.workloads) for each in case.findings(count)])

    return measure


def waste_table(lists: Lists) -> Iterator[Case]:
    """C1: the article's table, from the ledger."""
    for num_tokens, claimed in TABLE.items():
        yield Case(
            condition=f"{num_tokens} tokens in static({MAXIMUM})",
            lists=((num_tokens,),),
            own=static(),
            definitions=TABLED,
            claimed=(round(claimed - 0.05, 3), round(claimed + 0.05, 3)),
        )


def static_waste(lists: Lists) -> Iterator[Case]:
    """C2: over all lists and both maxima that the article uses."""
    for maximum in (MAXIMUM, 4000):
        for name, appends in lists.items():
            yield Case(
                condition=f"{name}, static({maximum})",
                lists=(appends,),
                own=static(maximum),
                definitions=WASTED,
                claimed=(50, 95),
                too_long="longer than it holds",
            )


def dynamic_use(lists: Lists) -> Iterator[Case]:
    """C3: over all lists, with the article's default capacity and that of its comparison."""
    for initial in (512, 256):
        for name, appends in lists.items():
            yield Case(
                condition=f"{name}, dynamic({initial}, 1.5)",
                lists=(appends,),
                own=dynamic(initial),
                definitions=USED,
                is_rest=False,
                claimed=(85, 95),
            )


def fewer_resizes(lists: Lists) -> Iterator[Case]:
    """C4: a list each, and summed over those that the article compares on, and over all."""
    groups: dict[str, tuple[str, ...]] = {name: (name,) for name in lists}
    groups |= {
        "the article's four lists together": PREDICTED,
        "all lists that both hold, together": tuple(lists),
    }
    own, other = {rule: predictive(rule, FIRST_CAPACITY) for rule in RULES}, dynamic(FIRST_CAPACITY)
    for rule, definition in RULES.items():
        for condition, names in groups.items():
            yield Case(
                condition=condition,
                lists=tuple(lists[name] for name in names if name in lists),
                own=own[rule],
                other=other,
                definitions={"num_resizes": definition},
                claimed=(50, 80),
                note="{:.0f} instead of {:.0f}",
                too_long=f"longer than the maximum of {MAXIMUM:,}",
            )


def short_chat_saving(lists: Lists) -> Iterator[Case]:
    """C5: both lists of short chats, both maxima, both initial capacities."""
    for name in SHORT_CHATS:
        for maximum in (4000, MAXIMUM) if name in lists else ():
            for initial in (256, 512):
                yield Case(
                    condition=f"{name}, dynamic({initial}, 1.5) against static({maximum})",
                    lists=(lists[name],),
                    own=dynamic(initial),
                    other=static(maximum),
                    definitions=MEMORY,
                    claimed=(70, 90),
                )
