"""Turns to whole requests: each prompt with its history before it, and what prompts and answers share by that."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE, Contents
from kvbench.workload.trace_columns import TraceColumns

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Beginnings:
    """Texts that several sessions begin with, as stretches of one tree; see `Contents`.

    Args:
        parents: int64 [stretches]; the stretch before, NONE where a text begins.
        ends: int64 [stretches]; tokens from a text's beginning to the stretch's end.
        chosen: int64 [turns]; the stretch that a turn without history comes after, NONE: it shares nothing.
    """

    parents: Counts
    ends: Counts
    chosen: Counts


@dataclass(frozen=True, kw_only=True, eq=False)
class TurnColumns:
    """Turns of sessions by what each adds, one entry a turn, a history before what has it.

    Args:
        arrival_ns: int64; its session's arrival.
        sessions: int64; from 0.
        after: int64; the turn whose prompt and answer are its history; NONE: it has none.
        num_new_tokens: int64; of its prompt beyond its history and what the session begins with; 0 only where it has
            no history.
        num_output_tokens: int64, >= 0.
        think_ns: int64; nanoseconds between the end of those it follows and its arrival.
        parents: int64; the turns that each follows, one turn's after another's; None: it follows its history.
        parent_offsets: int64, one more than turns; None likewise.
        beginnings: what sessions begin with; None: they share nothing.
        num_clients: as in `TraceColumns`.
        tenants: int64; whose it is; None: one tenant's.
    """

    arrival_ns: Counts
    sessions: Counts
    after: Counts
    num_new_tokens: Counts
    num_output_tokens: Counts
    think_ns: Counts
    parents: Counts | None = None
    parent_offsets: Counts | None = None
    beginnings: Beginnings | None = None
    num_clients: int | None = None
    tenants: Counts | None = None

    @property
    def columns(self) -> TraceColumns:
        """The turns as requests; those that share and follow nothing need no more than arrivals and lengths."""
        has_history = self.after != NONE
        prompts = self._num_prompt_tokens(has_history)
        found = TraceColumns(
            arrival_ns=self.arrival_ns,
            num_prompt_tokens=prompts,
            num_output_tokens=self.num_output_tokens,
            num_clients=self.num_clients,
            tenants=self.tenants,
        )
        contents = None
        if self.beginnings is not None or has_history.any():
            contents = self._contents(has_history, prompts)
        if not has_history.any() and self.parents is None:
            return replace(found, contents=contents)
        parents, offsets = self.parents, self.parent_offsets
        if parents is None:
            parents, offsets = self.after[has_history], np.append(0, np.cumsum(has_history))
        return replace(
            found,
            contents=contents,
            sessions=self.sessions,
            turns=numbers_within(self.sessions),
            parents=parents,
            parent_offsets=offsets,
            think_ns=self.think_ns,
        )

    def _num_prompt_tokens(self, has_history: NDArray[np.bool_]) -> Counts:
        """Tokens of whole prompts: sums along histories, in as many rounds as the longest has binary digits."""
        ends = self.num_new_tokens + self.num_output_tokens
        if self.beginnings is not None and self.beginnings.ends.size:
            chosen = self.beginnings.chosen
            ends += np.where(has_history | (chosen == NONE), 0, self.beginnings.ends[chosen])
        before, turns = self.after.copy(), np.flatnonzero(has_history)
        while turns.size:
            # A turn's sum reaches back to `before`, whose own reaches further: both at once.
            reached = before[turns]
            ends[turns] += ends[reached]
            before[turns] = before[reached]
            turns = turns[before[turns] != NONE]
        return ends - self.num_output_tokens

    def _contents(self, has_history: NDArray[np.bool_], prompts: Counts) -> Contents:
        """One tree: what sessions begin with, then of each turn the new tokens of its prompt, and its answer."""
        shared = self.beginnings
        num_shared = 0 if shared is None else shared.ends.size
        has_new, has_answer = self.num_new_tokens > 0, self.num_output_tokens > 0
        last = np.cumsum(has_new.astype(np.int64) + has_answer) + (num_shared - 1)
        before = np.full(prompts.size, NONE) if shared is None else shared.chosen
        own = np.where(has_new, last - has_answer, before)
        answers = np.where(has_answer, last, own)
        parents = np.empty(num_shared + int(has_new.sum() + has_answer.sum()), np.int64)
        ends = np.empty_like(parents)
        if shared is not None:
            parents[:num_shared], ends[:num_shared] = shared.parents, shared.ends
        parents[own[has_new]] = np.where(has_history, answers[self.after], before)[has_new]
        ends[own[has_new]] = prompts[has_new]
        parents[last[has_answer]] = own[has_answer]
        ends[last[has_answer]] = (prompts + self.num_output_tokens)[has_answer]
        return Contents(parents=parents, ends=ends, prompts=own, answers=answers)


def numbers_within(sessions: Counts) -> Counts:
    """The place of each turn among its session's, from 0; a session's turns lie together."""
    firsts = np.flatnonzero(np.append(True, sessions[1:] != sessions[:-1]))
    counts = np.diff(np.append(firsts, sessions.size))
    return np.arange(sessions.size) - np.repeat(firsts, counts)
