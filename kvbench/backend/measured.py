"""The measured backend: plans carried out on tensors, on any torch device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter_ns

import torch
from torch import Tensor

from kvbench.backend import device as devices
from kvbench.backend.attention import ON_CPU, QUERY_CHUNK, calls, causal_mask
from kvbench.backend.base import APPEND, ATTEND, MOVE, NO_TIMES, RESERVE, Backend, Booking, Times
from kvbench.backend.busy import busy_ns
from kvbench.backend.choice import BackendChoice, Conditions
from kvbench.backend.clock import Clock, Span, clock_of, late_clock_of
from kvbench.backend.inputs import GroupedInputs, Inputs, RecordedInputs
from kvbench.backend.reading import Chunk, decode, prefill
from kvbench.backend.signals import decode_with_mass, notes_mass, prefill_with_mass, queries_at_once
from kvbench.backend.storage import Areas, SequenceStore, Shape
from kvbench.backend.storage.casting import check_held
from kvbench.backend.storage.grouped import GroupedAreas
from kvbench.backend.together import MOST_BYTES, Together, Token
from kvbench.checks import check_flag
from kvbench.ledger import OutOfMemory
from kvbench.ledger.costs import as_held
from kvbench.plan.area import SIGNALS, Area
from kvbench.plan.ops import (
    Append,
    Drop,
    Fork,
    Keep,
    Move,
    Operation,
    Plan,
    Publish,
    Release,
    Reserve,
    Reuse,
    Save,
    Settle,
    Truncate,
)

WHAT = {
    Append: APPEND,
    **dict.fromkeys((Reserve, Release, Drop), RESERVE),
    **dict.fromkeys((Keep, Move, Truncate, Fork, Publish, Reuse), MOVE),
}
"""What an operation's time counts as; settling counts as what it settles."""

Pieces = Sequence[tuple[Operation, list[Tensor], list[Tensor]]]
"""An operation in parts, with the keys and values of an append."""


@dataclass(frozen=True, kw_only=True)
class Measured(BackendChoice):
    """Carry plans out on real tensors, on the run's device, and time them.

    Args:
        batch_decode: whether live requests' decode steps attend in one call a layer, which copies K and V to lie
            together; None: on an accelerator, where caches are so short that calls cost more than that. A row's
            attention is then its share of the call, by the tokens that it holds.
    Raises:
        ValueError: it is none of these.
    """

    batch_decode: bool | None = None

    def __post_init__(self) -> None:
        if self.batch_decode is not None:
            check_flag("batch_decode", self.batch_decode)

    def made(self, conditions: Conditions) -> "MeasuredBackend":
        """See `MeasuredBackend`, and `GroupedBackend` where layers are of several kinds."""
        if conditions.geometry.is_plain:
            return MeasuredBackend(conditions, self.batch_decode)
        from kvbench.backend.grouped import GroupedBackend

        if self.batch_decode:
            raise ValueError(f"batch_decode is for layers that are alike; {conditions.geometry.called} has others")
        return GroupedBackend(conditions)


