"""vLLM's pool: from a rank's layers to blocks of equal pages, and what a sequence takes of them."""

import math
from collections.abc import Sequence
from dataclasses import replace

from kvbench.engine.pages import Layers, equal_pages, group_size, least_block, need_of, num_groups
from kvbench.engine.pool import Pool, SubPool
from kvbench.model.groups import CHUNKED, CONVOLUTION, FULL, LATENT, SHARING, STATE, WINDOW, LayerGroup, StateTensor
from kvbench.model.model import Model

GROWING = (FULL, LATENT)
SPARSE_FP8_BYTES = 656
"""Of a token and layer of a latent cache with an indexer in fp8: 512 values, 4 scales, a rotary part of 16 bits."""


def with_drafter(rank: Model, num_layers: int) -> Model:
    """The model with so many layers more of the first kind that holds all tokens, as a drafter of its own family has.

    Args:
        rank: the model.
        num_layers: 0 or more.
    """
    first = next((group for group in rank.groups if group.kind in GROWING), None)
    if not num_layers or first is None:
        return rank
    most = rank.num_layers + num_layers
    longer = replace(first, layers=(*first.layers, *range(rank.num_layers, most)))
    groups = tuple(longer if group is first else group for group in rank.groups)
    return replace(rank, groups=groups, num_layers=most)


def layers_of(
    rank: Model,
    *,
    max_model_len: int,
    block_size: int,
    mode: str,
    mamba_block_size: int,
    state_dtype: str | None,
    num_drafts: int,
    whole_windows: bool,
) -> list[Layers]:
    """The layers of a rank that hold the same, with their pages.

    Args:
        rank: the model of the rank.
        max_model_len: the longest sequence.
        block_size: tokens of a block; states raise it.
        mode: what a sequence holds of a state: none, align or all.
        mamba_block_size: tokens that checkpoints of mode "all" keep to.
        state_dtype: of recurrent states; None: what the model says.
        num_drafts: tokens that a drafter proposes, for which a convolution keeps columns.
        whole_windows: windows and chunks are kept as if they were full, where there is full attention too.
    """
    groups = [group for group in rank.groups if group.kind != SHARING]
    growing = [group for group in groups if group.kind != STATE]
    largest = max(
        (state_bytes(group.state, state_dtype, num_drafts) for group in groups if group.kind == STATE), default=0
    )
    if largest and growing:
        token_bytes = _token_bytes(next((group for group in growing if group.kind in GROWING), growing[0]))
        step = math.lcm(mamba_block_size, block_size) if mode == "all" else block_size
        block_size = max(block_size, least_block(largest, token_bytes, step))
    whole = whole_windows and any(group.kind in GROWING for group in groups)
    found: dict[tuple[object, ...], Layers] = {}
    for group in groups:
        if group.kind == STATE:
            used_bytes = state_bytes(group.state, state_dtype, num_drafts)
            block_tokens = block_size if growing and mode != "none" else max_model_len
            shape: tuple[object, ...] = group.state
        else:
            block_tokens, used_bytes = block_size, block_size * _token_bytes(group)
            shape = (group.num_kv_heads, group.key_dim, group.value_dim, group.dtype)
        kind, tokens = (FULL, None) if whole and group.kind != STATE else (group.kind, group.tokens)
        key = (kind, tokens, used_bytes, *shape)
        before = found[key].num_layers if key in found else 0
        found[key] = Layers(
            kind=kind,
            num_layers=before + group.num_layers,
            block_tokens=block_tokens,
            used_bytes=used_bytes,
            page_bytes=used_bytes,
            tokens=tokens,
        )
    return list(found.values())


def pool_of(
    rank: Model,
    layers: Sequence[Layers],
    available_bytes: int,
    *,
    num_blocks: int | None,
    max_model_len: int,
    scheduled_tokens: int,
    state_blocks: int,
    num_drafts: int,
    ranks: int,
    most_ratio: float,
    held_back: int,
    by_concurrency: bool,
) -> Pool:
    """The pool of a rank.

    Args:
        rank: the model of the rank.
        layers: its layers that hold the same, with their pages.
        available_bytes: of the rank, for the cache.
        num_blocks: blocks, whatever the memory; None: what it gives.
        max_model_len: the longest sequence.
        scheduled_tokens: tokens of one sequence that may be computed and not be done with.
        state_blocks: of a sequence, beside one a draft; 0: one every block of tokens.
        num_drafts: tokens that a drafter proposes.
        ranks: that a sequence's tokens are divided over.
        most_ratio: layers of the most frequent kind over those of the least, below which a group is of the most.
        held_back: blocks that no sequence gets.
        by_concurrency: tokens are printed as the longest sequences that fit, and not as blocks shared by all groups.
    Raises:
        ValueError: no layer holds anything, or tokens are divided over ranks and some layers have windows.
    """
    if not layers:
        raise ValueError(f"model {rank.name}: no layer of it holds anything, so there is no cache to size")
    if ranks > 1 and any(each.kind in (WINDOW, CHUNKED) for each in layers):
        raise ValueError(f"parallel.decode_context is 1 where layers have windows, as {rank.name} has; got {ranks}")
    states = state_blocks + num_drafts if state_blocks else 0
    if len({FULL if each.kind in GROWING else (each.kind, each.tokens) for each in layers}) == 1:
        # One group, whatever the layers' widths: pages need not be equal.
        block_bytes = sum(each.num_layers * each.page_bytes for each in layers)
        layers = [replace(layers[0], num_layers=1, used_bytes=block_bytes, page_bytes=block_bytes)]
        size = 1
    else:
        layers = equal_pages(layers)
        size = group_size([each.num_layers for each in layers], most_ratio)
        block_bytes = size * layers[0].page_bytes
    needs = tuple(need_of(each, size, scheduled_tokens, states, ranks) for each in layers)
    blocks = max(available_bytes, 0) // block_bytes if num_blocks is None else num_blocks
    part = SubPool(name="blocks", num_blocks=blocks, block_bytes=block_bytes, needs=needs, held_back=held_back)
    concurrency = blocks / part.blocks_of(max_model_len)
    groups, block_tokens = sum(need.num_groups for need in needs), min(each.block_tokens for each in layers)
    return Pool(
        parts=(part,),
        rank=rank,
        ranks=ranks,
        block_tokens=block_tokens,
        num_groups=groups,
        num_tokens=int(concurrency * max_model_len) if by_concurrency else blocks // groups * block_tokens * ranks,
        max_concurrency=concurrency,
        max_model_len=max_model_len,
        padding_layers=sum(num_groups(each.num_layers, size) * size - each.num_layers for each in layers),
    )


def _token_bytes(group: LayerGroup) -> int:
    """Of a layer, as vLLM lays it out."""
    if group.kind == LATENT and group.index_bytes and group.dtype.startswith("fp8"):
        return SPARSE_FP8_BYTES + group.index_bytes
    return group.layer_token_bytes


def state_bytes(state: Sequence[StateTensor], dtype: str | None, num_drafts: int = 0) -> int:
    """Of a layer and sequence.

    Args:
        state: the layer's.
        dtype: of recurrent states; None: what the model says.
        num_drafts: columns more that a convolution keeps, one a token that a drafter proposes.
    """
    total = 0
    for tensor in state:
        if tensor.name == CONVOLUTION:
            tensor = replace(tensor, columns=tensor.columns + num_drafts)
        elif dtype is not None:
            tensor = replace(tensor, dtype=dtype)
        total += tensor.num_bytes
    return total
