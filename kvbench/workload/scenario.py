"""Scenarios: a named workload, from one YAML file, that yields requests."""

from dataclasses import dataclass

import numpy as np

from kvbench.checks import check_int
from kvbench.workload.columns import columns_of
from kvbench.workload.request import Request, Session
from kvbench.workload.trace_columns import TraceColumns

MOST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """The base of all scenarios: what every workload has.

    Args:
        description: one line for people.
        max_requests: run the first so many requests only; None runs all.
        max_concurrency: requests that may be live at once, > 0; the others wait their turn.
        repetitions: how often a measured run repeats it unless told otherwise, > 0; fewer for what takes long.
    Raises:
        ValueError: a number is out of its range.
    """

    description: str = ""
    max_requests: int | None = None
    max_concurrency: int = 1
    repetitions: int = 5

    def __post_init__(self) -> None:
        for name in ("max_requests", "max_concurrency", "repetitions"):
            value = getattr(self, name)
            if not (name == "max_requests" and value is None):
                check_int(name, value, 1, MOST)

    def named(self, name: str) -> str:
        """What results call it, where its file has a name."""
        return name

    @property
    def num_available(self) -> int | None:
        """Sessions in the scenario before `max_requests` cuts it; None: as many as there are in `columns`."""
        return None

    def workload(self, rng: np.random.Generator) -> "Workload":
        """Draw the requests, in order of arrival, at most `max_requests` of them."""
        raise NotImplementedError

    def columns(self, rng: np.random.Generator) -> TraceColumns:
        """Draw the same requests as columns."""
        drawn = self.workload(rng)
        return columns_of(drawn.sessions, drawn.num_clients)


@dataclass(frozen=True)
class Workload:
    """The requests to run, and how many there were to choose from.

    Args:
        sessions: in order of arrival.
        num_available: sessions in the scenario before `max_requests` cut it.
        num_clients: who send them, each the next one when its last has ended; None: they arrive at their times.
        notes: what was assumed of them, in sentences.
    """

    sessions: tuple[Session, ...]
    num_available: int
    num_clients: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_sessions(self) -> int:
        """How many sessions these are, where requests are turns of them."""
        return len({number if each.place is None else each.place[0] for number, each in enumerate(self.sessions)})


@dataclass(frozen=True, kw_only=True)
class Appends(Scenario):
    """One request that appends a list of token counts, in order, and decodes nothing.

    Args:
        appends: tokens of each append, each > 0.
    Raises:
        ValueError: the list is empty, or a count is not a positive integer.
    Source: the article's workloads.
    Departs: none.
    """

    appends: tuple[int, ...] = (50, 100, 150, 200, 250, 300)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.appends, list | tuple) or not self.appends:
            raise ValueError(f"appends is a list of at least one token count, got {self.appends!r}")
        for count in self.appends:
            check_int("each of appends (tokens)", count, 1, MOST)

    def workload(self, rng: np.random.Generator) -> Workload:
        """The one request; `rng` is not used."""
        return Workload((Session(0, tuple(Request(count) for count in self.appends)),), 1)
