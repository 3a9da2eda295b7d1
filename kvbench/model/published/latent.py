"""Layers with multi-head latent attention: a token is one vector for K and V of all heads, and the rotary part of K.

Source: DeepSeek-V2, arXiv:2405.04434, section 2.1; the indexer, DeepSeek-V3.2, arXiv:2512.02556, section 2.1.
"""

from collections.abc import Callable, Iterator, Sequence

from kvbench.model.groups import LATENT, LayerGroup
from kvbench.model.published.attention import Part, numbers_by_kind
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, kept, matrix, vector
from kvbench.model.weights import REPLICATED

ELEMENTS_A_SCALE, SCALE_BYTES = 128, 4
INDEXED = ("indexed_attention", "deepseek_sparse_attention", "full_attention")
FULL, SHARED = "full", "shared"

Indexers = Callable[[Fields], Sequence[bool]]
"""Which layers have an indexer of their own."""


def no_indexer(fields: Fields) -> Sequence[bool]:
    """No layer has one."""
    return [False] * fields.num_layers


def all_indexed(fields: Fields) -> Sequence[bool]:
    """Every layer has one (DeepSeek-V3.2)."""
    fields.listed("layer_types", INDEXED)
    return [True] * fields.num_layers


def sharing_indexers(fields: Fields) -> Sequence[bool]:
    """Some layers take the choice of the last one before them that has an indexer (GLM-5)."""
    fields.listed("layer_types", INDEXED)
    pattern = fields.value("index_topk_pattern")
    period = fields.number("index_topk_freq", 1)
    offset = fields.number("index_skip_topk_offset", 2, least=0)
    types = fields.listed("indexer_types", (FULL, SHARED))
    if types is not None:
        return [kind == FULL for kind in types]
    if pattern is not None:
        letters = list(pattern) if isinstance(pattern, str) else pattern
        if not isinstance(letters, list) or len(letters) != fields.num_layers or {*letters} - {"F", "S", FULL, SHARED}:
            raise fields.refused("index_topk_pattern", f"{fields.num_layers} letters F or S", pattern)
        return [letter in ("F", FULL) for letter in letters]
    return [max(layer - offset + 1, 0) % period == 0 for layer in fields.layers]


def latent(indexers: Indexers = no_indexer, only: Callable[[Fields], Sequence[bool]] | None = None) -> Part:
    """Latent attention.

    Args:
        indexers: which layers hold the keys of a sparse attention's indexer too.
        only: which layers attend so; None: all.
    """

    def part(fields: Fields) -> Iterator[AlikeLayers]:
        indexed = indexers(fields)
        attends = only(fields) if only else [True] * fields.num_layers
        kinds = [("i" if own else "p") if here else "" for own, here in zip(indexed, attends, strict=True)]
        for kind, numbers in numbers_by_kind(kinds).items():
            if kind:
                yield _layers(fields, numbers, is_indexed=kind == "i")

    return part


def _layers(fields: Fields, numbers: tuple[int, ...], *, is_indexed: bool) -> AlikeLayers:
    num_heads = fields.number("num_attention_heads")
    for key in ("num_key_value_heads", "head_dim", "qk_head_dim"):
        fields.value(key)  # what they say is not of a latent
    content, rotary = fields.number("kv_lora_rank"), fields.number("qk_rope_head_dim")
    value = fields.number("v_head_dim")
    group = LayerGroup(
        kind=LATENT,
        layers=numbers,
        num_heads=num_heads,
        num_kv_heads=1,
        key_dim=content + rotary,
        value_dim=content,
        index_bytes=_index_bytes(fields) if is_indexed else 0,
    )
    blocks = [*_products(fields, num_heads, content, rotary, value), *(_indexer(fields) if is_indexed else ())]
    return AlikeLayers(numbers=numbers, blocks=tuple(blocks), group=group)


def _products(fields: Fields, num_heads: int, content: int, rotary: int, value: int) -> Iterator[Weights]:
    hidden, names, bias = fields.hidden, "self_attn", fields.flag("attention_bias")
    plain = fields.number("qk_nope_head_dim")
    query, low = num_heads * (plain + rotary), fields.optional("q_lora_rank")
    if low is None:
        yield from matrix("attention", f"{names}.q_proj", hidden, query)
    else:
        yield from matrix("attention", f"{names}.q_a_proj", hidden, low, bias=bias, split=REPLICATED)
        yield vector("norms", low)
        yield from matrix("attention", f"{names}.q_b_proj", low, query)
    yield from matrix("attention", f"{names}.kv_a_proj_with_mqa", hidden, content + rotary, bias=bias, split=REPLICATED)
    yield vector("norms", content)
    yield from matrix("attention", f"{names}.kv_b_proj", content, num_heads * (plain + value))
    yield from matrix("attention", f"{names}.o_proj", num_heads * value, hidden, bias=bias, bias_split=REPLICATED)


def _index_bytes(fields: Fields) -> int:
    """Of a token and layer: a key of eight bits an element, and a scale of float32 for each 128."""
    width = fields.number("index_head_dim")
    return width + -(-width // ELEMENTS_A_SCALE) * SCALE_BYTES


def _indexer(fields: Fields) -> Iterator[Weights]:
    heads, width = fields.number("index_n_heads"), fields.number("index_head_dim")
    low = fields.number("q_lora_rank")
    fields.number("index_topk")
    yield from matrix("attention", "self_attn.indexer.wq_b", low, heads * width, split=REPLICATED)
    yield from matrix("attention", "self_attn.indexer.wk", fields.hidden, width, split=REPLICATED)
    yield vector("norms", 2 * width)
    yield kept("attention", "self_attn.indexer.weights_proj", fields.hidden, heads)
