"""The public call that finds the highest load at which objectives hold, and what it returns."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.api.progress import watched
from kvbench.api.quality import quality_columns
from kvbench.api.verbs import name_of
from kvbench.configuration.chosen import is_fleet, scenario_of
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import UsageError, needing_extra, refusing
from kvbench.configuration.parts import Config
from kvbench.decide.advice import untold
from kvbench.decide.constraints import Constraint, constraints_of
from kvbench.decide.highest import STEPS, Highest, Ladder, highest_load
from kvbench.results.columns import ends
from kvbench.results.schema import SUMMARY
from kvbench.workload.arrivals import MOST_CLIENTS
from kvbench.workload.request import NS_PER_S

if TYPE_CHECKING:
    from kvbench.api.fleet import FleetParts
    from kvbench.backend.choice import BackendChoice
    from kvbench.charts.rates import RatesChart
    from kvbench.model.hardware import Hardware
    from kvbench.workload.scenario import Scenario

RATE, USERS = "rate_per_s", "users"
"""What is found: requests a second that arrive, or clients that each wait for their answers."""
LONGEST_S = 5e7
"""Requests arrive within it at the least load that is tried: a fleet's clock ends after some years."""


@dataclass(frozen=True, kw_only=True)
class Rated:
    """The highest loads at which objectives hold.

    Args:
        rows: a row a machine and strategy: hardware, strategy, num_accelerators, the load (rate_per_s, or users) with
            the ends of its interval, and what it is limited by.
        tried: a row a machine, strategy and load: a summary's, and the load.
        subject_to: what had to hold.
        scenario: what was served.
        load: RATE or USERS.
    """

    rows: pd.DataFrame
    tried: pd.DataFrame
    subject_to: tuple[str, ...]
    scenario: str
    load: str

    @property
    def untold(self) -> dict[str, list[str]]:
        """Strategies of which a condition cannot be told for want of a figure, by why that is."""
        asked = untold(self.tried, constraints_of(self.subject_to))
        unknown = set(self.rows.loc[self.rows[self.load].isna(), "strategy"])
        return {why: kept for why, whose in asked.items() if (kept := [each for each in whose if each in unknown])}

    @property
    def text(self) -> str:
        """A table for a terminal, and what bounds each."""
        from kvbench.charts.rates import rates_text

        return rates_text(self.rows, self.subject_to, self.scenario, self.load, self.untold)

    @property
    def chart(self) -> "RatesChart":
        """The share of requests within the objectives over the load, a line a strategy and machine."""
        from kvbench.charts.rates import RatesChart

        said = " and ".join(self.subject_to)
        return RatesChart(rows=self.rows, tried=self.tried, load=self.load, limits=said, subject=self.scenario)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; of the loads that were tried, the figures that had to hold."""
        rows = json.loads(self.rows.to_json(orient="records", double_precision=15))
        told = {"scenario": self.scenario, "subject_to": list(self.subject_to), "load": self.load, "rows": rows}
        return told | {"untold": self.untold}


def rate(
    scenario: "str | PathLike[str] | Scenario",
    strategies: Any = None,
    *,
    subject_to: str | Iterable[str],
    hardware: "str | PathLike[str] | Mapping[str, object] | Hardware | Sequence[str] | None" = None,
    backend: "str | Mapping[str, object] | BackendChoice | None" = "fleet",
    settings: Mapping[str, object] | None = None,
    trusted: Iterable[str] = (),
    **chosen: Any,
) -> Rated:
    """Find the highest arrival rate at which objectives hold, as `python -m kvbench rate …` does.

    A trace's arrivals are made denser or sparser, all else equal, so that every load has the same requests; of a
    scenario whose clients wait for their answers, the number of clients is changed. Bisection to 1.1 per cent.

    Args:
        scenario: as in `run`.
        strategies: as in `run`.
        subject_to: what has to hold: "ttft_p99_s<=1", or several.
        hardware: as in `run`; or a list of names, each of which is rated.
        backend: "fleet", or one with settings.
        settings: as in `run`.
        trusted: as in `run`.
        chosen: model, engine and parallel, as in `run`.
    Returns:
        By machine and strategy the load with its interval: at its lower end objectives hold beyond doubt, above its
        upper end they do not. NaN, where the figure of one is empty, so that it cannot be told.
    Raises:
        ValueError: the input is wrong.
        FileNotFoundError: a trace is missing.
    """
    with refusing():
        constraints = constraints_of([subject_to] if isinstance(subject_to, str) else subject_to)
    machines = list(hardware) if isinstance(hardware, list | tuple) else [hardware]
    overrides = [f"{key}={value}" for key, value in (settings or {}).items()]
    fleets = []
    for machine in machines:
        groups = {"scenario": scenario, "backend": backend, "hardware": machine, **chosen}
        config = composed(groups, strategies, settings, tuple(trusted))
        if not is_fleet(config):
            raise UsageError("rate asks a fleet how much it serves: backend is fleet")
        with needing_extra():
            from kvbench.api.fleet import fleet_parts
        fleets.append((scenario_of(config).named(name_of(scenario)), config, fleet_parts(config, overrides)))
    found = [_rated(*each, constraints) for each in fleets]  # once all are known to serve: each takes its time
    if len({each.load for each in found}) > 1:
        raise UsageError("the machines do not serve the same scenario")
    frames = [pd.concat([getattr(each, name) for each in found], ignore_index=True) for name in ("rows", "tried")]
    return replace(found[0], rows=frames[0], tried=frames[1])


def _rated(name: str, config: Config, parts: "FleetParts", constraints: Sequence[Constraint]) -> Rated:
    """The loads of each strategy on one machine."""
    columns, fleet = parts.columns, parts.fleet
    load = RATE if columns.num_clients is None else USERS
    base = _offered_per_s(parts) if columns.num_clients is None else columns.num_clients

    def load_at(step: int) -> float:
        asked = base * 2 ** (step / STEPS)
        return max(asked, least) if load == RATE else max(min(round(asked), MOST_CLIENTS), 1)

    rows, tried, quality = [], [], quality_columns(config, parts.strategies, columns)
    num_requests = columns.num_requests * fleet.chosen.repeats
    least = min(num_requests / LONGEST_S, base)
    with watched(0, "loads") as advance:
        for strategy in parts.strategies:
            ladder = Ladder(load_at, partial(_served, name, parts, strategy, load, quality[strategy]))
            advance(f"{strategy}, {num_requests:,} requests a load", 1)
            found = highest_load(ladder, constraints)
            told = {"hardware": fleet.machine.name, "strategy": strategy, "num_accelerators": fleet.num_accelerators}
            rows.append(told | _figures(found, load))
            tried += [{**row, load: value} for value, row in sorted(ladder.tried.items())]
    limits = tuple(each.text for each in constraints)
    served = pd.DataFrame(tried, columns=[*SUMMARY, load])
    return Rated(rows=pd.DataFrame(rows), tried=served, subject_to=limits, scenario=name, load=load)


def _figures(found: Highest, load: str) -> dict[str, object]:
    low, high = ends(load)
    return {load: found.value, low: found.low, high: found.high, "limited_by": found.limited_by}


def _offered_per_s(parts: "FleetParts") -> float:
    """Requests a second that arrive as the fleet meets the scenario."""
    arrivals_ns = parts.columns.arrivals_ns
    span_ns = int(arrivals_ns[-1] - arrivals_ns[0]) if arrivals_ns.size else 0
    if not span_ns:
        raise UsageError(
            "all requests arrive at once, so that there is no rate to change: give the scenario arrivals with a rate, "
            "or clients that wait for their answers (ClosedLoop)"
        )
    return float((arrivals_ns.size - 1) * NS_PER_S / span_ns * parts.fleet.chosen.rate_scale)


def _served(
    name: str, parts: "FleetParts", strategy: str, load: str, quality: Mapping[str, object], asked: float
) -> dict[str, Any]:
    """The summary's row of a strategy at a load."""
    from kvbench.fleet.fleet import SUMMARY as WITHOUT_REQUESTS
    from kvbench.fleet.frames import summary_row

    columns, fleet = parts.columns, parts.fleet.serving_as(keep=WITHOUT_REQUESTS)
    if load == USERS:
        columns = replace(columns, num_clients=int(asked))
    else:
        fleet = fleet.serving_as(rate_scale=asked / _offered_per_s(parts) * fleet.chosen.rate_scale)
    run = fleet.serve(strategy, parts.strategies[strategy], fleet.arriving(columns), parts.budget_bytes)
    assert run.sums is not None
    return summary_row(strategy, run, name, run.sums) | dict(quality)
