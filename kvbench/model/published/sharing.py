"""Gemma 3n and 4: the last layers read the cache of earlier ones, and each layer has an embedding of its own."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from kvbench.model.groups import SHARING, LayerGroup
from kvbench.model.published.attention import Heads, Part, heads_of, numbers_by_kind
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, dense_blocks, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.gemma import GEMMA3
from kvbench.model.published.pieces import AlikeLayers, Weights, matrix, vector
from kvbench.model.published.windows import FULL_ATTENTION, Kinds, every
from kvbench.model.weights import EMBEDDING, KV_HEADS, REPLICATED

SHARED, PER_LAYER = "num_kv_shared_layers", "hidden_size_per_layer_input"


def _first_sharing(fields: Fields) -> int:
    """The first layer that reads another's cache."""
    return fields.num_layers - fields.number(SHARED, 0, least=0, most=fields.num_layers - 1)


def _sharing_attention(kinds: Kinds, heads: Callable[[Fields, str], Heads], has_values: Callable[..., bool]) -> Part:
    """Attention of which the last layers have no K and V of their own.

    Args:
        kinds: which layers have a window.
        heads: by kind of layer.
        has_values: whether layers of a kind have a product for values, or take that of keys.
    """

    def part(fields: Fields) -> Iterator[AlikeLayers]:
        first = _first_sharing(fields)
        for kind, numbers in numbers_by_kind(kinds(fields)).items():
            own = heads(fields, kind)
            for shares in (False, True):
                here = tuple(number for number in numbers if (number >= first) == shares)
                if here:
                    blocks = tuple(_attention(fields, own, shares, has_values(fields, kind)))
                    yield AlikeLayers(numbers=here, blocks=blocks, group=_group(fields, own, kind, here, shares))

    return part


def _attention(fields: Fields, own: Heads, shares: bool, has_values: bool) -> Iterator[Weights]:
    hidden, bias, names = fields.hidden, fields.flag("attention_bias"), "self_attn"
    yield from matrix("attention", f"{names}.q_proj", hidden, own.num_heads * own.key_dim, bias=bias)
    if not shares:
        width = own.num_kv_heads * own.key_dim
        yield from matrix("attention", f"{names}.k_proj", hidden, width, bias=bias, split=KV_HEADS)
        if has_values:
            yield from matrix("attention", f"{names}.v_proj", hidden, width, bias=bias, split=KV_HEADS)
    width = own.num_heads * own.value_dim
    yield from matrix("attention", f"{names}.o_proj", width, hidden, bias=bias, bias_split=REPLICATED)
    yield vector("norms", own.key_dim * (1 if shares else 2))


def _group(fields: Fields, own: Heads, kind: str, layers: tuple[int, ...], shares: bool) -> LayerGroup:
    held = own.group(fields, kind, layers)
    return replace(held, kind=SHARING, num_kv_heads=0, tokens=None) if shares else held


def _per_layer(fields: Fields) -> Iterator[AlikeLayers]:
    """What brings a layer's own embedding into it."""
    width, hidden = fields.number(PER_LAYER, 0, least=0), fields.hidden
    if width:
        blocks = (
            *matrix("feed_forward", "per_layer_input_gate", hidden, width, split=REPLICATED),
            *matrix("feed_forward", "per_layer_projection", width, hidden, split=REPLICATED),
            vector("norms", hidden),
        )
        yield AlikeLayers(numbers=fields.layers, blocks=blocks)


def _embeddings(fields: Fields) -> Iterator[Weights]:
    """The table of layers' own embeddings, of which a step reads few rows, and what projects to them."""
    width = fields.number(PER_LAYER, 0, least=0) * fields.num_layers
    rows = fields.number("vocab_size_per_layer_input", fields.number("vocab_size"))
    if width:
        yield Weights(part="embedding_per_layer", num_parameters=rows * width, kind=EMBEDDING)
        yield from matrix("feed_forward", "per_layer_model_projection", fields.hidden, width)
        yield vector("norms", fields.number(PER_LAYER))


