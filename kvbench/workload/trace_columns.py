"""A trace in memory: one array a column, never an object a request."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class TraceColumns:
    """A trace, one entry a request in each array, in order of arrival.

    Args:
        arrival_ns: int64 nanoseconds after the first arrival; None where the trace has no times.
        num_prompt_tokens: int64, each >= 1.
        num_output_tokens: int64, each >= 0.
        block_ids: int64 ids of the prompts' blocks, request after request; equal ids from a prompt's start
            are a shared prefix. None where the trace has none.
        block_offsets: int64, one more than requests: request i has `block_ids[offsets[i]:offsets[i + 1]]`.
        block_tokens: tokens a block; a prompt's last block may be filled in part.
    """

    arrival_ns: NDArray[np.int64] | None
    num_prompt_tokens: NDArray[np.int64]
    num_output_tokens: NDArray[np.int64]
    block_ids: NDArray[np.int64] | None = None
    block_offsets: NDArray[np.int64] | None = None
    block_tokens: int | None = None

    @property
    def num_requests(self) -> int:
        """Requests in the trace."""
        return self.num_prompt_tokens.size

    def by_arrival(self) -> "TraceColumns":
        """Sort by arrival, equal arrivals in their present order, and count time from the first."""
        order = np.argsort(self.arrival_ns, kind="stable")
        ids, offsets = self.block_ids, self.block_offsets
        if offsets is not None:
            counts = np.diff(offsets)[order]
            ends = np.cumsum(counts)
            # Entry j of a request's ids moves by the difference of the request's old and new first entry.
            ids = ids[np.repeat(offsets[:-1][order] - (ends - counts), counts) + np.arange(ids.size)]
            offsets = np.concatenate(([0], ends))
        return replace(
            self,
            arrival_ns=self.arrival_ns[order] - self.arrival_ns.min(),
            num_prompt_tokens=self.num_prompt_tokens[order],
            num_output_tokens=self.num_output_tokens[order],
            block_ids=ids,
            block_offsets=offsets,
        )
