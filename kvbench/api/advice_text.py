"""An answer in plain words: sentences by question, and a table of the best beside the usual choices."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.charts.frame import WIDTH, frame_text
from kvbench.charts.limits import binding_limits
from kvbench.charts.text import duration, lacking, listed, number, one_line, percent, ratio_text, value_text
from kvbench.decide.advice import BEST, DEFAULT, EVEN, WORTH, Otherwise, Room, Row, Unmet, records
from kvbench.decide.constraints import SATISFIED, VIOLATED
from kvbench.results.columns import FROM, PERCENT, ends
from kvbench.results.conditions import UNTOLD
from kvbench.results.quality_columns import KL, WHERE
from kvbench.results.schema import SUMMARY

if TYPE_CHECKING:
    from kvbench.api.loads import Loads
    from kvbench.api.recommending import Recommended
    from kvbench.api.tuning import Tuned

FIGURES = ("cost_per_million_tokens", "energy_per_million_tokens", "ttft_p99_s", "tpot_p99_s", "tokens_per_s", KL)
FIXED = ("parallel.pipeline", "backend.replicas", "model.weights_dtype")
"""Settings that matter to an answer, and of which one value only is tried unless several are named."""
ROLES = {BEST: "best tried", DEFAULT: "usual"}
USE, SAVES, SURE, LIMITED, CHANGES, LEFT_OUT = (
    *("what to use", "what it saves", "how sure", "what limits it", "what would change it", "not looked at"),
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the sentences are about.

    Args:
        verdict: as in `Recommended`.
        tuned: the search.
        best: the best's row, on requests that were not searched on; None: nothing is known to hold.
        advised: the same, or where it is no better that of the usual choice to keep.
        rooms: what that leaves of each condition, the least first.
        unmet: conditions that nothing meets.
        nearest: the row whose worst condition is least beyond its bound.
        otherwise: what would be best without a condition.
        untold: strategies that lack a figure, by why.
        loads: up to which load it holds; None where that was not changed.
        doubts: what was measured of its machine.
        not_tried: strategies of kvbench's that were not.
        searched: whose own ranges were.
    """

    verdict: str
    tuned: "Tuned"
    best: Row | None
    advised: Row | None
    rooms: Sequence[Room]
    unmet: Sequence[Unmet]
    nearest: Row | None
    otherwise: Sequence[Otherwise]
    untold: Mapping[str, Sequence[str]]
    loads: "Loads | None"
    doubts: Sequence[str]
    not_tried: Sequence[str]
    searched: Sequence[str]


def parts_of(facts: Facts) -> dict[str, tuple[str, ...]]:
    """Sentences by question."""
    made = {USE: _use, SAVES: _saves, SURE: _sure, LIMITED: _limited, CHANGES: _changes, LEFT_OUT: _left_out}
    return {name: said for name, of in made.items() if (said := tuple(of(facts)))}


def text_of(found: "Recommended") -> str:
    """The answer for a terminal."""
    tuned = found.tuned
    wanted = " and ".join(goal.text for goal in tuned.goals)
    where = f", where {' and '.join(tuned.subject_to)}" if tuned.subject_to else ""
    lines = [f"{one_line(tuned.scenario)}: {wanted}{where}", ""]
    for name, said in found.parts.items():
        first, *rest = (textwrap.wrap(one_line(sentence), WIDTH - 2, break_long_words=False) for sentence in said)
        lines += [name.capitalize(), *(f"  {line}" for lines_of in (first, *rest) for line in lines_of), ""]
        if name == SAVES or (name == USE and SAVES not in found.parts):
            lines += [table_of(tuned), ""]
    return "\n".join(lines).rstrip("\n")


def table_of(tuned: "Tuned") -> str:
    """The best beside the usual choices, on requests that were not searched on."""
    rows = tuned.judged[tuned.judged["role"].isin(ROLES)]
    words = pd.DataFrame(
        {
            "": [ROLES[role] for role in rows["role"]],
            "deployment": [named(row, tuned.keys) for row in records(rows)],
            "holds": ["could not serve" if row["error"] else str(row["verdict"]) for row in records(rows)],
        },
        index=rows.index,
    )
    asked = [*(goal.column for goal in tuned.goals), *FIGURES]
    shown = [each for each in dict.fromkeys(asked) if each in rows and rows[each].notna().any()]
    columns = [name for each in shown for name in (each, *ends(each)) if name in rows]
    return frame_text(pd.concat([words, rows[columns]], axis=1))


