"""A trace in memory: one array a column, never an object a request."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import Contents


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
        """The first so many requests, or all where there are no more."""
        if num_requests >= self.num_requests:
            return self
        ids, offsets = self.block_ids, self.block_offsets
        if ids is not None and offsets is not None:
            offsets = offsets[: num_requests + 1]
            ids = ids[: offsets[-1]]
        return replace(
            self,
            arrival_ns=None if self.arrival_ns is None else self.arrival_ns[:num_requests],
            num_prompt_tokens=self.num_prompt_tokens[:num_requests],
            num_output_tokens=self.num_output_tokens[:num_requests],
            block_ids=ids,
            block_offsets=offsets,
        )

    @property
    def period_ns(self) -> int:
        """From one beginning to the next of a trace that is repeated: to the last arrival, and a mean gap more."""
        return round(int(self.arrivals_ns[-1]) * self.num_requests / max(self.num_requests - 1, 1))

    def stretch(self, first: int, stop: int) -> "TraceColumns":
        """Requests first to stop - 1 of the trace repeated without end, as `repeated` has them, prefixes left out."""
        turns, own = np.divmod(np.arange(first, stop), self.num_requests)
        return TraceColumns(
            arrival_ns=self.arrivals_ns[own] + turns * self.period_ns,
            num_prompt_tokens=self.num_prompt_tokens[own],
            num_output_tokens=self.num_output_tokens[own],
        )

    def repeated(self, times: int, period_ns: int | None = None) -> "TraceColumns":
        """The trace so many times, one after another.

        Args:
            times: how often, > 0.
            period_ns: from one beginning to the next; None: the trace's own.
        """
        counts = np.arange(times)
        arrival_ns, ids, offsets = self.arrival_ns, self.block_ids, self.block_offsets
        if arrival_ns is not None:
            period_ns = self.period_ns if period_ns is None else period_ns
            arrival_ns = (arrival_ns + counts[:, None] * period_ns).ravel()
        if ids is not None and offsets is not None:
            ids = np.tile(ids, times)
            offsets = np.append((offsets[:-1] + counts[:, None] * offsets[-1]).ravel(), times * offsets[-1])
        return replace(
            self,
            arrival_ns=arrival_ns,
            num_prompt_tokens=np.tile(self.num_prompt_tokens, times),
            num_output_tokens=np.tile(self.num_output_tokens, times),
            block_ids=ids,
            block_offsets=offsets,
        )

    def by_arrival(self) -> "TraceColumns":
        """Sort by arrival, equal arrivals in their present order, and count time from the first."""
        order = np.argsort(self.arrivals_ns, kind="stable")
        ids, offsets = self.block_ids, self.block_offsets
        if ids is not None and offsets is not None:
            counts = np.diff(offsets)[order]
            ends = np.cumsum(counts)
            # Entry j of a request's ids moves by the difference of the request's old and new first entry.
            ids = ids[np.repeat(offsets[:-1][order] - (ends - counts), counts) + np.arange(ids.size)]
            offsets = np.concatenate(([0], ends))
        return replace(
            self,
            arrival_ns=self.arrivals_ns[order] - self.arrivals_ns.min(),
            num_prompt_tokens=self.num_prompt_tokens[order],
            num_output_tokens=self.num_output_tokens[order],
            block_ids=ids,
            block_offsets=offsets,
        )
