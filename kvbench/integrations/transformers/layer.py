"""One layer of a cache: what transformers asks of it, answered by the layer's own store."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import CacheLayerMixin

from kvbench.backend.storage import SequenceStore
from kvbench.integrations.stores import write
from kvbench.integrations.transformers.attention import TAG, attend, check_supported
from kvbench.integrations.transformers.rotation import Compacted
from kvbench.integrations.transformers.shared import USE_ATTENTION, Shared
from kvbench.integrations.transformers.visibility import PositionMask
from kvbench.ledger.view import UNLIMITED
from kvbench.plan.area import Cast
from kvbench.plan.ops import MAIN


class KVBenchLayer(CacheLayerMixin):
    """K and V of one layer.

    What concerns all layers (a step's plan, other rows, a truncation) is booked when the first of them is asked, and
    carried out by each when its turn comes.

    Args:
        shared: what all layers of its cache know.
        number: which layer of the model.
    """

    is_compileable = False

    def __init__(self, shared: Shared, number: int) -> None:
        super().__init__()
        self._shared = shared
        self._number = number
        self._place = shared.place_of(number)
        self._window = shared.window_of(number)
        self.is_sliding = self._window is not None

    @property
    def is_croppable(self) -> bool:  # type: ignore[override]  # a constant of the class there
        """Whether `crop` leaves no trace: all tokens are there as they came, or cast, that no window has passed."""
        strategy = self._shared.strategy
        is_cast = strategy.attends_all and all(isinstance(area.format, Cast) for area in strategy.areas)
        has_main = any(area.name == MAIN for area in strategy.areas)
        return (strategy.lossless or is_cast) and has_main and not self.is_sliding

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Learn shapes, dtype and device from the first tokens."""
        self._shared.initialize(key_states, value_states)
        self.dtype, self.device, self.batch_size = key_states.dtype, key_states.device, key_states.shape[0]
        self.is_initialized = True

    @property
    def _sequence(self) -> SequenceStore | None:
        """The layer's store; None before the first token."""
        batch = self._shared.batch
        return batch.sequences[self._place] if batch is not None and batch.sequences else None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Take new tokens.

        Args:
            key_states: keys as attention reads them, [num_rows, num_kv_heads, num_tokens, head_dim].
            value_states: as key_states.
            args: nothing that is read.
            kwargs: nothing that is read.
        Returns:
            All keys and values in order; under kvbench's attention the new ones, to be taken there.
        Raises:
            OutOfMemory: they do not fit.
            CapacityExceeded: the strategy cannot hold so much.
        """
        shared = self._shared
        if not self.is_initialized or self._sequence is None:
            self.lazy_initialization(key_states, value_states)
        shared.check(key_states, value_states)
        if shared.uses_own_attention:
            shared.expect(self._number)
            setattr(key_states, TAG, self)
            return key_states, value_states
        shared.check_whole()
        batch, _ = shared.live
        if self._place == 0:
            batch.begin(key_states.shape[2])
        strides = batch.strides_of(self._place)
        if self.is_sliding and len(strides) > 1:
            name = type(shared.strategy).__name__
            raise RuntimeError(f"{name} takes {len(strides)} parts of a step, which a window passes; {USE_ATTENTION}")
        sequence = batch.enter(self._place)
        done = 0
        for stride in strides:
            end = done + stride.num_tokens
            write(sequence, stride.plan, key_states[:, :, done:end], value_states[:, :, done:end])
            for op in stride.after:
                sequence.carry_out(op, [], [])
            done = end
        batch.leave(self._place, is_attended=False)
        found = whole(sequence)
        sequence.land()
        return found

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> Tensor:
        """Take new tokens and attend with their queries, as many at once as the strategy says.

        Args:
            module: the layer's attention.
            query: [num_rows, num_heads, num_tokens, head_dim].
            key: [num_rows, num_kv_heads, num_tokens, head_dim].
            value: as key.
            mask: bool, [num_rows, 1, num_tokens, positions]; None: causal.
            kwargs: scaling and what else models give.
        Returns:
            [num_rows, num_tokens, num_heads, head_dim].
        """
        check_supported(module, kwargs)
        shared = self._shared
        batch, arranged = shared.live
        shared.arrived()
        if mask is not None and mask.shape[0] < key.shape[0]:
            mask = mask.expand(key.shape[0], -1, -1, -1)
        if self._place == 0:
            shared.begin(mask, key.shape[2], self.get_seq_length())
        if self.is_sliding:
            arranged = shared.unarranged  # a window's tokens are the newest as they came
        sequence = batch.enter(self._place)
        first = sequence.num_seen
        query, key, value = (arranged.tokens(tensor) for tensor in (query, key, value))
        done, outputs = 0, []
        for stride in batch.strides:
            end = done + stride.num_tokens
            write(sequence, stride.plan, key[:, :, done:end], value[:, :, done:end])
            asked = None if mask is None else arranged.tokens(mask)[:, :, done:end]
            sight = PositionMask(asked, first + done, arranged.places)
            read = sequence if shared.angles is None or self.is_sliding else Compacted(sequence, shared.angles)
            outputs.append(attend(module, read, query[:, :, done:end], key.shape[1], sight, **kwargs))
            for op in stride.after:
                sequence.carry_out(op, [], [])
            done = end
        sequence.land()
        batch.leave(self._place, is_attended=True)
        return arranged.output(outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1))

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the mask: over all positions, whatever is held; of a window over what `update` gives."""
        self._shared.check_arrived()
        num_seen = self.get_seq_length()
        num_tokens = num_seen + query_length
        if self._window is None or self._shared.uses_own_attention or num_tokens <= self._window:
            return num_tokens, 0
        num_old = min(num_seen, self._window - 1)
        return num_old + query_length, num_seen - num_old

    def get_seq_length(self) -> int:
        """Tokens seen, evicted ones included."""
        return 0 if self._sequence is None else self._sequence.num_seen

    def get_max_length(self) -> int:
        """Tokens that the strategy can hold; -1 where it names no maximum."""
        most = self._shared.strategy.max_tokens
        return -1 if most >= UNLIMITED else most

    def reset(self) -> None:
        """Forget all tokens."""
        if self._place == 0:
            self._shared.reset()
        self.is_initialized = False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Hold chosen rows: of each beam, the one that it goes on from."""
        self._select(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Hold chosen rows only."""
        self._select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Hold each row so many times."""
        if self._sequence is not None:
            self._select(torch.arange(self.batch_size, device=self.device).repeat_interleave(repeats))

    def _select(self, index: Tensor) -> None:
        sequence = self._sequence
        if sequence is None:
            return
        index = row_numbers(index, self.batch_size)
        if self._place == 0:
            self._shared.book_rows(index)
        sequence.select_rows(index)
        self.batch_size = len(index)

    def crop(self, tokens_to_remove: int | Tensor) -> None:
        """Remove the newest tokens.

        Args:
            tokens_to_remove: minus how many; 0 for none. Generation counts what a draft got wrong on the device, and
                hands the count over as it is.
        Raises:
            ValueError: it is positive.
            LedgerError: tokens were evicted or rounded, so that what was cannot be restored.
        """
        tokens_to_remove = int(tokens_to_remove)
        if tokens_to_remove > 0:
            raise ValueError(f"crop takes minus the number of tokens to remove, got {tokens_to_remove}")
        sequence = self._sequence
        if not tokens_to_remove or sequence is None:
            return
        if self._place == 0:
            self._shared.book_truncation(-tokens_to_remove)
        for op in self._shared.truncation:
            sequence.carry_out(op, [], [])


def row_numbers(index: Tensor, num_rows: int) -> Tensor:
    """Rows as numbers from 0 on: from bools, or numbers that count from the end where they are negative.

    Raises:
        ValueError: there is no such row.
    """
    if index.dtype == torch.bool:
        return index.nonzero()[:, 0]
    if len(index) and not -num_rows <= int(index.min()) <= int(index.max()) < num_rows:
        raise ValueError(f"the batch has rows 0 to {num_rows - 1}, got {index.tolist()}")
    return index % num_rows


def whole(sequence: SequenceStore) -> tuple[Tensor, Tensor]:
    """All K and V that one layer holds, in order: as they lie, or joined where they lie apart.

    Returns:
        [num_rows, num_kv_heads, tokens, head_dim] each; of latents the rotary part is as wide as it came.
    """
    window = sequence.window
    store = sequence.ends_with_newest if window is None else window
    if store is not None:
        pieces = store.pieces(0)
        if len(pieces) == 1:
            return pieces[0].keys, pieces[0].values
        if window is not None:
            return torch.cat([piece.keys for piece in pieces], 2), torch.cat([piece.values for piece in pieces], 2)
    keys = values = torch.empty(0)
    done = 0
    for _, piece in sequence.pieces(0):  # a staged piece lies where the next will
        if not done:
            keys, values = (
                each.new_empty(*each.shape[:2], sequence.num_seen, each.shape[3]) for each in (piece.keys, piece.values)
            )
        end = done + piece.keys.shape[2]
        keys[:, :, done:end], values[:, :, done:end] = piece.keys, piece.values
        done = end
    return keys, values
