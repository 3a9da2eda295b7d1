"""Attention over what a cache of kvbench's holds, registered with transformers by a name of its own.

Transformers' functions are given keys, values and one mask for all rows and heads: enough for a cache that holds every
token in order. A cache that evicts is read slot by slot with the slots' own positions, and one that ranks by attention
mass must see the queries; both happen here. Caches that are not kvbench's are attended by scaled-dot-product attention
as before.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from kvbench.backend.attention import QUERY_CHUNK, chosen_kernels, packed
from kvbench.backend.reading import Chunk, by_piece, decode
from kvbench.backend.signals import by_piece_with_mass, notes_mass, queries_at_once
from kvbench.backend.storage import Piece, SequenceStore
from kvbench.integrations.transformers.rotation import Compacted
from kvbench.integrations.transformers.visibility import PositionMask
from kvbench.plan.area import Contiguous

ATTENTION = "kvbench"
"""The name that it is registered by, for `attn_implementation`."""

TAG = "kvbench_layer"
"""The attribute by which new keys say which cache they are for."""

UNSUPPORTED = ("softcap", "s_aux", "position_bias")
"""What some models' attention takes beside queries, keys, values and a mask."""


def use_attention(model: PreTrainedModel) -> None:
    """Let a model attend over a `KVBenchCache` of any strategy.

    It sets the model's attention to "kvbench"; with other caches, or none, that is scaled-dot-product attention.

    Args:
        model: of the transformers library.
    Raises:
        ValueError: the model does not let its attention be chosen.
    """
    register()
    model.set_attn_implementation(ATTENTION)
    if model.config.get_text_config(decoder=True)._attn_implementation != ATTENTION:
        raise ValueError(f"{type(model).__name__} does not let its attention be chosen")


