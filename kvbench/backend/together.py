"""Decode steps of several sequences in one call a layer: attention, however long each is, and appends to one pool."""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from kvbench.backend.attention import ON_CPU, aten, suits_flash
from kvbench.backend.base import APPEND, ATTEND
from kvbench.backend.clock import LateClock
from kvbench.backend.device import is_out_of_memory
from kvbench.backend.reading import decode
from kvbench.backend.storage import SequenceStore
from kvbench.backend.storage.base import Pair
from kvbench.backend.storage.transfer import carry

MOST_BYTES = 16 << 20
"""K and V of a layer, a sequence on average, up to which it pays: they are copied to lie together, and where that takes
longer than the calls that it saves (8 µs each, at 4 TB/s; figures of data sheets, not measured), each attends alone."""


class Token(NamedTuple):
    """K and V of a token, all layers' alike, each [1, num_kv_heads, 1, head_dim], and the slot of the pool for them."""

    keys: Tensor
    values: Tensor
    slot: int


class Waiting(NamedTuple):
    """A decode step whose attention waits for that of others.

    Args:
        sequence: what holds K and V, the new token's among them.
        queries: from `attention.packed`, of one token and one row.
        step: its number by the clock.
        token: what is still to be written; None where all is there.
    """

    sequence: SequenceStore
    queries: Tensor
    step: int
    token: Token | None = None


class Together:
    """Decode steps whose attention waits until all live requests have stepped, or until one of them is touched.

    Each step's time has its share of what was done together, by the tokens that it holds.

    Args:
        clock: of the steps.
        num_layers: of the model.
        most_bytes: K and V of a layer, a sequence on average, up to which they attend together; None: always.
    """

    def __init__(self, clock: LateClock, num_layers: int, most_bytes: int | None) -> None:
        self._clock = clock
        self._num_layers = num_layers
        self._most_bytes = most_bytes
        self._waiting: dict[int, Waiting] = {}

    @property
    def about(self) -> str:
        """What attends together, and whose time it is, for environment.json."""
        limit = "always" if self._most_bytes is None else f"to {self._most_bytes:,} bytes of K and V a layer on average"
        return (
            f"live requests' decode steps in one call a layer, {limit}, and a step's attention is its share by tokens; "
            "appends to blocks of one pool in one write a layer, a step's an equal share"
        )

    def add(self, seq: int, sequence: SequenceStore, queries: Tensor, token: Token | None = None) -> None:
        """Let the attention of the clock's newest step wait, and the write of its token."""
        self._waiting[seq] = Waiting(sequence, queries, self._clock.last_step, token)

    def before(self, seq: int) -> None:
        """A sequence is to be touched: what waits is done, if it is among them."""
        if seq in self._waiting:
            self.finish()

    def finish(self) -> None:
        """Attend with all that wait."""
        waiting, self._waiting = list(self._waiting.values()), {}
        self._write(waiting)
        if len(waiting) > 1 and self._pays(waiting) and self._attended(waiting):
            return
        for sequence, queries, step, _ in waiting:
            start = self._clock.mark()
            for layer in range(self._num_layers):
                decode(sequence, layer, queries)
            self._clock.share(ATTEND, start, self._clock.mark(), {step: 1.0})

    def _write(self, waiting: list[Waiting]) -> None:
        """Write the tokens that are still to be written: all are of one pool."""
        late = [(each, each.token) for each in waiting if each.token is not None]
        if not late:
            return
        start, tokens = self._clock.mark(), [token for _, token in late]
        store = late[0][0].sequence.only_blocks
        assert store is not None  # where else nothing is appended late
        keys = torch.cat([token.keys for token in tokens], dim=2)
        values = torch.cat([token.values for token in tokens], dim=2)
        slots = torch.empty(len(tokens), dtype=torch.int64, device=keys.device)
        carry(slots, torch.tensor([token.slot for token in tokens]))
        store.write(slots, keys, values)
        self._clock.share(APPEND, start, self._clock.mark(), {each.step: 1 / len(late) for each, _ in late})

    def _pays(self, waiting: list[Waiting]) -> bool:
        if self._most_bytes is None:
            return True
        token_bytes = 2 * waiting[0].queries.shape[1] * waiting[0].queries.shape[3] * waiting[0].queries.itemsize
        num_tokens = sum(each.sequence.num_held for each in waiting)
        return num_tokens * token_bytes <= self._most_bytes * len(waiting)

    def _attended(self, waiting: list[Waiting]) -> bool:
        """Attend together; no, where there is no memory for the copies."""
        start = self._clock.mark()
        try:
            ragged = Ragged([each.sequence for each in waiting], waiting[0].queries.shape[2])
            queries = torch.cat([each.queries for each in waiting])
            for layer in range(self._num_layers):
                ragged.decode(queries, layer)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return False
        total = sum(each.sequence.num_held for each in waiting)
        parts = {each.step: each.sequence.num_held / total for each in waiting}
        self._clock.share(ATTEND, start, self._clock.mark(), parts)
        return True


