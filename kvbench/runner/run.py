"""Run strategies on requests: repetitions, interleaved between strategies, and one clock for each run of requests."""

import math
from collections.abc import Callable, Mapping, Sequence

from kvbench.backend.base import Backend
from kvbench.checks import check_int
from kvbench.ledger import LedgerError, Limits
from kvbench.ledger.costs import as_held
from kvbench.plan.area import DEVICE, Native
from kvbench.plan.ops import BadOperation
from kvbench.results.provenance import origin
from kvbench.runner.busy import busy_facts
from kvbench.runner.recorder import Recorder
from kvbench.runner.scheduler import Scheduler
from kvbench.runner.tiers import tier_rows
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


def run(
    strategies: Mapping[str, Strategy],
    sessions: Sequence[Session],
    backend: Backend,
    *,
    num_repetitions: int,
    num_warmup: int,
    max_concurrency: int,
    budget_bytes: int | None,
    num_clients: int | None = None,
    on_iteration: Callable[[str, int, int], None] | None = None,
    recorder: Recorder | None = None,
) -> Recorder:
    """Run every strategy on the same requests, so often, on one backend.

    Repetition by repetition, each strategy once, starting with another one each time: a drift of the machine's speed
    falls on all alike.

    Args:
        strategies: by name.
        sessions: in order of arrival.
        backend: where plans are carried out.
        num_repetitions: after warm-up, > 0.
        num_warmup: repetitions before those, recorded and flagged, >= 0.
        max_concurrency: requests live at once, > 0.
        budget_bytes: what all live requests may hold together; None for no limit.
        num_clients: who send the sessions, as `Workload` says.
        on_iteration: called after each pass over the live requests, with strategy, repetition and tokens appended.
        recorder: an empty one, for whoever wants its rows even if something ends the run; None makes one.
    Returns:
        The raw rows.
    Raises:
        ValueError: a number is out of its range, or there is nothing to run.
    """
    _check(strategies, sessions, num_repetitions, num_warmup, max_concurrency)
    check_signals(strategies, backend)
    limits = limits_of(sessions, backend, max_concurrency, budget_bytes)
    strategies = {name: strategy.fitted_to_serve(limits) for name, strategy in strategies.items()}
    check_signals(strategies, backend)
    _prepare(strategies, sessions, backend, budget_bytes)
    recorder = recorder or Recorder(tuple(strategies), num_warmup)
    recorder.facts |= {name: facts_of(name, own, backend, budget_bytes) for name, own in strategies.items()}
    for name, strategy in strategies.items():  # first, so that what a profiler fails of costs no measurement
        recorder.facts[name] |= busy_facts(strategy, sessions, backend, budget_bytes)
    order = list(enumerate(strategies.items()))
    for repetition in range(num_warmup + num_repetitions):
        first = repetition % len(order)
        for index, (name, strategy) in order[first:] + order[:first]:
            ledger = strategy.ledger(backend.geometry, budget_bytes, backend.num_rows)
            backend.begin_repetition(strategy.areas)
            own = (repetition, index)
            batch = Scheduler(strategy, sessions, backend, ledger, recorder, own, max_concurrency, num_clients)
            try:
                _run_once(batch, name, repetition, on_iteration)
            finally:
                backend.end_repetition()
            recorder.allocator.append({"repetition": repetition, "strategy": index} | backend.allocator_peaks())
            recorder.tiers += tier_rows(own, ledger, backend)
            left = ledger.held_bytes - ledger.fixed_bytes
            assert left == 0, f"{name} left {left} bytes allocated"
    return recorder


