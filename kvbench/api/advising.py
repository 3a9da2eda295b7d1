"""From a search to an answer: its rows, its best at other loads, and what the machines' times are worth."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kvbench.api.advice_text import Facts, parts_of
from kvbench.api.asked_space import MACHINE, asked_of
from kvbench.api.basis import Basis
from kvbench.api.deployments import halves_of
from kvbench.api.loads import Loads, loads_of
from kvbench.api.recommending import Recommended
from kvbench.api.tuning import Tuned
from kvbench.api.verbs import name_of
from kvbench.configuration.catalogue import names
from kvbench.configuration.engine import engine_of
from kvbench.configuration.model import hardware_of, model_of
from kvbench.decide.advice import (
    BEST,
    DEFAULT,
    Row,
    advised_of,
    contenders_of,
    nearest_of,
    otherwise,
    records,
    rooms,
    unmet,
    verdict_of,
)
from kvbench.decide.constraints import Constraint
from kvbench.decide.space import Deployment, Dimension, Space
from kvbench.model.hardware import Hardware
from kvbench.model.model import Model
from kvbench.timing.doubt import doubt_of

NUM_CONTENDERS = 8
STRATEGY = "strategy"


def advised(
    found: Tuned,
    constraints: Sequence[Constraint],
    scenario: object,
    strategies: Any,
    search: tuple[str, ...],
    common: Mapping[str, Any],
) -> Recommended:
    """The answer.

    Args:
        found: the search.
        constraints: what had to hold.
        scenario: what was served.
        strategies: that were tried.
        search: whose ranges were.
        common: the other arguments of `tune` that say what is searched.
    """
    groups = {"scenario": scenario, **{key: common[key] for key in common if key not in ("settings", "trusted")}}
    basis, space = asked_of(
        name_of(scenario), groups, strategies, dict(common["settings"] or {}), search, common["trusted"]
    )
    best, goal = found.best, found.goals[0]
    verdict = verdict_of(found.rows, found.judged, found.against, goal.column)
    advised = advised_of(found.judged, verdict, goal)
    loads = None if advised is None else _loads(found, advised, basis, space, constraints)
    shown = advised if advised is not None else nearest_of(found.rows, constraints)
    facts = Facts(
        verdict=verdict,
        tuned=found,
        best=next(iter(records(found.judged[found.judged["role"] == BEST])), None),
        advised=advised,
        rooms=[] if advised is None else rooms(advised, constraints),
        unmet=unmet(found.rows, constraints),
        nearest=nearest_of(found.rows, constraints),
        otherwise=otherwise(found.rows, found.goals, constraints, best),
        untold=found.untold,
        loads=loads,
        doubts=[] if shown is None else [*_doubts(basis.composed(deployment_of(space, shown))), *_prices(basis, space)],
        not_tried=[name for name in names("strategy") if name not in set(found.rows["strategy"].astype(str))],
        searched=search,
    )
    return Recommended(verdict=verdict, tuned=found, loads=loads, parts=parts_of(facts))


def deployment_of(space: Space, row: Row) -> Deployment:
    """The deployment of a row; what is empty there does not matter, or is null; of a default, it is as it comes."""
    found = space.first({each.key: _value(each, row[each.key]) for each in space.dimensions if each.key in row})
    is_default = row.get("role") == DEFAULT
    return {key: value for key, value in found.items() if not is_default or value is not None}


def _value(dimension: Dimension, value: Any) -> Any:
    """A value as it was tried: a column with gaps has whole numbers as others."""
    if pd.isna(value):
        return None
    if dimension.tried.choices:
        return next((each for each in dimension.tried.choices if each == value), value)
    return int(value) if dimension.tried.is_whole else float(value)


def _loads(found: Tuned, advised: Row, basis: Basis, space: Space, constraints: Sequence[Constraint]) -> Loads | None:
    sizes = [MACHINE, *(name for name in found.keys if name.startswith(("parallel.", "backend.replicas")))]
    kinds = [STRATEGY, *sizes]

    def contenders(by: Sequence[str], most_excess: float) -> list[Deployment]:
        rows = contenders_of(found.rows, found.goals, constraints, by, NUM_CONTENDERS, most_excess)
        return [deployment_of(space, row) for row in rows]

    own = deployment_of(space, advised)
    smaller, larger = contenders(kinds, math.inf), [*contenders(kinds, 0), *contenders(sizes, 0)]
    columns = halves_of(basis, space.first({})).searched
    return loads_of(basis, columns, own, [own, *smaller], larger, found.goals[0], constraints)


def _doubts(config: Mapping[str, Any]) -> list[str]:
    """What was measured of a deployment's machine, by engine and dtype, and what never was."""
    hardware, engine, model = hardware_of(config), engine_of(config), model_of(config)
    assert hardware is not None
    doubt = doubt_of(hardware)
    if not doubt.is_measured or hardware.kernels is None:
        return [
            f"No kernel of {hardware.name} was measured: its times are unvalidated, and the intervals are the widest "
            "that data sheets of measured machines were off by."
        ]
    kernels = hardware.kernels
    spans = [f"{kind} {low:.2f} to {high:.2f}" for kind in kernels["residuals"] for low, high in [doubt.ends(kind)]]
    said = [
        f"On {hardware.name} a single kernel that fitted nothing took, measured over told, at 90 %: {', '.join(spans)} "
        f"({kernels['engine']} {kernels['version']}, {kernels['source']}); the intervals are drawn from these."
    ]
    if engine is not None and engine.name != kernels["engine"]:
        said.append(f"Those are kernels of {kernels['engine']}: none of {engine.name} was measured there.")
    return said + _unmeasured(hardware, model)


def _prices(basis: Basis, space: Space) -> list[str]:
    """What an hour of each machine is taken to cost."""
    choices = next(each.tried.choices for each in space.dimensions if each.key == MACHINE)
    machines = [hardware_of(basis.composed(space.first({MACHINE: each}))) for each in choices]
    told = [f"{each.name} {each.price_per_hour:g}" for each in machines if each is not None and each.price_per_hour]
    said = f"An hour costs: {', '.join(told)} (hardware.price_per_hour, in dollars where it is kvbench's)."
    return [said] if told else []


def _unmeasured(hardware: Hardware, model: Model) -> list[str]:
    kernels = hardware.kernels or {}
    weights = {part.dtype for part in model.weights if part.dtype} - set(kernels.get("products", {}))
    held = {group.dtype for group in model.groups if group.holds_tokens} - {model.dtype}
    said = []
    if weights:
        said.append(f"Unvalidated: products in {', '.join(sorted(weights))}, which no table has.")
    if held:
        said.append(f"The cache is held in {', '.join(sorted(held))}; what that costs in answers says quality_from.")
    return said
