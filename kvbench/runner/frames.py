"""From the recorder's raw rows to the frames that are saved: a row a step, and a row a request."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from kvbench.backend.base import Backend
from kvbench.engine.tiers import BELOW
from kvbench.results.columns import LIMITS, UNREACHED
from kvbench.results.results import Results
from kvbench.results.schema import REQUESTS, STEPS
from kvbench.results.summary import (
    REQUEST,
    RUN,
    SESSION,
    US_PER_S,
    iteration_ends,
    iteration_starts,
    output_tokens,
    summary_frame,
)
from kvbench.runner.doubted import with_doubt
from kvbench.runner.recorder import PHASES, STEP_FIELDS, Recorder, RequestRow
from kvbench.timing.prices import PS_PER_S
from kvbench.workload.request import NS_PER_S, Session

NS_PER_US = 1_000


def results_of(
    recorder: Recorder,
    sessions: Sequence[Session],
    backend: Backend,
    scenario: str,
    *,
    machine: Mapping[str, Any] | None = None,
    about: Mapping[str, Mapping[str, object]] | None = None,
) -> Results:
    """What a run leaves; its environment is what the machine says of itself.

    Args:
        recorder: the raw rows.
        sessions: what was asked for, by number.
        backend: what carried it out.
        scenario: its name.
        machine: from `describe` of the backend; without its copy bandwidth the roofline's column is empty.
        about: further columns of a strategy's row of the summary, by its name: what a probe found.
    """
    steps = steps_frame(recorder)
    by_request = requests_frame(recorder, steps, sessions)
    machine, about = machine or {}, about or {}
    summary = summary_frame(
        steps,
        by_request,
        scenario=scenario,
        source=backend.source,
        scope=backend.scope,
        slot_bytes=backend.slot_bytes,
        copy_bandwidth_bytes_per_s=float(machine.get("copy_bandwidth_bytes_per_s", math.nan)),
        allocator=_of_repetitions(recorder, recorder.allocator),
        tiers=_of_repetitions(recorder, recorder.tiers),
        about={name: facts | dict(about.get(name, {})) for name, facts in recorder.facts.items()},
    )
    summary, replays = with_doubt(summary, steps, backend)
    return Results(summary=summary, requests=by_request, steps=steps, replays=replays, environment=machine)


def _of_repetitions(recorder: Recorder, rows: Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """Rows of strategies and repetitions, warm-up left out: of the device allocator's peaks, and of tiers."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    frame = frame[frame["repetition"] >= recorder.num_warmup]
    return frame.assign(strategy=[recorder.strategies[index] for index in frame["strategy"]])


def steps_frame(recorder: Recorder) -> pd.DataFrame:
    """A row a step, columns as in schema.STEPS."""
    frame = pd.DataFrame(recorder.steps(), columns=list(STEP_FIELDS))
    for name in [name for name in STEP_FIELDS if name.endswith("_ns")]:
        frame[name.removesuffix("_ns") + "_us"] = frame.pop(name) / NS_PER_US
    frame["strategy"] = pd.Categorical.from_codes(frame["strategy"], categories=pd.Index(recorder.strategies))
    frame["phase"] = pd.Categorical.from_codes(frame["phase"], categories=pd.Index(PHASES))
    frame["limit"] = pd.Categorical.from_codes(frame["limit"], categories=pd.Index(LIMITS))
    frame["warmup"] = frame["repetition"] < recorder.num_warmup
    frame["step_us"] = np.maximum(
        frame[["reserve_us", "append_us", "move_us", "attend_us", "model_us"]].sum(axis=1), frame["host_us"]
    )
    passed_us = (frame["step_us"] + frame["idle_us"]).groupby([frame[key] for key in RUN], observed=True).cumsum()
    frame["end_s"] = passed_us / US_PER_S
    return frame[list(STEPS)]


def requests_frame(recorder: Recorder, steps: pd.DataFrame, sessions: Sequence[Session]) -> pd.DataFrame:
    """A row a request and repetition, columns as in schema.REQUESTS.

    A request ends, as its tokens are out, when the iteration of its last step ends; a session's next one arrives then,
    or when its think time is over.

    Args:
        recorder: how each request ended.
        steps: from `steps_frame`.
        sessions: what was asked for, by number.
    """
    frame = pd.DataFrame([_ended(row, recorder, sessions[row.sequence]) for row in recorder.requests])
    frame["warmup"] = frame["repetition"] < recorder.num_warmup
    frame["strategy"] = frame["strategy"].astype(steps["strategy"].dtype)
    frame = frame.set_index(REQUEST).sort_index()
    timed = steps.assign(in_s=iteration_starts(steps), out_s=iteration_ends(steps))
    own = timed[steps["num_tokens"] > 0].groupby(REQUEST, observed=True)
    frame["peak_bytes"] = own["request_bytes"].max()
    end_s = own["out_s"].max().reindex(frame.index)
    before_s = end_s.groupby(level=SESSION, observed=True).shift()
    frame["arrival_s"] = frame.pop("known_s").fillna(before_s + frame.pop("think_s"))
    frame.loc[frame["outcome"] == UNREACHED, "arrival_s"] = math.nan
    frame["queue_s"] = (own["in_s"].first() - frame["arrival_s"]).clip(lower=0)  # what a sum of floats leaves below
    tokens = output_tokens(steps).groupby(REQUEST, observed=True)
    frame["ttft_s"] = tokens["token_s"].min() - frame["arrival_s"]
    frame["tpot_s"] = tokens["itl_s"].mean()
    frame["latency_s"] = end_s - frame["arrival_s"]
    order = ["repetition", "strategy", "session", "turn"]
    return frame.reset_index().sort_values(order, ignore_index=True)[list(REQUESTS)]


def _ended(row: RequestRow, recorder: Recorder, session: Session) -> dict[str, object]:
    request = session.turns[row.own_turn]
    return {
        "repetition": row.repetition,
        "strategy": recorder.strategies[row.strategy],
        "session": row.session,
        "turn": row.turn,
        "outcome": row.outcome,
        "known_s": math.nan if row.own_turn else row.arrival_ns / NS_PER_S,
        "think_s": request.think_ns / NS_PER_S,
        "prompt_tokens": request.num_append_tokens,
        "output_tokens": request.num_decode_tokens,
        "held_tokens": row.held_tokens,
        "hit_tokens": row.hit_tokens,
        **{f"{tier}_tokens": row.loaded_tokens.get(tier, 0) for tier in BELOW},
        "load_wait_s": row.load_wait_ps / PS_PER_S,
        "num_preemptions": row.num_preemptions,
    }