def _gemma4_heads(fields: Fields, kind: str) -> Heads:
    """Layers that see all tokens have wider heads, and fewer of K and V where those are one product."""
    own = heads_of(fields)
    width, count = fields.number("global_head_dim", 512), fields.optional("num_global_key_value_heads")
    if kind != FULL_ATTENTION:
        return own
    if count is None or not fields.flag("attention_k_eq_v"):
        count = own.num_kv_heads
    if own.num_heads % count:
        raise fields.refused("num_global_key_value_heads", f"a divisor of {own.num_heads} heads", count)
    return Heads(own.num_heads, count, width, width)


def _gemma4_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    """A dense part, twice as wide where a layer shares its cache if that is said; and experts beside it."""
    first, width = _first_sharing(fields), fields.number("intermediate_size")
    for numbers, times in (
        (fields.layers[:first], 1),
        (fields.layers[first:], 2 if fields.flag("use_double_wide_mlp") else 1),
    ):
        if numbers:
            dense = dense_blocks(fields.hidden, fields.wide(width * times))
            yield AlikeLayers(numbers=numbers, blocks=tuple(dense))
    if fields.flag("enable_moe_block"):
        own = Experts(count="num_experts", chosen="top_k_experts", names="moe")
        extra = vector("router", fields.hidden + fields.number("num_experts"))
        blocks = (*own.blocks(fields), extra, vector("norms", 3 * fields.hidden))
        yield AlikeLayers(numbers=fields.layers, blocks=blocks)
        fields.wide(width + fields.number("top_k_experts") * fields.number("moe_intermediate_size"))


GEMMA4 = Family(
    parts=(
        _sharing_attention(
            every(6),
            _gemma4_heads,
            lambda fields, kind: not (kind == FULL_ATTENTION and fields.flag("attention_k_eq_v")),
        ),
        _gemma4_feed_forward,
        norms(4),
        _per_layer,
    ),
    outside=_embeddings,
    defaults={
        **GEMMA3.defaults,
        "vocab_size": 262144,
        "sliding_window": 512,
        PER_LAYER: 256,
        "vocab_size_per_layer_input": 262144,
        "num_experts": None,
        "top_k_experts": None,
        "moe_intermediate_size": None,
        "expert_intermediate_size": None,
    },
)


def _gemma3n_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    """Layers may be of different widths; each has a low-rank part and the alternating updates beside it."""
    found = fields.value("intermediate_size")
    widths = found if isinstance(found, list) else [fields.number("intermediate_size")] * fields.num_layers
    if len(widths) != fields.num_layers or any(type(width) is not int or width < 1 for width in widths):
        raise fields.refused("intermediate_size", f"a positive integer, or {fields.num_layers} of them", found)
    for width in dict.fromkeys(widths):
        numbers = tuple(number for number, own in enumerate(widths) if own == width)
        yield AlikeLayers(numbers=numbers, blocks=tuple(dense_blocks(fields.hidden, fields.wide(width))))
    hidden, streams, rank = fields.hidden, fields.number("altup_num_inputs", 4), fields.number("laurel_rank", 64)
    blocks = (
        *matrix("feed_forward", "laurel.linear_left", hidden, rank, split=REPLICATED),
        *matrix("feed_forward", "laurel.linear_right", rank, hidden, split=REPLICATED),
        vector("feed_forward", streams * streams * (streams + 1) + streams * hidden + hidden),
        vector("norms", 2 * hidden),
    )
    yield AlikeLayers(numbers=fields.layers, blocks=blocks)


def _gemma3n_outside(fields: Fields) -> Iterator[Weights]:
    fields.value("activation_sparsity_pattern")
    yield from _embeddings(fields)
    streams = fields.number("altup_num_inputs", 4)
    if streams > 1:
        yield from matrix("feed_forward", "altup_projections", fields.hidden, 2 * (streams - 1) * fields.hidden)


GEMMA3N = Family(
    parts=(
        _sharing_attention(every(5), lambda fields, _: heads_of(fields), lambda _, __: True),
        _gemma3n_feed_forward,
        norms(4),
        _per_layer,
    ),
    outside=_gemma3n_outside,
    defaults={
        **GEMMA3.defaults,
        "vocab_size": 262400,
        "intermediate_size": 16384,
        "num_key_value_heads": 2,
        "sliding_window": 512,
        SHARED: 15,
        PER_LAYER: 256,
        "vocab_size_per_layer_input": 262144,
        "max_position_embeddings": 32768,
    },
)
