"""One batch under a strategy, whose K and V come a layer after another, as a model makes them."""

from copy import deepcopy
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from kvbench.backend.base import Booking
from kvbench.backend.storage import Areas, SequenceStore, Shape
from kvbench.integrations.figures import Figures
from kvbench.integrations.states import NOT_TAKEN_BACK, States
from kvbench.integrations.stores import Stores, carry_out
from kvbench.ledger import LedgerError, Limits
from kvbench.ledger.costs import as_held, covered
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Area, num_staging_buffers
from kvbench.plan.ops import MAIN, NOTHING, Append, Plan, Reserve, Rows, Settle, Truncate, areas_of
from kvbench.runner.drive import Driver
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Request, Session

_NUMBERS = count()


class StepFailed(RuntimeError):
    """A step began and was not carried out in every layer, so that what is held is no use."""


@dataclass(frozen=True, slots=True)
class Stride:
    """A part of a step that a strategy takes at once: booked for all layers, carried out in each in its turn.

    Args:
        num_tokens: new tokens.
        plan: room for them, and their append.
        after: what follows attention, where another stride comes; of a step's last one it is planned at the step's end.
    """

    num_tokens: int
    plan: Plan
    after: Plan = NOTHING


class Layerwise:
    """The ledger of a batch, and a store a layer: plans are booked once a step, and carried out layer by layer.

    A step is `begin`, then for each layer in order what `strides` says, then `end`; where nobody says that the last
    layer has attended, `end` comes before whatever is next.

    Args:
        strategy: what decides; it is copied, so that one object can serve several batches.
        geometry: the shape of a token's K and V, over all layers.
        num_rows: rows of the batch.
        device: where K and V live.
        budget_bytes: the most that may be held on the device; None: no limit.
        num_output_tokens: tokens that will follow the first append, for strategies that ask (an oracle does).
        context_tokens: the longest sequence that the model is made for; None: not known.
        states: where what layers with a state hold is to be found; None: nowhere else.
    Attributes:
        layers: the numbers of those that hold tokens; elsewhere a layer is its place among them.
    Raises:
        ValueError: the geometry does not go into the strategy's areas.
    """

    def __init__(
        self,
        strategy: Strategy,
        geometry: KVGeometry,
        num_rows: int,
        device: torch.device,
        budget_bytes: int | None,
        num_output_tokens: int,
        context_tokens: int | None = None,
        states: States | None = None,
    ) -> None:
        beside = None if budget_bytes is None else max(budget_bytes - geometry.state_bytes * num_rows, 1)
        limits = Limits(
            geometry=geometry,
            budget_bytes=beside,
            num_rows=num_rows,
            context_tokens=context_tokens,
            has_own_pools=True,
        )
        self.strategy = strategy = deepcopy(strategy).fitted_to_serve(limits)
        self.ledger = strategy.ledger(geometry, budget_bytes, num_rows)
        self.geometry = geometry
        self.device = device
        self._num_output_tokens = num_output_tokens
        self.layers = sorted(layer for group in geometry.groups if group.holds_tokens for layer in group.layers)
        self._states = States(geometry) if states is None else states
        shapes = [_shape_of(geometry, layer, num_rows, device) for layer in self.layers]
        areas = as_held(strategy.areas, geometry)
        own = [_areas_of(layer, areas, geometry) for layer in self.layers]
        first = Areas(own[0], shapes[0], num_buffers=num_staging_buffers(areas))
        others = [Areas(each, shape, beside=first) for each, shape in zip(own[1:], shapes[1:], strict=True)]
        self._layers = Stores([first, *others], geometry)
        self._driver = Driver(strategy, self.ledger, self._layers)
        self.seq = next(_NUMBERS)
        self.strides: list[Stride] = []
        self._turns: list[Request] = []
        self._attended: int | None = None
        self._next_layer = 0
        self._num_begun = 0
        self._is_broken = False
        self._peak_bytes = self._num_resizes = 0

    @property
    def sequences(self) -> list[SequenceStore]:
        """A store a layer that holds tokens; none before the first step."""
        return self._layers.sequences

    @property
    def num_rows(self) -> int:
        """Rows of the batch."""
        return self.ledger.num_rows

    @property
    def num_seen(self) -> int:
        """Tokens of each row that went in, evicted ones included."""
        return self.ledger.view.num_seen(self.seq) if self.sequences else 0

    def begin_early(self, num_tokens: int) -> None:
        """Begin a step before a layer with K and V asks for it: one with a state comes first.

        Raises:
            OutOfMemory: and so on; see `begin`.
        """
        self.begin(num_tokens)
        self._num_begun = num_tokens

    def check_arrived(self) -> None:
        """Refuse another step where one that began early never came to a layer with K and V.

        Raises:
            StepFailed: it did not.
        """
        if self._num_begun:
            self._is_broken = True
            raise StepFailed("the step before this one was not carried out in every layer; reset the cache first")

    def begin(self, num_tokens: int) -> None:
        """Plan and book a step of all layers; nothing where that was done early.

        Raises:
            OutOfMemory: it does not fit. Of a first step nothing is held then; where no stride of a later one was
                booked, the batch is as it was before, but with states, which may have taken the tokens, it can only be
                reset.
            CapacityExceeded: the strategy cannot hold so much; likewise.
            BackgroundError: work beside the steps has failed; the cache can only be reset.
            StepFailed: the step before was not carried out in every layer.
        """
        begun, self._num_begun = self._num_begun, 0
        if begun == num_tokens:
            return
        if begun or not self._is_whole:
            self._is_broken = True
            raise StepFailed("the step before this one was not carried out in every layer; reset the cache first")
        self.end()
        is_first = not self.sequences
        if is_first:
            self._open(num_tokens)
        self.strides, num_seen = [], self.num_seen
        try:
            left = num_tokens
            while left:
                stride = self._stride(left)
                left -= stride.num_tokens
                self.strides.append(stride)
            self._states.hold(self.geometry, self.num_rows, self.device)
        except BaseException:
            self._is_broken |= self.num_seen > num_seen or self._states.is_held
            if is_first:
                self.finish()
            raise
        self._note_turn(num_tokens)

    def _open(self, num_tokens: int) -> None:
        self._driver.open(self.seq)
        self._turns = []
        session = Session(0, (Request(num_tokens, self._num_output_tokens),))
        try:
            self._carry_out(self._driver.admit(self.seq, session))
        except BaseException:
            self.finish()
            raise

    def _stride(self, left: int) -> Stride:
        num_tokens = self._driver.at_once(self.seq, left)
        plan = self._noted(self._driver.append(self.seq, num_tokens)).plan
        after = self._driver.attended(self.seq, num_tokens) if num_tokens < left else None
        return Stride(num_tokens, plan, NOTHING if after is None else self._noted(after).plan)

    def _noted(self, booking: Booking) -> Booking:
        self._peak_bytes = max(self._peak_bytes, booking.receipt.peak_bytes)
        self._num_resizes += booking.receipt.num_resizes > 0
        return booking

    def _carry_out(self, booking: Booking) -> None:
        """Carry out, in all layers, what appends nothing."""
        self._noted(booking)
        for sequence in self.sequences:
            carry_out(sequence, booking.plan)

    def _note_turn(self, num_tokens: int) -> None:
        if num_tokens > 1 or not self._turns:
            owed = len(self._turns) > 0  # a later prompt comes with the last token of the answer before it
            self._turns.append(Request(num_tokens - owed, 1))
        else:
            last = self._turns[-1]
            self._turns[-1] = Request(last.num_append_tokens, last.num_decode_tokens + 1)

    def enter(self, layer: int) -> SequenceStore:
        """A layer's turn in the step that has begun.

        Raises:
            StepFailed: it is another layer's.
        """
        if layer != self._next_layer:
            self._is_broken = True
            turn, got = self.layers[self._next_layer], self.layers[layer]
            raise StepFailed(f"it is layer {turn}'s turn, got layer {got}; reset the cache first")
        self._next_layer = layer + 1
        return self.sequences[layer]

    def strides_of(self, layer: int) -> list[Stride]:
        """A step's strides, for a layer whose tokens are all read at once: one, where it follows the others."""
        follower = self.ledger.follower
        if follower not in self.sequences[layer].area_names:
            return self.strides
        plan = [op for stride in self.strides for op in stride.plan if areas_of(op) == {follower}]
        room = [op for op in plan if isinstance(op, Reserve)][-1:]
        num_tokens = sum(stride.num_tokens for stride in self.strides)
        return [Stride(num_tokens, (*room, Append(self.seq, num_tokens, follower)), NOTHING)]

    def leave(self, layer: int, is_attended: bool) -> None:
        """A layer has carried out its strides.

        Args:
            layer: which.
            is_attended: whether it has attended, too; the last one's saying so ends the step.
        """
        if layer + 1 < len(self.sequences):
            return
        self._next_layer = 0
        self._attended = self.strides[-1].num_tokens
        if is_attended:
            self.end()

    def end(self) -> None:
        """What follows a step's attention, in all layers; nothing where it was done."""
        if self._attended is None:
            return
        num_tokens, self._attended = self._attended, None
        after = self._driver.attended(self.seq, num_tokens)
        if after is not None:
            self._carry_out(after)

    def _settle(self) -> None:
        """End the step, and what is done in the background."""
        self._require_whole()
        self.end()
        if any(held.busy for held in self.ledger.accounts[self.seq].holdings.values()):
            self._carry_out(self._driver.book(self.seq, (Settle(self.seq),)))

    @property
    def _is_whole(self) -> bool:
        """Whether all that was booked is carried out in every layer."""
        return not (self._is_broken or self._next_layer or self._num_begun or self._layers.has_failed)

    def _require_whole(self) -> None:
        if not self._is_whole:
            raise StepFailed("a step was not carried out in every layer; reset the cache first")

    def select_rows(self, index: Tensor) -> None:
        """Book that the batch will be of chosen rows; each layer that holds tokens then selects its own.

        Args:
            index: rows, int64 [new num_rows].
        Raises:
            OutOfMemory: what is held with one tensor twice is over the budget.
        """
        self._settle()
        self._noted(self._driver.book(self.seq, (Rows(self.seq, len(index)),)))
        self._states.select_rows(index)

    def book_truncation(self, num_tokens: int) -> Plan:
        """Book that the newest tokens are removed.

        Returns:
            What each layer then carries out.
        Raises:
            LedgerError: they are not all there as they were.
        """
        self._settle()
        if MAIN not in self.ledger.costs:
            name = type(self.strategy).__name__
            raise LedgerError(f"{name} has several areas that new tokens go to, and crops none of them")
        if self.geometry.state_bytes:
            raise LedgerError(NOT_TAKEN_BACK)
        op = Truncate(self.seq, num_tokens)
        self.ledger.crop(op)
        return (op,)

    def finish(self) -> None:
        """Let go of all that is held; the next step begins a new batch.

        Raises:
            BackgroundError: work beside the steps had failed, and nobody was told; all is let go nevertheless.
        """
        if not self.sequences:
            return
        is_whole = self._is_whole
        self._attended, self._next_layer, self._num_begun, self._is_broken = None, 0, 0, False
        self._states.let_go()
        plan = self._driver.finish(self.seq).plan
        self.strides, self._peak_bytes, self._num_resizes = [], 0, 0
        self._layers.release(self.seq, plan)
        if is_whole and self._turns:
            self._driver.complete(Session(0, tuple(self._turns)))

    def close(self) -> None:
        """Let go of all, and end the workers."""
        self.finish()
        self._layers.areas[0].close()

    def figures(self) -> Figures:
        """Bytes and counts since the batch began; of a pool, the blocks that were handed out count."""
        view, ledger = self.ledger.view, self.ledger
        num_attended = view.num_attended(self.seq) if self.sequences else 0
        held_bytes = sum(ledger.tier_bytes.values())
        return Figures(held_bytes, self._peak_bytes, self._num_resizes, self.num_seen, num_attended)


def _shape_of(geometry: KVGeometry, layer: int, num_rows: int, device: torch.device) -> Shape:
    group = next(group for group in geometry.groups if layer in group.layers)
    sizes = 1, num_rows, group.num_kv_heads, group.key_dim
    value_dim = None if group.value_dim == group.key_dim else group.value_dim
    return Shape(*sizes, getattr(torch, geometry.dtype), device, window=group.tokens, value_dim=value_dim)


def _areas_of(layer: int, areas: tuple[Area, ...], geometry: KVGeometry) -> tuple[Area, ...]:
    return tuple(area for area in areas if any(layer in group.layers for _, group in covered(area, geometry)))
