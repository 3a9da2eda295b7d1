"""What runs beside a sequence's steps: resizes into larger tensors, and moves to another tier."""

import traceback
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from threading import Event

from torch import Tensor

from kvbench.backend.background import Handle, Worker
from kvbench.backend.device import is_out_of_memory
from kvbench.backend.storage.base import Part, Store
from kvbench.backend.storage.memory import while_wanted
from kvbench.backend.storage.slots import SlotStore
from kvbench.backend.storage.window import WindowStore
from kvbench.ledger import BackgroundError, OutOfMemory
from kvbench.plan.ops import Move, Reserve, Rule


@dataclass(slots=True)
class UnderWay:
    """Work that was given away, until it is settled or its sequence released.

    Args:
        what: the work, for messages.
        num_tokens: slots that it fills.
        is_resize: whether it makes a larger area, rather than moving tokens to another one.
        tier: where it needs memory.
        handle: to wait for it.
        finish: puts what is new in its place, and returns the tensors that it takes the place of.
        given_up: set when the sequence is released; the work then ends early where it can.
        error: what it raised, once that is known.
        is_reported: whether somebody was told.
    """

    what: str
    num_tokens: int
    is_resize: bool
    tier: str
    handle: Handle[object]
    finish: Callable[[], list[Tensor]]
    given_up: Event = field(default_factory=Event)
    error: Exception | None = None
    is_reported: bool = False

    def give_up(self) -> None:
        """Leave nothing to finish: who still holds this, such as an error's traceback, holds no tensors."""
        self.finish = list

    def failure(self, seq: int, slot_bytes: int) -> Exception | None:
        """Wait until it is known; what is told of it where the work has failed, each time that it is asked.

        Args:
            seq: whose work it is.
            slot_bytes: of a token in all the tensors that the work is for.
        Returns:
            OutOfMemory where there was no memory, BackgroundError for all else; None where nothing failed.
        """
        if self.error is None:
            try:
                self.handle.check()
            except Exception as error:
                # As text: the frames of a traceback hold tensors, as do those that wait here.
                error.add_note("".join(traceback.format_tb(error.__traceback__)))
                error.__traceback__ = None
                self.error = error
        return None if self.error is None else self._told(self.error, seq, slot_bytes)

    def _told(self, error: Exception, seq: int, slot_bytes: int) -> Exception:
        told: Exception = BackgroundError(seq, self.what, error)
        if isinstance(error, OutOfMemory):
            told = OutOfMemory(error.need_bytes, error.budget_bytes, error.tier)
        elif is_out_of_memory(error):
            told = OutOfMemory(self.num_tokens * slot_bytes, None, self.tier)
        told.__cause__ = error
        return told


def resize_ahead(op: Reserve, store: SlotStore | WindowStore, worker: Worker) -> UnderWay:
    """Let a worker fill larger tensors with the slots in use now; appends go on in the present ones.

    The tensors are allocated here, so that memory that is refused is known at once; the worker takes their pages, which
    is most of a resize's time. Tokens that come meanwhile are copied when it is settled: for a quarter of 13,122 slots
    of 4 KiB that took 1 ms, writing each of them twice 17 ms in all.
    """
    given_up = Event()
    handle = worker.submit(partial(while_wanted, given_up, store.resize_ahead(op.num_tokens)))
    what = f"resizing area {op.area} to {op.num_tokens} slots"
    return UnderWay(what, op.num_tokens, True, store.area.tier, handle, store.settle, given_up)


def move_ahead(op: Move, stores: dict[str, Store], worker: Worker) -> UnderWay:
    """Let a worker write the slots that leave one store behind the live ones of another.

    It does so through a copy of the other store, which shares its tensors and counts for itself; settled, this is the
    store, and the slots are let go of where they came from.
    """
    source, parts = stores[op.src], stores[op.src].leaving(op.rule)
    num_moved = sum(part.num_tokens for part in parts)
    filled = copy(stores[op.dst])

    def finish() -> list[Tensor]:
        stores[op.dst] = filled
        source.keep(Rule(recent=source.num_used - num_moved))
        return []

    handle = worker.submit(partial(_receive, filled, parts))
    what = f"moving {num_moved} tokens from area {op.src} to {op.dst}"
    return UnderWay(what, num_moved, False, filled.area.tier, handle, finish)


def _receive(store: Store, parts: list[Part]) -> None:
    for part in parts:
        store.receive(part)


def let_go(tensors: list[Tensor]) -> None:
    """Free what tensors hold, outside the interpreter's lock: the pages of a large one take milliseconds."""
    for tensor in tensors:
        tensor.set_()  # type: ignore[call-overload]  # torch declares it with a source only
