"""Turns of sessions, collected one after another while a file is read, and then columns."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kvbench.workload.contents import Contents
from kvbench.workload.trace_columns import TraceColumns


def _longs() -> "array[int]":
    return array("q")


@dataclass
class CollectedTurns:
    """Columns that grow by a turn at a time: eight bytes a value, never an object a row."""

    arrival_ns: "array[int]" = field(default_factory=_longs)
    num_prompt_tokens: "array[int]" = field(default_factory=_longs)
    num_output_tokens: "array[int]" = field(default_factory=_longs)
    sessions: "array[int]" = field(default_factory=_longs)
    turns: "array[int]" = field(default_factory=_longs)
    think_ns: "array[int]" = field(default_factory=_longs)
    parents: "array[int]" = field(default_factory=_longs)
    parent_offsets: "array[int]" = field(default_factory=lambda: array("q", [0]))

    def __len__(self) -> int:
        return len(self.sessions)

    def add(
        self,
        *,
        session: int,
        num_prompt_tokens: int,
        num_output_tokens: int,
        arrival_ns: int = 0,
        parents: Sequence[int] = (),
        think_ns: int = 0,
    ) -> int:
        """Add a turn after all of its session that are there; returns its number.

        Args:
            session: its session's number; those of a session stand together.
            num_prompt_tokens: with all history.
            num_output_tokens: of its answer.
            arrival_ns: before which it does not begin.
            parents: turns that it follows.
            think_ns: from the end of the last of them to its beginning.
        """
        number = len(self)
        self.turns.append(self.turns[-1] + 1 if number and self.sessions[-1] == session else 0)
        self.sessions.append(session)
        self.num_prompt_tokens.append(num_prompt_tokens)
        self.num_output_tokens.append(num_output_tokens)
        self.arrival_ns.append(arrival_ns)
        self.think_ns.append(think_ns)
        self.parents.extend(parents)
        self.parent_offsets.append(len(self.parents))
        return number

    def columns(self, contents: Contents | None, has_times: bool = True) -> TraceColumns:
        """The turns in the order in which they were added."""
        found: dict[str, Any] = {name: np.array(values, np.int64) for name, values in vars(self).items()}
        if not has_times:
            found["arrival_ns"] = None
        return TraceColumns(contents=contents, **found)