class Ragged:
    """What sequences of one row hold, end to end, to attend over in one call a layer.

    K and V are copied to lie so; of blocks of a pool by one gather. On CUDA flash attention takes them as they are,
    or the memory-efficient kernel what does not suit it; on a CPU, whose kernels have no ragged lengths, they are
    padded to the longest.

    Args:
        sequences: under one strategy, none of them staged but where blocks of a pool are all that it reads.
        group_size: query heads a KV head.
    """

    def __init__(self, sequences: Sequence[SequenceStore], group_size: int) -> None:
        self._sequences = sequences
        self._group_size = group_size
        self._paged = [store for sequence in sequences if (store := sequence.only_blocks) is not None]
        if self._paged:
            self._slots = torch.cat([store.slots for store in self._paged])
            self._lengths = [store.num_used for store in self._paged]
        else:
            self._lengths = [sum(keys.shape[2] for keys, _ in sequence.read(0)) for sequence in sequences]

    def keys_and_values(self, layer: int) -> Pair:
        """A layer's, each [num_kv_heads, tokens of all, head_dim]."""
        if self._paged:
            keys, values = self._paged[0].gathered(layer, self._slots)
            return keys[0], values[0]
        pairs = [pair for sequence in self._sequences for pair in sequence.read(layer)]
        return torch.cat([keys[0] for keys, _ in pairs], dim=1), torch.cat([values[0] for _, values in pairs], dim=1)

    def decode(self, queries: Tensor, layer: int) -> Tensor:
        """Attend with a token's queries a sequence, which may look everywhere in their own.

        Args:
            queries: from `attention.packed`, a sequence a row.
            layer: which.
        Returns:
            As queries.
        """
        keys, values = self.keys_and_values(layer)
        if queries.device.type == ON_CPU:
            return self._padded(queries, keys, values)
        # [num_kv_heads, rows, head_dim] in memory, and [rows, num_kv_heads, head_dim] to the kernels.
        rows = queries.transpose(0, 1).flatten(1, 2).transpose(0, 1)
        keys, values = keys.transpose(0, 1), values.transpose(0, 1)
        ends = *self._ends, self._group_size, max(self._lengths)
        if suits_flash(queries):
            found = aten._flash_attention_forward(rows, keys, values, *ends, 0.0, False, False)[0]
        else:
            batch = (each.unsqueeze(0) for each in (rows, keys, values))
            found = aten._efficient_attention_forward(*batch, None, *ends, 0.0, 0, False)[0].squeeze(0)
        by_sequence: Tensor = found.unflatten(0, (len(queries), self._group_size))
        return by_sequence.transpose(1, 2)

    @cached_property
    def _ends(self) -> tuple[Tensor, Tensor]:
        """Where each sequence's queries, and its tokens, begin and end: int32 [sequences + 1] on the device."""
        device, rows = self._sequences[0].device, [self._group_size] * len(self._lengths)
        ends = [list(accumulate(each, initial=0)) for each in (rows, self._lengths)]
        both = torch.tensor(ends, dtype=torch.int32).to(device)
        return both[0], both[1]

    def _padded(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        keys, values = (
            pad_sequence([own.transpose(0, 1) for own in each.split(self._lengths, dim=1)], True).transpose(1, 2)
            for each in (keys, values)
        )
        mask = torch.arange(keys.shape[2]) < torch.tensor(self._lengths)[:, None, None, None]
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
