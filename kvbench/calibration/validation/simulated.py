"""End-to-end measurements held against simulations of the same requests on the same system."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kvbench.calibration.validation.drawn import drawn_ends
from kvbench.calibration.validation.kernels import Judged
from kvbench.calibration.validation.points import (
    LAST_FINISH,
    THROUGHPUT,
    UNITS,
    ServingPoint,
)
from kvbench.calibration.validation.rows import OF_REQUEST, held_rows
from kvbench.calibration.validation.servers import Server
from kvbench.fleet.fleet import FleetServer
from kvbench.fleet.result import FleetResult
from kvbench.fleet.state import OUTCOMES
from kvbench.results.columns import COMPLETED
from kvbench.strategy.paged import Paged
from kvbench.timing.doubt import REPLAYS, doubt_of
from kvbench.timing.shapes import AS_IT_IS, Factors
from kvbench.workload.contents import Contents
from kvbench.workload.request import NS_PER_S
from kvbench.workload.trace_columns import TraceColumns


class JudgedTimes(NamedTuple):
    """Requests of a simulation that are judged, in seconds, an entry a request.

    Args:
        ttft: from its arrival, or its sending, to its first token.
        tpot: a token after the first one, in the mean; NaN where there is none.
        latency: to its last token.
        finish: when that was, from the first arrival.
        outputs: tokens.
    """

    ttft: NDArray[np.float64]
    tpot: NDArray[np.float64]
    latency: NDArray[np.float64]
    finish: NDArray[np.float64]
    outputs: NDArray[np.float64]


def judged_points(
    points: Iterable[ServingPoint], server_of: Callable[[ServingPoint], Server], replays: int = REPLAYS
) -> Judged:
    """Each reported figure beside ours.

    Args:
        points: measurements.
        server_of: what serves one; a ValueError of it says why none does, and the point is not told.
        replays: simulations with other times of work, from which our intervals come; 0: there are none.
    """
    parts, not_told = [], []
    for point in points:
        try:
            server = server_of(point)
            parts.append(_rows(point, server.group, *simulated(point, server.fleet, replays)))
        except ValueError as error:
            not_told.append(f"{point.what} is not told: {error}")
    empty = held_rows(what=[], kind="", group=[], region=[], unit="", published=[], ours=[])
    return Judged(pd.concat([empty, *parts], ignore_index=True), tuple(not_told))


def simulated(point: ServingPoint, fleet: FleetServer, replays: int = 0) -> tuple[JudgedTimes, list[JudgedTimes]]:
    """What the requests of a point come to, those that are judged; and in replays with other times of work.

    Raises:
        ValueError: a request does not end, or is refused.
    """
    columns = _with_texts(fleet.arriving(point.columns), fleet)
    strategy = fleet.fitted(Paged(), columns, fleet.memory_bytes)

    def times(factors: Factors) -> JudgedTimes:
        result = fleet.run(columns, strategy, fleet.memory_bytes, factors=factors)
        ended = result.outcome == OUTCOMES.index(COMPLETED)
        if not ended.all():
            lost = OUTCOMES[int(result.outcome[~ended][0])]
            raise ValueError(f"{int((~ended).sum()):,} of its {ended.size:,} requests end as {lost} here")
        return _times(result, _judged(point))

    return times(AS_IT_IS), [times(factors) for factors in doubt_of(fleet.machine).draws(replays)]


def _with_texts(columns: TraceColumns, fleet: FleetServer) -> TraceColumns:
    """Requests whose texts nobody knows, each with one of its own, where the engine keeps blocks: who was preempted
    finds those that it had."""
    geometry = fleet.geometry
    is_unlike = geometry.state_bytes or any(group.tokens for group in geometry.groups)
    if columns.contents is not None or is_unlike or not fleet.serving.caches_prefixes:
        return columns
    return replace(columns, contents=Contents.unshared(columns.num_prompt_tokens, columns.num_output_tokens))


def _judged(point: ServingPoint) -> NDArray[np.bool_]:
    return np.ones(point.columns.num_requests, np.bool_) if point.judged is None else point.judged


def _times(result: FleetResult, judged: NDArray[np.bool_]) -> JudgedTimes:
    arrival, first, finish = (
        each[judged] / NS_PER_S for each in (result.arrival_ns, result.first_token_ns, result.finish_ns)
    )
    outputs = result.output_tokens[judged].astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(outputs > 1, (finish - first) / (outputs - 1), np.nan)
    return JudgedTimes(first - arrival, tpot, finish - arrival, finish - result.arrival_ns[0] / NS_PER_S, outputs)


def figure_of(times: JudgedTimes, kind: str, num_clients: int | None) -> float:
    """A figure of a simulation, by its kind.

    Args:
        times: of the requests that are judged.
        kind: see `points.kind_of`.
        num_clients: of a closed loop, whose throughput is told from its mean times; None: of no such loop.
    """
    if kind == LAST_FINISH:
        return float(times.finish.max())
    if kind in UNITS:
        if num_clients is not None:
            per_s = num_clients / float(np.mean(times.latency))
        else:
            per_s = times.finish.size / float(times.finish.max())
        return per_s * float(np.mean(times.outputs)) if kind == THROUGHPUT else per_s
    measure, _, statistic = kind.partition("_")
    values = getattr(times, measure)
    values = values[np.isfinite(values)]
    if not values.size:
        return float("nan")
    return float(np.percentile(values, int(statistic[1:]))) if statistic else float(values.mean())


def _rows(point: ServingPoint, group: str, times: JudgedTimes, replays: list[JudgedTimes]) -> pd.DataFrame:
    num_clients = point.columns.num_clients if point.by_formula else None
    said: dict[str, Any] = {"group": group, "region": point.region, "held_out": point.held_out, "judges": point.judges}
    parts = []
    for kind, published in point.reported.items():
        ours, unit = figure_of(times, kind, num_clients), UNITS.get(kind, "s")
        low, high = drawn_ends(kind, ours, [figure_of(each, kind, num_clients) for each in replays])
        parts.append(
            held_rows(
                **said, what=[point.what], kind=kind, unit=unit, published=[published], ours=[ours], low=low, high=high
            )
        )
    for measure, reported in (point.by_request or {}).items():
        own = getattr(times, measure)
        told = np.isfinite(reported) & (reported > 0) & np.isfinite(own)
        places = np.flatnonzero(_judged(point))[told] + 1
        low, high = drawn_ends(measure, own[told], [getattr(each, measure)[told] for each in replays])
        parts.append(
            held_rows(
                **said,
                what=[f"{point.what}, request {place:,}" for place in places],
                kind=f"{measure}{OF_REQUEST}",
                unit="s",
                published=reported[told],
                ours=own[told],
                low=low,
                high=high,
            )
        )
    return pd.concat(parts, ignore_index=True)
