"""The measured backend: plans carried out on tensors, on any torch device."""

import torch
from torch import Tensor

from kvbench.backend import device as devices
from kvbench.backend.attention import CALLS, attention, causal_mask, chunks, up_to
from kvbench.backend.base import Backend, Times
from kvbench.backend.clock import APPEND, ATTEND, RESERVE, Span, clock_of
from kvbench.backend.inputs import Inputs
from kvbench.backend.storage import Store, store_of
from kvbench.geometry import KVGeometry
from kvbench.ledger import OutOfMemory
from kvbench.ops import Append, Area, Operation, Plan, Release, Reserve, Truncate


class Measured(Backend):
    """Carry plans out on real tensors and time them.

    Args:
        geometry: the shape of a token's K and V.
        device: auto, cpu or cuda.
        attend: whether steps attend over the live cache; without, the cache alone is timed.
        seed: of the random inputs.
        num_rows: rows of every sequence's batch, > 0.
    Raises:
        ValueError: no such device here.
    """

    source = "measured"
    scope = "cache"

    def __init__(self, *, geometry: KVGeometry, device: str, attend: bool, seed: int, num_rows: int = 1) -> None:
        self.geometry = geometry
        self.device = devices.find_device(device)
        self.attend = attend
        self._seed = seed
        self.num_rows = num_rows
        self._group_size = geometry.num_heads // geometry.num_kv_heads
        self._dtype = getattr(torch, geometry.dtype)
        self._area = Area()
        self._baseline: dict[str, int] = {}
        self._clock = clock_of(self.device)
        self._stores: dict[int, Store] = {}
        self._inputs: Inputs | None = None
        self._mask: Tensor | None = None

    @property
    def slot_bytes(self) -> int:
        """Bytes of a slot over all layers and rows."""
        return self.geometry.bytes_per_token * self.num_rows

    def memory_bytes(self) -> int:
        """Half of a CPU's available memory, 0.9 of a GPU's free memory."""
        return devices.default_budget_bytes(self.device)

    def prepare(self, max_append_tokens: int, max_context_tokens: int) -> None:
        """Make keys, values, queries and mask for steps of these sizes."""
        self._inputs = Inputs(self.geometry, self.num_rows, max_append_tokens, self.device, self._seed)
        self._mask = causal_mask(max_context_tokens, self._group_size, self.device) if self.attend else None

    def begin_repetition(self, area: Area) -> None:
        """Empty the allocator and reset its peaks; sequences opened from now on live so."""
        self._area = area
        devices.reset_allocator(self.device)
        self._baseline = devices.allocator_peaks(self.device)

    def open(self, seq: int) -> None:
        """Begin a sequence that holds nothing yet."""
        shape = (self.num_rows, self.geometry.num_kv_heads, self.geometry.head_dim)
        self._stores[seq] = store_of(self._area, self.geometry.num_layers, shape, self._dtype, self.device)

    def store(self, seq: int) -> Store:
        """A sequence's storage, to read."""
        return self._stores[seq]

    def carry_out(self, op: Operation, keys: list[Tensor], values: list[Tensor]) -> None:
        """Carry one operation out.

        Args:
            op: a booked operation.
            keys: a layer each, [num_rows, num_kv_heads, num_tokens, head_dim]; only an append reads them.
            values: as keys.
        """
        match op:
            case Append(seq, num_tokens):
                self._stores[seq].append(keys, values, num_tokens)
            case Reserve(seq, num_tokens):
                self._stores[seq].reserve(num_tokens)
            case Truncate(seq, num_tokens):
                self._stores[seq].truncate(num_tokens)
            case Release(seq):
                del self._stores[seq]

    def step(self, plan: Plan, seq: int, num_queries: int, continued: bool = False) -> Times:
        """Carry a plan out and attend, timed by the device's clock. See `Backend.step`."""
        try:
            return self._step(plan, seq, num_queries, continued)
        except (MemoryError, RuntimeError) as error:
            if not devices.is_out_of_memory(error):
                raise
            need_bytes = sum(op.num_tokens for op in plan if isinstance(op, Reserve)) * self.slot_bytes
            raise OutOfMemory(need_bytes, None) from error

    def _step(self, plan: Plan, seq: int, num_queries: int, continued: bool) -> Times:
        spans: list[Span] = []
        mark = self._clock.mark
        for op in plan:
            pieces = self._inputs.pieces(op) if isinstance(op, Append) else [(op, [], [])]
            start = mark()
            for piece, keys, values in pieces:
                self.carry_out(piece, keys, values)
            spans.append((APPEND if isinstance(op, Append) else RESERVE, start, mark()))
        if num_queries and self.attend:
            start = mark()
            self.attention(seq, num_queries)
            spans.append((ATTEND, start, mark()))
        return self._clock.times(spans, continued)

    def attention(self, seq: int, num_queries: int) -> list[Tensor]:
        """Attend, layer by layer, with the queries of a sequence's newest tokens over all that it holds.

        Returns:
            The last chunk's output, a layer each, packed as its queries.
        """
        store = self._stores[seq]
        if num_queries == 1:
            queries = self._inputs.decode_queries[store.num_used % len(self._inputs.decode_queries)]
            return [attention(queries, store.pieces(layer), None) for layer in range(self.geometry.num_layers)]
        before = store.num_used - num_queries
        outputs = []
        for layer in range(self.geometry.num_layers):
            pieces = store.pieces(layer)
            for start, end in chunks(num_queries):
                queries = self._inputs.queries.narrow(2, 0, (end - start) * self._group_size)
                output = attention(queries, up_to(pieces, before + end), self._mask)
            outputs.append(output)
        return outputs

    def drain(self) -> list[Times] | None:
        """The times of steps that the device had not finished when `step` returned; None on a CPU."""
        return self._clock.drain()

    def allocator_peaks(self) -> dict[str, int]:
        """The allocator's own peaks since the repetition began, less what inputs held then; empty on a CPU."""
        peaks = devices.allocator_peaks(self.device)
        return {name: peak - self._baseline[name] for name, peak in peaks.items()}

    def describe(self) -> dict[str, object]:
        """Device, bandwidth and attention calls."""
        return {
            "device": str(self.device),
            "device_name": devices.device_name(self.device),
            "copy_bandwidth_bytes_per_s": round(devices.copy_bandwidth(self.device)),
            "attention": CALLS if self.attend else "off",
        }
