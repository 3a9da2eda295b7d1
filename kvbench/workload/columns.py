"""A scenario's requests as columns, for simulations of very many."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kvbench.workload.request import Session
from kvbench.workload.scenario import Scenario
from kvbench.workload.trace import Trace
from kvbench.workload.trace_columns import TraceColumns


def scenario_columns(scenario: Scenario, rng: np.random.Generator) -> TraceColumns:
    """The requests of a scenario; a trace is read whole and as columns, never request by request.

    Args:
        scenario: the workload.
        rng: what it is drawn with.
    Raises:
        ValueError: its requests have several turns, or share prompts; or a trace is not of its format.
        FileNotFoundError: its trace is missing.
    """
    if isinstance(scenario, Trace):
        return scenario.columns(rng)
    workload = scenario.workload(rng)
    return replace(columns_of(workload.sessions), num_clients=workload.num_clients)


def columns_of(sessions: Sequence[Session]) -> TraceColumns:
    """Requests of one turn each, as columns.

    Raises:
        ValueError: a request has several turns, or is one of several samples of a prompt.
    """
    for number, session in enumerate(sessions):
        if len(session.turns) > 1:
            raise ValueError(
                f"a fleet takes requests of one turn, and request {number} has {len(session.turns)}; "
                "backend=modelled runs them all"
            )
        if session.group is not None:
            raise ValueError(f"a fleet does not share the prompts of samples (request {number}); backend=modelled does")
    turns = [session.turns[0] for session in sessions]
    return TraceColumns(
        arrival_ns=np.array([session.arrival_ns for session in sessions], dtype=np.int64),
        num_prompt_tokens=np.array([turn.num_append_tokens for turn in turns], dtype=np.int64),
        num_output_tokens=np.array([turn.num_decode_tokens for turn in turns], dtype=np.int64),
    )