def named(row: Row, keys: Sequence[str]) -> str:
    """A deployment in words: the strategy on so many of a machine, and what else was searched."""
    size = row.get("num_accelerators")
    number_of = "" if size is None or size != size else f"{int(size)} × "
    rest = [
        f"{key.rpartition('.')[2]} {value_text(row[key])}"
        for key in keys
        if "." in key and not _is_empty(row.get(key)) and not (key.startswith("parallel.") and row[key] == 1)
    ]
    others = [one_line(row[key]) for key in keys if "." not in key and key not in ("strategy", "hardware")]
    return ", ".join([f"{one_line(row['strategy'])} on {number_of}{one_line(row['hardware'])}", *others, *rest])


def _use(facts: Facts) -> Iterator[str]:
    if facts.best is not None:
        if facts.verdict == UNTOLD:
            yield f"It cannot be told: {_fails_later(facts.best, facts.tuned.keys)}."
        elif facts.verdict == EVEN and facts.advised is not None:
            yield from _usual(facts.tuned, facts.advised, facts.best)
        else:
            yield f"Use {named(facts.best, facts.tuned.keys)}."
        alike = facts.tuned.rows
        stands = alike["merged"] == (facts.tuned.best or {}).get("deployment")
        same = alike[stands & (alike["deployment"] != alike["merged"])]
        if len(same):
            others = [named(row, facts.tuned.keys) for row in records(same)]
            yield f"It cannot be told from {listed(others, 4)}."
        return
    if facts.verdict == UNTOLD:
        yield "It cannot be told: nothing that was tried is known to hold beyond doubt."
        yield from (f"Nothing has a figure for {each.constraint.text}." for each in facts.unmet if each.nearest is None)
        return
    yield "Nothing that was tried holds."
    for each in facts.unmet:
        if each.nearest is None:
            yield f"Nothing has a figure for {each.constraint.text}."
        else:
            figure = figure_text(each.constraint.column, each.nearest)
            yield f"Nothing meets {each.constraint.text}; nearest is {named(each.nearest, facts.tuned.keys)}, {figure}."
    if not facts.unmet and facts.nearest is not None:
        yield (
            "Each condition is met by some, and all together by none; nearest is "
            f"{named(facts.nearest, facts.tuned.keys)}."
        )


def _usual(tuned: "Tuned", kept: Row, best: Row) -> Iterator[str]:
    """Which usual choice to keep, and whether it held before."""
    name, other = named(kept, tuned.keys), named(best, tuned.keys)
    rival = other if other != name else "what else was tried"
    beaten = f"{rival} is not better beyond doubt, or by less than {percent(WORTH)}"
    why = beaten if best["verdict"] == SATISFIED else _fails_later(best, tuned.keys)
    yield f"Keep the usual choice, {name}: {why}."
    same = [row for row in records(tuned.rows) if named(row, tuned.keys) == name]
    for row in same[:1]:
        if row["verdict"] != SATISFIED:
            yield f"On the requests that were searched on, its verdict is: {row['verdict']} ({row['limited_by']})."


def _fails_later(best: Row, keys: Sequence[str]) -> str:
    """That the best holds on requests that were searched on, and not beyond doubt on others."""
    return f"{named(best, keys)} holds on the requests that were searched on, and on others {_holds(best)}"


def _holds(row: Row) -> str:
    """Whether a row holds."""
    if row["error"]:
        return f"could not serve: {row['error']}"
    unsure = "" if row["verdict"] == SATISFIED else f": {row['limited_by']}"
    return f"it {'' if row['verdict'] == UNTOLD else 'is '}{row['verdict']}{unsure}"


def _saves(facts: Facts) -> Iterator[str]:
    if facts.best is None:
        return
    best = named(facts.best, facts.tuned.keys)
    for row in records(facts.tuned.judged[facts.tuned.judged["role"] == DEFAULT]):
        if named(row, facts.tuned.keys) == best:
            yield f"Nothing: {best} is the usual choice itself."
            continue
        usual = f"the usual choice ({named(row, facts.tuned.keys)})"
        own = facts.tuned.against[facts.tuned.against["default"] == row["hardware"]]
        if row["error"]:
            yield f"{usual.capitalize()} could not serve: {row['error']}."
        elif row["verdict"] == VIOLATED:
            yield f"{usual.capitalize()} does not hold: {row['limited_by']}."
        for each in records(own) if row["verdict"] != VIOLATED else ():
            yield _ratio(each, usual)