def _prepare(
    strategies: Mapping[str, Strategy], sessions: Sequence[Session], backend: Backend, budget_bytes: int | None
) -> None:
    """Tell the backend the longest append and the longest cache that can come."""
    largest_append = max(session.num_prefill_tokens(turn) for session in sessions for turn in range(len(session.turns)))
    longest = max(session.num_tokens for session in sessions)
    areas = [area for strategy in strategies.values() for area in strategy.areas]
    if budget_bytes is not None and all(area.tier == DEVICE and area.format == Native() for area in areas):
        longest = min(longest, budget_bytes // backend.slot_bytes)  # no cache will be longer
    # A prefill after a preemption, or without a cache, appends all at once.
    backend.prepare(longest if any(s.recomputes for s in strategies.values()) else largest_append, longest)


def _run_once(
    batch: Scheduler, name: str, repetition: int, on_iteration: Callable[[str, int, int], None] | None
) -> None:
    """One strategy, one repetition; what ends it says which."""
    try:
        for num_tokens in batch.iterations():
            if on_iteration is not None:
                on_iteration(name, repetition, num_tokens)
    except (LedgerError, BadOperation) as error:
        raise LedgerError(f"strategy {name} planned what cannot be done: {error}") from error
    except Exception as error:
        error.add_note(f"while strategy {name} ran, repetition {repetition}")
        raise


def facts_of(name: str, strategy: Strategy, backend: Backend, budget_bytes: int | None) -> dict[str, object]:
    """What a strategy is in a run, and where its times come from, by column of the summary.

    Args:
        name: in the run.
        strategy: with nothing left to the run.
        backend: where its plans are carried out.
        budget_bytes: what live requests may hold together; None for no limit.
    """
    pools = strategy.ledger(backend.geometry, num_rows=backend.num_rows).pool_bytes
    found = origin(backend.hardware, backend.scope, name) | strategy.facts(backend.geometry)
    found["pool_bytes"] = sum(pools.values())
    if backend.hardware is not None:
        found["num_accelerators"] = backend.num_accelerators
    if budget_bytes is not None:
        found["available_bytes"] = budget_bytes
    if any(area.is_staged for area in as_held(strategy.areas, backend.geometry)):
        found["roofline_share"] = math.nan  # its reads move other bytes than a token's
    return found


def limits_of(sessions: Sequence[Session], backend: Backend, max_concurrency: int, budget_bytes: int | None) -> Limits:
    """What a run on these requests knows that its strategies do not. Who thinks between turns keeps its cache."""
    thinks = any(turn.think_ns for session in sessions for turn in session.turns)
    lengths = sorted((session.num_tokens for session in sessions), reverse=True)
    return Limits(
        geometry=backend.geometry,
        budget_bytes=budget_bytes,
        num_rows=backend.num_rows,
        live_tokens=tuple(lengths if thinks else lengths[:max_concurrency]),
        is_modelled=backend.source == "modelled",
        has_own_pools=backend.has_own_pools,
        step_tokens=backend.scheduling.tokens,
        load_times=backend.load_times,
        state_interval=backend.state_interval,
        window_interval=backend.window_interval,
        state_block_tokens=backend.state_block_tokens,
        caches_prefixes=backend.caches_prefixes and any(session.keys is not None for session in sessions),
    )


def check_signals(strategies: Mapping[str, Strategy], backend: Backend) -> None:
    """Refuse a strategy that needs to be told what the backend cannot tell, or to live where it does not hold layers.

    Raises:
        ValueError: there is such a strategy.
    """
    for name, strategy in strategies.items():
        missing = [signal for signal in strategy.signals if signal not in backend.signals]
        if missing:
            supplied = ", ".join(backend.signals) or f"none{backend.why_no_signals}"
            raise ValueError(
                f"{name} needs attention to tell it: {', '.join(missing)}; backend {backend.source} supplies {supplied}"
            )
        try:
            backend.check_areas(strategy.areas)
            backend.check_tiers(strategy.tier_bytes, strategy.areas)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _check(
    strategies: Mapping[str, Strategy],
    sessions: Sequence[Session],
    num_repetitions: int,
    num_warmup: int,
    max_concurrency: int,
) -> None:
    if not strategies:
        raise ValueError("no strategy to run: name at least one, such as strategy=dynamic")
    if not sessions:
        raise ValueError("no request to run: the scenario yields none")
    for name, value, least in (
        ("repetitions", num_repetitions, 1),
        ("warmup", num_warmup, 0),
        ("scenario.max_concurrency", max_concurrency, 1),
    ):
        check_int(name, value, least)