class MeasuredBackend(Backend):
    """Plans on real tensors, timed.

    With a recording, a token is the recording's at its position in the sequence, whichever request it is of, and after
    a preemption again; rows are alike, and queries are the recording's. See `RecordedInputs`.

    Args:
        conditions: the run's; the recording is in the geometry's heads, head_dim and dtype.
        batch_decode: as in `Measured`.
        device: where; None for the conditions' own.
    Raises:
        ValueError: no such device here, layers do not all hold K and V of all tokens, or they hold them in a dtype that
            nothing is cast to.
    """

    source = "measured"
    _lands = False  # whether new tokens may be written behind attention alone
    now_ns = staticmethod(perf_counter_ns)

    def __init__(
        self, conditions: Conditions, batch_decode: bool | None = None, device: torch.device | None = None
    ) -> None:
        geometry = conditions.geometry
        check_held(geometry)
        self.geometry = geometry
        self.device = devices.find_device(conditions.device) if device is None else device
        self.attend = conditions.attend
        self.num_rows = conditions.num_rows
        self._seed = conditions.seed
        self._recording = conditions.recording
        self._areas = self._shared((Area(),))
        self._baseline: dict[str, int] = {}
        self._together: Together | None = None
        self._clock: Clock = clock_of(self.device)
        if self._can_wait(batch_decode):
            self._clock = late = late_clock_of(self.device)
            self._together = Together(late, geometry.num_layers, None if batch_decode else MOST_BYTES)
        self.busy_ns = partial(busy_ns, self.device) if self.device.type == "cuda" else None
        self._sequences: dict[int, SequenceStore] = {}
        self._inputs: Inputs | RecordedInputs | GroupedInputs
        self._mask: Tensor

    def _can_wait(self, batch_decode: bool | None) -> bool:
        """Whether decode steps may attend together: of one row each."""
        wanted = self.device.type != ON_CPU if batch_decode is None else batch_decode
        return wanted and self.attend and self.num_rows == 1

    @property
    def signals(self) -> tuple[str, ...]:
        """What attention can tell a strategy: nothing where steps do not attend."""
        return tuple(SIGNALS.values()) if self.attend else ()

    @property
    def why_no_signals(self) -> str:
        """Steps do not attend."""
        return " (steps do not attend: attend=false)"

    def memory_bytes(self) -> int:
        """Half of a CPU's available memory, 0.9 of a GPU's free memory."""
        return devices.default_budget_bytes(self.device)

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """Make keys, values, queries and mask for steps of these sizes."""
        sizes = self.num_rows, max_append_tokens, self.device
        if self._recording is None:
            self._inputs = Inputs(self.geometry.plain, *sizes, self._seed)
        else:
            self._inputs = RecordedInputs(self._recording, self.geometry, *sizes, self._sequences)
        if self.attend:
            self._mask = causal_mask(max_context_tokens, self._group_size, self.device)

    @property
    def _group_size(self) -> int:
        return self.geometry.plain.heads_per_kv_head

    @property
    def _num_heads(self) -> int:
        return self.geometry.plain.num_heads

    def _shared(self, areas: tuple[Area, ...]) -> Areas | GroupedAreas:
        shape = Shape.of_group(self.geometry.plain, self.num_rows, self.device)
        return Areas(as_held(areas, self.geometry), shape)

    def begin_repetition(self, areas: tuple[Area, ...]) -> None:
        """Empty the allocator and reset its peaks; sequences opened from now on live so."""
        self.live_in(areas)
        devices.reset_allocator(self.device)
        self._baseline = devices.allocator_peaks(self.device)

    def live_in(self, areas: tuple[Area, ...]) -> None:
        """Let sequences opened from now on live so; what an allocator keeps is kept."""
        self._areas = self._shared(areas)

    def end_repetition(self) -> None:
        """Wait for what runs in the background, and let go of sequences, pools and staging buffers."""
        self._areas.close()
        self._sequences.clear()
        self._areas = self._shared((Area(),))

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet."""
        assert isinstance(self._areas, Areas)
        self._sequences[seq] = SequenceStore(self._areas)

    def sequence(self, seq: int) -> SequenceStore:
        """A sequence's storage, to read."""
        if self._together is not None:
            self._together.before(seq)
        return self._sequences[seq]

    def carry_out(self, op: Operation, keys: list[Tensor], values: list[Tensor]) -> None:
        """Carry one operation out.

        Args:
            op: a booked operation.
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim]; only an append reads them.
            values: as keys.
        """
        if type(op) is Append:  # nearly every step's, and a quarter of a microsecond less than by match
            self._sequences[op.seq].append(keys, values, op.num_tokens, op.area)
            return
        match op:
            case Fork(seq, new):
                if self._together is not None:
                    self._together.before(seq)  # what it shares is written
                self._sequences[seq].fork(op, self._sequences[new])
            case Drop(key):
                self._areas.drop(key)
            case Save():
                raise TypeError(f"{op}: `check_tiers` lets no strategy through that keeps copies below the device")
            case Release(seq):
                error = self._sequences.pop(seq).release(seq, self.slot_bytes)
                if error is not None:
                    raise error
            case _:
                if self._together is not None and type(op) is Reuse:
                    self._together.finish()  # what it takes over is written
                self._sequences[op.seq].carry_out(op, keys, values)

    def check(self, plan: Plan) -> Times:
        """Wait for what a plan settles. See `Backend.check`."""
        start, what = perf_counter_ns(), MOVE
        for op in plan:
            if isinstance(op, Settle):
                error = self._sequences[op.seq].failure(op.seq, self.slot_bytes)
                if error is not None:
                    raise error
                what = RESERVE if self._sequences[op.seq].is_growing else MOVE
        if self.device.type != "cpu":  # it waits in the step; the host, for its worker, in the plan
            return NO_TIMES
        spent = [0] * len(NO_TIMES)
        spent[what] = perf_counter_ns() - start
        return Times(*spent)

    def wait(self) -> None:
        """Wait until nothing is done in the background, and what was replaced is freed."""
        self._areas.background.wait()

    def step(self, booking: Booking, num_queries: int, continued: bool = False) -> Times:
        """Carry a plan out and attend, timed by the device's clock. See `Backend.step`."""
        try:
            return self._step(booking.seq, booking.plan, num_queries, continued)
        except (MemoryError, OutOfMemory, RuntimeError) as error:
            if continued:
                self._clock.forget()  # the step that this is the rest of will have no row
            if isinstance(error, OutOfMemory) or not devices.is_out_of_memory(error):
                raise
            need_bytes = sum(op.num_tokens for op in booking.plan if isinstance(op, Reserve)) * self.slot_bytes
            raise OutOfMemory(need_bytes, None) from error

    def _step(self, seq: int, plan: Plan, num_queries: int, continued: bool) -> Times:
        spans: list[Span] = []
        mark, late = self._clock.mark, None
        if self._together is not None:
            self._together.before(seq)
        for op in plan:
            if isinstance(op, Settle):
                what = RESERVE if self._sequences[op.seq].is_growing else MOVE
            else:
                what = WHAT.get(type(op), MOVE)
            pieces: Pieces = self._inputs.pieces(op) if isinstance(op, Append) else [(op, [], [])]
            start = mark()
            if self._together is not None and type(op) is Append and num_queries == 1:
                late = self._written_later(op, pieces)
                if late is not None:
                    continue
            for piece, keys, values in pieces:
                self.carry_out(piece, keys, values)
            spans.append((what, start, mark()))
        if num_queries == 1 and self._together is not None:
            sequence = self._sequences[seq]
            query = self._decode_query(sequence)
            if query is not None and sequence.is_read_in_place:
                times = self._clock.times(spans, continued)
                self._together.add(seq, sequence, query, late)
                return times
        if num_queries and self.attend:
            start = mark()
            self.attention(seq, num_queries)
            spans.append((ATTEND, start, mark()))
        if num_queries > 1 and self._lands:
            start = mark()
            self._sequences[seq].land()
            spans.append((APPEND, start, mark()))
        return self._clock.times(spans, continued)

    def _written_later(self, op: Append, pieces: Pieces) -> Token | None:
        """An append's token, to be written with those of others, where they are in blocks of one pool; else None."""
        sequence = self._sequences[op.seq]
        if op.num_tokens > 1 or self._decode_query(sequence) is None:
            return None
        slot = sequence.append_later()
        return None if slot is None else Token(pieces[0][1][0], pieces[0][2][0], slot)

    def _decode_query(self, sequence: SequenceStore) -> Tensor | None:
        """The query of the newest token, where all layers have the same and nobody is told what it finds; else None."""
        if isinstance(self._inputs, Inputs) and not notes_mass(sequence.score, 1):
            return self._inputs.decode_query(sequence.num_seen)
        return None

    def end_iteration(self) -> None:
        """Attend with the decode steps that wait for each other."""
        if self._together is not None:
            self._together.finish()

    def attention(self, seq: int, num_queries: int) -> list[list[Tensor]]:
        """Attend, layer by layer, with the queries of a sequence's newest tokens over all that it holds.

        Returns:
            A layer's outputs, a chunk of queries each, packed as its queries.
        """
        sequence, inputs = self.sequence(seq), self._inputs
        if num_queries == 1 and (query := self._decode_query(sequence)) is not None:  # the common case, at least cost
            return [[decode(sequence, layer, query)] for layer in range(self.geometry.num_layers)]
        first = sequence.num_seen - num_queries
        return self.attend_with(seq, inputs.chunks(first, num_queries, self._chunk_size(sequence)))

    def attend_with(self, seq: int, chunks: list[list[Chunk]]) -> list[list[Tensor]]:
        """Attend with given queries of a sequence's newest tokens.

        Args:
            seq: the sequence.
            chunks: a layer's queries each, from `attention.packed`, with the position of their first token.
        Returns:
            As `attention`.
        """
        sequence, group = self.sequence(seq), self._group_size
        num_queries = sum(queries.shape[2] for _, queries in chunks[0]) // group
        with_mass = notes_mass(sequence.score, num_queries)
        if num_queries == 1:
            one = decode_with_mass if with_mass else decode
            return [[one(sequence, layer, own[0][1])] for layer, own in enumerate(chunks)]
        several = prefill_with_mass if with_mass else prefill
        return [several(sequence, layer, own, group, self._mask) for layer, own in enumerate(chunks)]

    def _chunk_size(self, sequence: SequenceStore) -> int:
        """Tokens whose queries attend at once, so that masks and weights stay small."""
        if sequence.score is None:
            return QUERY_CHUNK
        return queries_at_once(self.num_rows * self._num_heads * sequence.num_held, QUERY_CHUNK)

    def drain(self) -> list[Times] | None:
        """The times of steps that the device had not finished when `step` returned; None on a CPU."""
        self.end_iteration()
        return self._clock.drain()

    def allocator_peaks(self) -> dict[str, int]:
        """The allocator's own peaks since the repetition began, less what inputs held then; empty on a CPU."""
        peaks = devices.allocator_peaks(self.device)
        return {name: peak - self._baseline[name] for name, peak in peaks.items()}

    def describe(self) -> dict[str, object]:
        """Device, bandwidth, what stands behind a GPU's times, attention calls, and what recorded K and V are."""
        return {
            "device": str(self.device),
            "device_name": devices.device_name(self.device),
            "copy_bandwidth_bytes_per_s": round(devices.copy_bandwidth(self.device)),
            **devices.about(self.device),  # its clocks are up
            "attention": calls(self.device) if self.attend else "off",
            **({} if self._together is None else {"batch_decode": self._together.about}),
            **({} if self._recording is None else {"data": self._recording.about}),
        }