def _ratio(row: Row, usual: str) -> str:
    low, high = (ratio_text(row[end]) for end in ends("ratio"))
    head = one_line(SUMMARY[str(row["metric"])].label or row["metric"])
    verdict = str(row["verdict"])
    return f"{head}: {ratio_text(row['ratio'])} times ({low} to {high}) that of {usual}: {verdict}."


def _sure(facts: Facts) -> Iterator[str]:
    row = facts.advised or facts.nearest
    if row is None:
        return
    if facts.advised is not None:
        held = f"On requests that were not searched on ({facts.tuned.requests})"
        yield f"{held} {_holds(row)}."
    told = row.get(FROM)
    yield f"Intervals are at {PERCENT} %, from {told}." if isinstance(told, str) else "Its times have no intervals."
    yield from facts.doubts
    where = row.get(WHERE)
    if isinstance(where, str):
        yield f"Quality: {where}."


def _limited(facts: Facts) -> Iterator[str]:
    if facts.advised is None:
        return
    bound = binding_limits(pd.DataFrame([dict(facts.advised)]))[0]
    if bound:
        yield f"What the next request waited for, most of the time: {bound}."
    for room in facts.rooms[:1]:
        figure = figure_text(room.constraint.column, facts.advised)
        yield f"The condition with least room is {room.constraint.text}: {figure}."


def _changes(facts: Facts) -> Iterator[str]:
    for room in facts.rooms[:1]:
        if room.left == room.left:
            yield f"{room.constraint.text} is the nearest: {percent(room.left)} of it is left."
    keys, goal = facts.tuned.keys, facts.tuned.goals[0].column
    for each in facts.otherwise:
        yield f"Without {each.constraint.text}, {named(each.row, keys)} would win: {figure_text(goal, each.row)}."
    loads = facts.loads
    if loads is None:
        if facts.advised is not None:
            yield "The load was not changed: clients wait for their answers here, or all requests come at once."
        return
    rate = f"{number(loads.rate_per_s)} requests/s"
    beyond = f"then {loads.limited_by} breaks" if loads.limited_by else ""
    yield f"It holds up to {number(loads.highest)} times this load of {rate}, by figures alone; {beyond}."
    if loads.beyond is None:
        yield "Above that, none of the best of each size holds; more replicas or ranks than these were not tried."
    else:
        yield f"Above that, {named(loads.beyond, keys)} wins: {figure_text(goal, loads.beyond)}."
    if loads.quiet is not None:
        yield f"At a quarter of this load, {named(loads.quiet, keys)} wins: {figure_text(goal, loads.quiet)}."


def _left_out(facts: Facts) -> Iterator[str]:
    tuned = facts.tuned
    if not tuned.is_exhaustive:
        yield f"{len(tuned.rows):,} deployments were tried{f' of {tuned.size:,}' if tuned.size else ''}."
    failed = tuned.rows[tuned.rows["error"] != ""]
    if len(failed):
        why = one_line(failed["error"].value_counts().index[0])
        yield f"{len(failed):,} of {len(tuned.rows):,} could not serve all; most often: {why}."
    yield from lacking(facts.untold)
    if facts.not_tried:
        yield f"Strategies that were not tried: {listed(list(facts.not_tried), 30)}."
    fixed = [name for name in FIXED if name not in tuned.keys]
    yield (
        f"One value only was tried of all other settings, among them {listed(fixed)}"
        f"{'' if facts.searched else ', and of strategies and engine their parameters as they come'}."
    )
    yield "What fewer bits of weights cost in answers, failures, and all that is not modelled."


def figure_text(column: str, row: Row) -> str:
    """A figure with its interval."""
    value, (low, high) = row.get(column), (row.get(end) for end in ends(column))
    label = SUMMARY[column].label or column
    if _is_empty(value):
        return f"{label} cannot be told"
    around = "" if _is_empty(low) or low == high else f" ({_shown(column, low)} to {_shown(column, high)})"
    return f"{label} {_shown(column, value)}{around}"


def _shown(column: str, value: Any) -> str:
    unit = SUMMARY[column].unit
    if unit == "s":
        return duration(float(value))
    return f"{number(float(value))}{f' {unit}' if unit else ''}"


def _is_empty(value: Any) -> bool:
    return value is None or value != value
