"""A trace in memory: one array a column, never an object a request."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import Contents

OF_ROWS = ("arrival_ns", "num_prompt_tokens", "num_output_tokens", "sessions", "turns", "think_ns", "tenants")
OFFSETS = {"block_ids": "block_offsets", "parents": "parent_offsets"}
"""Where a request's own begin, of columns that have any number of entries a request."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceColumns:
    """A trace, one entry a request (a turn) in each array, in order of arrival, and parents before who follows them.

    A request that follows others begins when all of them have ended and its think time is over, and not before its
    arrival; its prompt is whole, history included.

    Args:
        arrival_ns: int64 nanoseconds after the first arrival; None where the trace has no times.
        num_prompt_tokens: int64, each >= 1.
        num_output_tokens: int64, each >= 0.
        block_ids: int64 ids of the prompts' blocks, request after request; equal ids from a prompt's start
            are a shared prefix. None where the trace has none.
        block_offsets: int64, one more than requests: request i has `block_ids[offsets[i]:offsets[i + 1]]`.
        block_tokens: tokens a block; a prompt's last block may be filled in part.
        num_clients: who send them in this order, each the next one when its last has ended; None: they arrive at
            their times.
        sessions: int64; the conversation, or the agent's work, that a request is a turn of, counted from 0; None: each
            is its own.
        turns: int64; its number in that, from 0; None: all are first ones.
        parents: int64; the requests that one follows, by number, one request's after another's; None: nobody follows.
        parent_offsets: int64, one more than requests: request i follows `parents[offsets[i]:offsets[i + 1]]`.
        think_ns: int64; nanoseconds between the end of the last of them and its arrival; None: none.
        contents: what prompts and answers share; None: `block_ids` say it of prompts, or nothing is shared.
        tenants: int64; whose requests they are; None: one tenant's.
        notes: what was assumed when the trace was read, in sentences.
    """

    arrival_ns: NDArray[np.int64] | None
    num_prompt_tokens: NDArray[np.int64]
    num_output_tokens: NDArray[np.int64]
    block_ids: NDArray[np.int64] | None = None
    block_offsets: NDArray[np.int64] | None = None
    block_tokens: int | None = None
    num_clients: int | None = None
    sessions: NDArray[np.int64] | None = None
    turns: NDArray[np.int64] | None = None
    parents: NDArray[np.int64] | None = None
    parent_offsets: NDArray[np.int64] | None = None
    think_ns: NDArray[np.int64] | None = None
    contents: Contents | None = None
    tenants: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()

    @property
    def num_requests(self) -> int:
        """Requests in the trace."""
        return self.num_prompt_tokens.size

    @property
    def arrivals_ns(self) -> NDArray[np.int64]:
        """The arrivals of a trace that has them.

        Raises:
            ValueError: it has none.
        """
        if self.arrival_ns is None:
            raise ValueError("requests arrive at moments here, and this trace has none: give it arrivals")
        return self.arrival_ns

    def first(self, num_requests: int) -> "TraceColumns":
        """The first so many requests, or all where there are no more; whom they follow are among them."""
        if num_requests >= self.num_requests:
            return self
        return self._taken(np.arange(num_requests))

    @property
    def session_numbers(self) -> NDArray[np.int64]:
        """The number of each request's session, by when its first request comes."""
        if self.sessions is None:
            return np.arange(self.num_requests)
        _, firsts, own = np.unique(self.sessions, return_index=True, return_inverse=True)
        return np.argsort(np.argsort(firsts))[own]

    @property
    def goes_on(self) -> NDArray[np.bool_]:
        """Whether another request of the same session comes after each."""
        numbers = self.session_numbers
        latest = np.zeros(numbers.max(initial=-1) + 1, np.int64)
        latest[numbers] = np.arange(numbers.size)
        comes: NDArray[np.bool_] = latest[numbers] > np.arange(numbers.size)
        return comes

    def first_sessions(self, num_sessions: int) -> "TraceColumns":
        """The requests of the first so many sessions, or all where there are no more."""
        rows = np.flatnonzero(self.session_numbers < num_sessions)
        if rows.size == self.num_requests:
            return self
        return self._moved(rows)

    def after_sessions(self, num_sessions: int) -> "TraceColumns":
        """The requests of all sessions but the first so many; time is counted from the first of them."""
        taken = self._moved(np.flatnonzero(self.session_numbers >= num_sessions))
        if taken.arrival_ns is None or not taken.arrival_ns.size:
            return taken
        return replace(taken, arrival_ns=taken.arrival_ns - taken.arrival_ns.min())

    @property
    def period_ns(self) -> int:
        """From one beginning to the next of a trace that is repeated: to the last arrival, and a mean gap more."""
        return round(int(self.arrivals_ns[-1]) * self.num_requests / max(self.num_requests - 1, 1))

    def stretch(self, first: int, stop: int) -> "TraceColumns":
        """Requests first to stop - 1 of the trace repeated without end, as `repeated` has them, without block ids.

        Whom one follows is said by its number in the trace repeated, and may come before the first.
        """
        copies, own = np.divmod(np.arange(first, stop), self.num_requests)
        taken = replace(self, block_ids=None, block_offsets=None)._taken(own, copies)
        return replace(taken, arrival_ns=self.arrivals_ns[own] + copies * self.period_ns)

    def repeated(self, times: int, period_ns: int | None = None) -> "TraceColumns":
        """The trace so many times, one after another. Copies share nothing where contents say what is shared, and then
        have no block ids; where these alone say it, their ids are the same.

        Args:
            times: how often, > 0.
            period_ns: from one beginning to the next; None: the trace's own.
        """
        copies = np.repeat(np.arange(times), self.num_requests)
        taken = self._taken(np.tile(np.arange(self.num_requests), times), copies)
        if taken.arrival_ns is None:
            return taken
        period_ns = self.period_ns if period_ns is None else period_ns
        return replace(taken, arrival_ns=taken.arrival_ns + copies * period_ns)

    def by_arrival(self) -> "TraceColumns":
        """Sort by arrival, equal arrivals in their present order, and count time from the first.

        Raises:
            ValueError: a request arrives before one that it follows.
        """
        order = np.argsort(self.arrivals_ns, kind="stable")
        taken = self._moved(order)
        parents, offsets = taken.parents, taken.parent_offsets
        if parents is not None and offsets is not None:
            late = np.flatnonzero(parents >= np.repeat(np.arange(order.size), np.diff(offsets)))
            if late.size:
                child = int(np.searchsorted(offsets, late[0], side="right")) - 1
                raise ValueError(
                    f"request {order[child]} arrives before request {order[parents[late[0]]]}, which it follows"
                )
        return replace(taken, arrival_ns=self.arrivals_ns[order] - self.arrivals_ns.min())

    def _moved(self, own: NDArray[np.int64]) -> "TraceColumns":
        """These requests in this order, with all whom they follow among them."""
        taken = self._taken(own)
        if taken.parents is None:
            return taken
        places = np.zeros(self.num_requests, np.int64)
        places[own] = np.arange(own.size)
        return replace(taken, parents=places[taken.parents])

    def _taken(self, own: NDArray[np.int64], copies: NDArray[np.int64] | None = None) -> "TraceColumns":
        """These requests in this order, each of one of the trace's copies; arrivals are those of the trace."""
        if copies is not None and self.contents is not None and self.block_ids is not None:
            return replace(self, block_ids=None, block_offsets=None)._taken(own, copies)
        changes: dict[str, Any] = {name: values[own] for name in OF_ROWS if (values := getattr(self, name)) is not None}
        for name, offsets in (("block_ids", self.block_offsets), ("parents", self.parent_offsets)):
            values = getattr(self, name)
            if values is not None and offsets is not None:
                counts = np.diff(offsets)[own]
                ends = np.cumsum(counts)
                # Entry j of a request's values moves by the difference of the request's old and new first entry.
                values = values[np.repeat(offsets[:-1][own] - (ends - counts), counts) + np.arange(counts.sum())]
                if name == "parents" and copies is not None:
                    values = values + np.repeat(copies, counts) * self.num_requests
                changes |= {name: values, OFFSETS[name]: np.concatenate(([0], ends))}
        if self.sessions is not None and copies is not None and self.sessions.size:
            changes["sessions"] = changes["sessions"] + copies * (int(self.sessions.max()) + 1)
        if self.contents is not None:
            changes["contents"] = self.contents.of(own, 0 if copies is None else copies)
        return replace(self, **changes)
