"""Requests as they stand in a file, of which some follow others, to columns in order."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvbench.workload.contents import NONE, Contents
from kvbench.workload.histories import TurnColumns, numbers_within
from kvbench.workload.interning import Interning
from kvbench.workload.trace_columns import TraceColumns
from kvbench.workload.trace_file import TraceError

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class FileRows:
    """Requests of a file, in its order.

    Args:
        path: the file.
        lines: where each stands in it.
        num_prompt_tokens: with all history.
        num_output_tokens: of answers.
        sessions: from 0, by first appearance.
        after: the request of the session that each goes on from; NONE: from none.
        arrival_ns: before which each does not begin; None: the file has no times.
        think_ns: from the end of the last that it follows to its beginning.
        parents: those that each follows, one request's after another's; None: it follows the one it goes on from.
        parent_offsets: one more than requests; None likewise.
        ids: of each prompt's blocks; None: what is shared is histories.
        block_tokens: tokens of a block.
    """

    path: Path
    lines: Counts
    num_prompt_tokens: Counts
    num_output_tokens: Counts
    sessions: Counts
    after: Counts
    arrival_ns: Counts | None
    think_ns: Counts
    parents: Counts | None = None
    parent_offsets: Counts | None = None
    ids: list[Counts] | None = None
    block_tokens: int = 1

    @property
    def columns(self) -> TraceColumns:
        """By arrival, or by sessions where there are no times; and whom one follows before it.

        Raises:
            TraceError: requests follow one another in a circle, or one arrives before whom it follows.
        """
        parents, offsets = self.parents, self.parent_offsets
        if parents is None or offsets is None:
            goes_on = self.after != NONE
            parents, offsets = self.after[goes_on], np.append(0, np.cumsum(goes_on))
        children = np.repeat(np.arange(self.lines.size), np.diff(offsets))
        levels = self._levels(parents, children)
        if self.arrival_ns is not None:
            self._check_times(self.arrival_ns, parents, children)
        order = np.lexsort((levels, self.sessions if self.arrival_ns is None else self.arrival_ns))
        place = np.full(order.size + 1, NONE)
        place[order] = np.arange(order.size)
        histories = place[self.after[order]]
        histories[histories >= np.arange(order.size)] = NONE  # what came later is nobody's history
        if not parents.size:
            found = replace(self._taken(order), contents=self._contents(order, histories))
            return found if (self.sessions[1:] == self.sessions[:-1]).any() else replace(found, sessions=None)
        counts = np.diff(offsets)[order]
        ends = np.cumsum(counts)
        moved = np.repeat(offsets[:-1][order] - (ends - counts), counts) + np.arange(parents.size)
        by_session = np.argsort(self.sessions[order], kind="stable")
        turns = np.empty_like(order)
        turns[by_session] = numbers_within(self.sessions[order][by_session])
        return replace(
            self._taken(order),
            turns=turns,
            parents=place[parents[moved]],
            parent_offsets=np.append(0, ends),
            think_ns=self.think_ns[order],
            contents=self._contents(order, histories),
        )

    def _taken(self, order: Counts) -> TraceColumns:
        return TraceColumns(
            arrival_ns=None if self.arrival_ns is None else self.arrival_ns[order] - self.arrival_ns.min(),
            num_prompt_tokens=self.num_prompt_tokens[order],
            num_output_tokens=self.num_output_tokens[order],
            sessions=self.sessions[order],
            block_tokens=None if self.ids is None else self.block_tokens,
        )

    def _levels(self, parents: Counts, children: Counts) -> Counts:
        """How many follow one another up to each."""
        levels = np.zeros(self.lines.size, np.int64)
        waiting, level = np.arange(parents.size), 0
        while waiting.size:
            level += 1
            open_rows = np.unique(children[waiting])
            is_open = np.zeros(self.lines.size, bool)
            is_open[open_rows] = True
            still = waiting[is_open[parents[waiting]]]
            if still.size == waiting.size:
                raise self._circle(parents[still], children[still])
            levels[open_rows] = level
            waiting = waiting[np.isin(children[waiting], children[still])]
        return levels

    def _circle(self, parents: Counts, children: Counts) -> TraceError:
        before = dict(zip(children.tolist(), parents.tolist(), strict=True))
        row, met = int(children[0]), set[int]()
        while row not in met:
            met.add(row)
            row = before[row]
        return TraceError(
            f"{self.path}, line {self.lines[row]}: it follows the request of line {self.lines[before[row]]}, which "
            "follows it in turn, directly or by others; allowed are sessions without a circle"
        )

    def _check_times(self, arrival_ns: Counts, parents: Counts, children: Counts) -> None:
        early = np.flatnonzero(arrival_ns[children] < arrival_ns[parents])
        if early.size:
            child, parent = children[early[0]], parents[early[0]]
            raise TraceError(
                f"{self.path}, line {self.lines[child]}: it arrives before the request of line {self.lines[parent]}, "
                "which it follows; allowed are times that do not decrease within a session"
            )

    def _contents(self, order: Counts, histories: Counts) -> Contents | None:
        if self.ids is not None:
            texts = Interning()
            prompts, outputs = self.num_prompt_tokens[order].tolist(), self.num_output_tokens[order].tolist()
            texts.add(
                [self.ids[row] for row in order.tolist()], self.block_tokens, prompts, outputs, histories.tolist()
            )
            return texts.contents()
        prompts, outputs = self.num_prompt_tokens[order], self.num_output_tokens[order]
        history = np.where(histories == NONE, 0, (prompts + outputs)[histories])
        goes_on = (histories != NONE) & (prompts > history)
        return TurnColumns(
            arrival_ns=histories,
            sessions=self.sessions[order],
            after=np.where(goes_on, histories, NONE),
            num_new_tokens=np.where(goes_on, prompts - history, prompts),
            num_output_tokens=outputs,
            think_ns=histories,
        ).columns.contents
