"""A recorded workload served again, step by step, by runner and fleet; and the first step that differs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kvbench.backend.counted import CountedBackend
from kvbench.calibration.validation.kernels import Judged
from kvbench.calibration.validation.recordings import RecordedSchedule, Step
from kvbench.calibration.validation.rows import held_rows
from kvbench.engine.scheduling import Scheduling
from kvbench.engine.vllm import VLLM
from kvbench.ledger import Limits
from kvbench.messages import cut
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import FULL, RECURRENT, STATE, WINDOW, LayerGroup, StateTensor
from kvbench.runner.recorder import FINISH, STEP_FIELDS, Recorder
from kvbench.runner.scheduler import Scheduler
from kvbench.strategy.base import Strategy
from kvbench.strategy.paged import LATE, Paged
from kvbench.workload.contents import Keys
from kvbench.workload.request import Request, Session

STEP_NS = 1_000
FLEET_BYTES = 2**40
"""More than any recorded pool has."""
SHOWN = 200
"""Characters of what was done in a step that are shown."""


class Replayed(NamedTuple):
    """What became of a recorded workload.

    Args:
        steps: in order.
        queried_tokens: of prompts, as they were first admitted.
        hit_tokens: of those, found.
    """

    steps: tuple[Step, ...]
    queried_tokens: int
    hit_tokens: int


def _rules(recording: RecordedSchedule) -> Scheduling:
    """The rules that a workload was recorded under."""
    sizes = recording.sizes
    return VLLM(
        version=recording.version,
        max_num_batched_tokens=sizes["max_num_batched_tokens"],
        max_num_seqs=sizes["max_num_seqs"],
    ).scheduling


def _strategy(recording: RecordedSchedule) -> Strategy:
    """The pool that it was recorded with."""
    sizes = recording.sizes
    block = sizes["block_size"]
    made = Paged(
        block_size=block,
        pool_tokens=(sizes["num_blocks"] - 1) * block,
        window_blocks=LATE,
        prefix_caching=recording.prefix_caching,
    )
    limits = Limits(
        geometry=_geometry(sizes),
        budget_bytes=None,
        context_tokens=sizes["max_model_len"],
        is_modelled=True,
        step_tokens=sizes["max_num_batched_tokens"],
        state_interval=sizes["state_interval"],
        window_interval=sizes["window_interval"],
    )
    return made.fitted(limits)


def replayed(recording: RecordedSchedule) -> Replayed:
    """Serve a recorded workload by the rules that it was recorded under, in steps of equal length."""
    sizes, strategy = recording.sizes, _strategy(recording)
    geometry = _geometry(sizes)
    ledger, recorder = strategy.ledger(geometry), Recorder(("paged",), 0)
    backend = CountedBackend(geometry, STEP_NS, _rules(recording))
    backend.begin_repetition(strategy.areas)
    own = (0, 0)
    scheduler = Scheduler(strategy, _sessions(recording), backend, ledger, recorder, own, sizes["max_num_seqs"])
    view, ends, free = ledger.view, [], []
    for _ in scheduler.iterations():
        ends.append(scheduler.clock_ns)
        free.append((view.free_bytes() + view.idle_bytes()) // view.block_bytes())
    numbers = np.array(ends) // STEP_NS - 1
    return Replayed(
        steps=tuple(_steps(recorder, numbers.tolist(), free, sizes["num_blocks"] - 1)),
        queried_tokens=int(recording.columns.num_prompt_tokens.sum()) if recording.prefix_caching else 0,
        hit_tokens=sum(row.hit_tokens for row in recorder.requests),
    )


def _geometry(numbers: Mapping[str, int]) -> KVGeometry:
    """A layer of each group, of whatever size: blocks are all alike."""
    sizes: dict[str, Any] = {"num_heads": 1, "num_kv_heads": 1, "key_dim": 1, "value_dim": 1, "dtype": "float16"}
    groups = [LayerGroup(kind=FULL, layers=(0,), **sizes)]
    if numbers["window"]:
        groups.append(LayerGroup(kind=WINDOW, layers=(1,), tokens=numbers["window"], **sizes))
    if numbers["states"]:
        state = StateTensor(name=RECURRENT, rows=1, columns=numbers["block_size"] * groups[0].token_bytes, dtype="int8")
        groups.append(LayerGroup(kind=STATE, layers=(1,), state=(state,)))
    return KVGeometry(groups=tuple(groups), dtype="float16")


def _sessions(recording: RecordedSchedule) -> list[Session]:
    columns = recording.columns
    assert columns.contents is not None
    rows = zip(columns.arrivals_ns, columns.num_prompt_tokens, columns.num_output_tokens, strict=True)
    return [
        Session(int(step) * STEP_NS, (Request(int(prompt), int(output)),), keys=Keys(columns.contents, number))
        for number, (step, prompt, output) in enumerate(rows)
    ]


def _steps(recorder: Recorder, numbers: Sequence[int], free: Sequence[int], num_blocks: int) -> Iterator[Step]:
    """Steps, those in which nothing was done included."""
    at = {name: STEP_FIELDS.index(name) for name in ("iteration", "session", "phase", "num_tokens")}
    rows = recorder.steps()[:, list(at.values())].tolist()
    left = {session: 0 for _, session, _, _ in rows}
    for _, session, phase, _ in rows:
        left[session] += phase == FINISH
    scheduled: list[dict[int, int]] = [{} for _ in numbers]
    preempted: list[list[int]] = [[] for _ in numbers]
    for iteration, session, phase, num_tokens in rows:
        if num_tokens:
            scheduled[iteration][session] = scheduled[iteration].get(session, 0) + num_tokens
        if phase == FINISH:
            left[session] -= 1
            if left[session]:
                preempted[iteration].append(session)
    last = -1
    for iteration, number in enumerate(numbers):
        before = free[iteration - 1] if iteration else num_blocks
        yield from [Step((), (), before)] * (number - last - 1)
        last = number
        yield Step(tuple(scheduled[iteration].items()), tuple(sorted(preempted[iteration])), free[iteration])


class Difference(NamedTuple):
    """The first step in which two accounts differ.

    Args:
        step: its number.
        recorded: what was done; None: there is no such step any more.
        ours: what was done here.
    """

    step: int
    recorded: Step | None
    ours: Step | None

    def __str__(self) -> str:
        if self.recorded is None or self.ours is None:
            return f"step {self.step:,} is {'none of the recorded' if self.recorded is None else 'missing here'}"
        parts = zip(Step._fields, self.recorded, self.ours, strict=True)
        apart = [
            f"{name.replace('_', ' ')} {cut(_plain(one), SHOWN)}, ours {cut(_plain(other), SHOWN)}"
            for name, one, other in parts
            if one != other
        ]
        return f"step {self.step:,} differs: {'; '.join(apart)}"


def _plain(value: object) -> str:
    """Requests with their tokens, or numbers; what is in brackets says no more."""
    return str(list(value) if isinstance(value, tuple) else value)


def first_difference(recorded: Sequence[Step], ours: Sequence[Step]) -> Difference | None:
    """The first step that differs; None: none does."""
    for number, (one, other) in enumerate(zip_longest(recorded, ours)):
        if one != other:
            return Difference(number, one, other)
    return None


def by_fleet(recording: RecordedSchedule) -> Replayed | str:
    """As `replayed`, in a fleet of one replica; or why there is none."""
    try:
        steps = import_module("kvbench.fleet.steps")
    except ImportError as error:
        return str(error).splitlines()[0]
    watched, columns, geometry = steps.Watched(), recording.columns, _geometry(recording.sizes)
    result = import_module("kvbench.fleet").simulate(
        replace(columns, arrival_ns=columns.arrivals_ns * steps.STEP_NS),
        _strategy(recording),
        steps.steady_prices(geometry.bytes_per_token),
        geometry=geometry,
        budget_bytes=FLEET_BYTES,
        max_batch=recording.sizes["max_num_seqs"],
        scheduling=_rules(recording),
        serve=watched,
    )
    return Replayed(
        steps=tuple(Step(*step) for step in watched.steps),
        queried_tokens=result.totals.num_queried_tokens,
        hit_tokens=result.totals.num_hit_tokens,
    )


SERVERS: dict[str, Callable[[RecordedSchedule], Replayed | str]] = {"runner": replayed, "fleet": by_fleet}
"""What serves a recorded workload again, or says why it does not."""


def judged_recording(recording: RecordedSchedule) -> tuple[Judged, str]:
    """What the recorded scheduler did beside ours; and in words, equal or the first step that differs.

    Raises:
        ValueError: it is of an engine whose rules are not at hand.
    """
    if recording.engine != VLLM.name:
        raise ValueError(f"a scheduler's steps are judged of engine {VLLM.name}, got {recording.engine!r}")
    parts, said, by = [], [], f"{recording.engine} {recording.version}"
    for name, serve in SERVERS.items():
        ours = serve(recording)
        if isinstance(ours, str):
            said.append(f"{name}: {ours}")
            continue
        differs = first_difference(recording.steps, ours.steps)
        parts.append(_rows(recording, ours, differs, f"{by}, {name}"))
        found = f"{ours.hit_tokens:,} of {ours.queried_tokens:,} tokens hit"
        said.append(f"{name}: {differs or f'equal, {len(ours.steps):,} steps'}; {found}")
    num_requests = recording.columns.num_requests
    about = (
        f"{num_requests:,} requests served by {recording.engine} {recording.version} in {len(recording.steps):,} steps"
    )
    return Judged(pd.concat(parts, ignore_index=True), ()), "; ".join([about, *said])


def _rows(recording: RecordedSchedule, ours: Replayed, differs: Difference | None, group: str) -> pd.DataFrame:
    num_steps = len(recording.steps)
    figures = [
        ("equal_steps", "steps", num_steps, num_steps if differs is None else differs.step),
        ("queried_tokens", "tokens", recording.sizes["queried_tokens"], ours.queried_tokens),
        ("hit_tokens", "tokens", recording.sizes["hit_tokens"], ours.hit_tokens),
    ]
    told = [each for each in figures if each[2]]
    return held_rows(
        what=[kind.replace("_", " ") for kind, *_ in told],
        kind=[kind for kind, *_ in told],
        group=group,
        region="",
        unit=[unit for _, unit, *_ in told],
        published=[published for *_, published, _ in told],
        ours=[own for *_, own in told],
    )
