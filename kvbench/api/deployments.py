"""Deployments served one after another: each is composed and built, and the requests are read once."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from kvbench.api.basis import Basis
from kvbench.api.fleet import FleetParts, fleet_parts, requests_of
from kvbench.api.quality import quality_columns
from kvbench.configuration.chosen import is_fleet, scenario_of, strategies_of
from kvbench.configuration.errors import UsageError, refusing
from kvbench.decide.kept import Became
from kvbench.decide.space import Deployment, Space
from kvbench.fleet.fleet import SUMMARY
from kvbench.fleet.frames import summary_row
from kvbench.fleet.rules import check_rule
from kvbench.results.front import unserved
from kvbench.workload.trace import Trace
from kvbench.workload.trace_columns import TraceColumns


class Halves(NamedTuple):
    """Requests to search on, and others to judge on.

    Args:
        searched: the former.
        unseen: the latter.
        told: what they are, in words.
        is_same: whether they are the same, since nothing is drawn.
    """

    searched: TraceColumns
    unseen: TraceColumns
    told: str
    is_same: bool = False


def check_basis(basis: Basis, space: Space) -> None:
    """Refuse what no deployment of a kind can be: a key that does not exist, or a strategy that no fleet can run.

    Raises:
        UsageError: so it is.
    """
    for each in space.dimensions:
        for value in each.tried.choices if each.key in basis.choices else ():
            config = basis.composed(space.first({each.key: value}))
            if not is_fleet(config):
                raise UsageError("a search serves fleets: backend is fleet")
            for name, strategy in strategies_of(config).items():
                with refusing(f"strategy.{name}: "):
                    check_rule(strategy)


def halves_of(basis: Basis, deployment: Deployment) -> Halves:
    """The requests: of a trace the sessions that begin first and the others, of what is drawn two draws.

    Args:
        basis: what is the same in all.
        deployment: any.
    Raises:
        UsageError: a trace has one session, or the configuration is wrong.
        FileNotFoundError: a trace is missing.
    """
    config = basis.composed(deployment)
    columns, _ = requests_of(config, basis.overrides)
    if not isinstance(scenario_of(config), Trace):
        unseen, _ = requests_of(config | {"seed": config["seed"] + 1}, basis.overrides)
        if _alike(columns, unseen):
            told = f"{columns.num_requests:,} requests, which no seed changes: they are judged on, too"
            return Halves(columns, unseen, told, is_same=True)
        told = f"{columns.num_requests:,} requests, judged on as many of another seed"
        return Halves(columns, unseen, told)
    number = int(columns.session_numbers.max(initial=-1)) + 1
    if number < 2:  # noqa: PLR2004
        raise UsageError(
            f"{basis.name}: a search takes half of a trace's sessions and is judged on the others, got {number}"
        )
    searched, unseen = columns.first_sessions(number // 2), columns.after_sessions(number // 2)
    return Halves(
        searched, unseen, f"{searched.num_requests:,} requests, judged on the {unseen.num_requests:,} that come after"
    )


def _alike(columns: TraceColumns, others: TraceColumns) -> bool:
    names = (field.name for field in fields(TraceColumns) if field.name not in ("contents", "notes"))
    return all(np.array_equal(getattr(columns, name), getattr(others, name)) for name in names)


def serve(basis: Basis, deployment: Deployment, columns: TraceColumns, closely: bool = False) -> Became:
    """What becomes of requests by a deployment, whatever it is: that it cannot be served is an answer.

    Args:
        basis: what is the same in all.
        deployment: which.
        columns: the requests.
        closely: whether also with other times of work, for intervals, as often as its configuration says.
    """
    try:
        config = basis.composed(deployment)
        parts = fleet_parts(config, [], columns)
        fleet = parts.fleet.serving_as(keep=SUMMARY, **({} if closely else {"replays": 0}))
        ((name, strategy),) = parts.strategies.items()
        run = fleet.serve(name, strategy, fleet.arriving(columns), parts.budget_bytes)
        assert run.sums is not None
        row = summary_row(name, run, basis.name, run.sums)
        row |= figures_of(config, parts, name, row)
    except (Exception, SystemExit) as error:  # whatever it is, it is this deployment's
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return Became(deployment, {}, error=f"{kind}{' '.join(str(error).split())}")
    return Became(deployment, row, run.replays.rows, unserved(row))


def figures_of(config: Mapping[str, Any], parts: FleetParts, name: str, row: Mapping[str, Any]) -> Mapping[str, object]:
    """What else a deployment's row has before it is judged, by column of the summary: what it costs a real model.

    Args:
        config: its configuration.
        parts: what it describes.
        name: its strategy's.
        row: what serving gave.
    """
    return quality_columns(config, {name: parts.strategies[name]}, parts.columns)[name]