def register() -> None:
    """Make the name known to transformers; a second time changes nothing."""
    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attend with a layer's new queries over its cache.

    Args:
        module: the layer's attention.
        query: [num_rows, num_heads, num_queries, head_dim].
        key: of the new tokens, [num_rows, num_kv_heads, num_queries, head_dim], where the cache is kvbench's; else of
            all.
        value: as key.
        attention_mask: bool, [num_rows, 1, num_queries, positions]; None: causal.
        kwargs: scaling and what else models give.
    Returns:
        [num_rows, num_queries, num_heads, head_dim], and no weights.
    """
    layer = getattr(key, TAG, None)
    if layer is None:
        with chosen_kernels(query.device):
            return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)[0], None
    return layer.attend(module, query, key, value, attention_mask, **kwargs), None


def check_supported(module: nn.Module, kwargs: dict[str, object]) -> None:
    """Refuse what an attention over slots does not do.

    Raises:
        ValueError: a model's attention is of another kind, or in training with dropout.
    """
    found = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
    if found:
        raise ValueError(f"{type(module).__name__} attends with {', '.join(found)}, which kvbench's attention has not")
    if kwargs.get("dropout"):
        raise ValueError("dropout is for training; call model.eval() first")


def attend(
    module: nn.Module,
    sequence: SequenceStore | Compacted,
    query: Tensor,
    num_kv_heads: int,
    sight: PositionMask,
    **kwargs: Any,
) -> Tensor:
    """Attend with the newest tokens' queries over all that one layer holds; scores get their mass.

    Where all tokens lie in one place in order, this is transformers' own call.

    Args:
        module: the layer's attention.
        sequence: the layer's store.
        query: [num_rows, num_heads, num_queries, head_dim].
        num_kv_heads: heads of K and V.
        sight: what they may look at.
        kwargs: scaling and what else models give.
    Returns:
        [num_rows, num_queries, num_heads, head_dim].
    """
    if not notes_mass(sequence.score, query.shape[2]):
        whole = whole_context(sequence, sight)
        if whole is not None:
            mask = None if sight.mask is None else sight.mask[..., : sequence.num_seen]
            with chosen_kernels(query.device):
                return sdpa_attention_forward(module, query, *whole, mask, **kwargs)[0]
    head_dim = query.shape[3]
    scaling = kwargs.get("scaling")
    if scaling is not None and scaling != head_dim**-0.5:
        query = query * (scaling * head_dim**0.5)
    output = _by_piece(sequence, query, num_kv_heads, sight)
    return _unpacked(output, query.shape)


def whole_context(sequence: SequenceStore | Compacted, sight: PositionMask) -> tuple[Tensor, Tensor] | None:
    """K and V where the model's own mask fits them as they lie; else None.

    One query that may look everywhere asks for no order.
    """
    store = sequence.ends_with_newest
    if store is None:
        return None
    pairs = store.read(0)
    if len(pairs) != 1:
        return None
    if sight.mask is None:
        if sequence.num_seen - sight.first == 1:
            return pairs[0]
        if sight.first:  # without a mask, several queries are taken for the first
            return None
    if isinstance(store.area.layout, Contiguous):
        is_whole = store.num_used == sequence.num_seen
    else:
        is_whole = store.pieces(0)[0].positions == range(sequence.num_seen)
    return pairs[0] if is_whole and sight.places is None else None


def _by_piece(sequence: SequenceStore | Compacted, query: Tensor, num_kv_heads: int, sight: PositionMask) -> Tensor:
    """Attend piece by piece; packed as `packed` does it."""
    group_size = query.shape[1] // num_kv_heads
    num_queries = query.shape[2]
    notes = notes_mass(sequence.score, query.shape[2])
    if num_queries == 1 and sight.mask is None and isinstance(sequence, SequenceStore) and not notes:
        return decode(sequence, 0, packed(query, num_kv_heads))
    store = sequence.ends_with_newest
    if not notes and store is not None and len(store.pieces(0)) == 1:
        return _in_one_piece(store.pieces(0)[0], query, num_kv_heads, sight)
    size = QUERY_CHUNK
    if notes:
        size = queries_at_once(query.shape[0] * query.shape[1] * sequence.num_held, QUERY_CHUNK)
    chunks: list[Chunk] = [
        (sight.first + start, packed(query[:, :, start : start + size], num_kv_heads))
        for start in range(0, num_queries, size)
    ]
    read = by_piece_with_mass if notes else by_piece
    outputs = torch.cat(read(sequence, 0, chunks, group_size, sight), dim=2)
    # A query that may look nowhere is padding's; its output is of no meaning, but has to be finite.
    return outputs if sight.mask is None else outputs.nan_to_num(0.0)


def _in_one_piece(piece: Piece, query: Tensor, num_kv_heads: int, sight: PositionMask) -> Tensor:
    """In chunks of queries, so that the mask stays small."""
    outputs, group_size = [], query.shape[1] // num_kv_heads
    for start in range(0, query.shape[2], QUERY_CHUNK):
        asked = query[:, :, start : start + QUERY_CHUNK]
        seen = sight(piece, sight.first + start, asked.shape[2], group_size)
        assert seen is not False  # the piece has the queries' own tokens
        rows = packed(asked, num_kv_heads)
        with chosen_kernels(query.device):
            outputs.append(F.scaled_dot_product_attention(rows, piece.keys, piece.values, attn_mask=seen))
    output = torch.cat(outputs, dim=2)
    return output if sight.mask is None else output.nan_to_num(0.0)


def _unpacked(output: Tensor, shape: torch.Size) -> Tensor:
    """From rows by KV head to tokens by head."""
    num_rows, num_heads, num_queries, _ = shape
    num_kv_heads, head_dim = output.shape[1], output.shape[3]
    grouped = output.view(num_rows, num_kv_heads, num_queries, num_heads // num_kv_heads, head_dim)
    return grouped.transpose(1, 2).reshape(num_rows, num_queries, num_heads, head_dim)
