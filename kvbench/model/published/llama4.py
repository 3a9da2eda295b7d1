"""Llama 4: chunks in most layers, and experts beside one that every token takes."""

from collections.abc import Iterator

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, dense_blocks, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers
from kvbench.model.published.windows import without_rotary_full

LOCAL = "num_local_experts"


def _llama4_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    """Each interleave_moe_layer_step-th layer has experts and one that all tokens take, as wide; others are wider."""
    step = fields.number("interleave_moe_layer_step", 1, least=0)
    listed = fields.value("moe_layers")
    if listed is not None and (not isinstance(listed, list) or any(type(layer) is not int for layer in listed)):
        raise fields.refused("moe_layers", "a list of layers' numbers", listed)
    sparse = set(listed if listed is not None else range(step - 1, fields.num_layers, step) if step else ())
    numbers = tuple(layer for layer in fields.layers if layer in sparse)
    if numbers:
        names, width = "feed_forward", fields.number("intermediate_size")
        own = Experts(count=LOCAL, size="intermediate_size", names=names)
        shared = dense_blocks(fields.hidden, width, names=f"{names}.shared_expert", part="shared_experts")
        yield AlikeLayers(numbers=numbers, blocks=(*own.blocks(fields), *shared))
        fields.wide((fields.number("num_experts_per_tok") + 1) * width)
    others = tuple(layer for layer in fields.layers if layer not in sparse)
    width = fields.number("intermediate_size_mlp")
    if others:
        blocks = dense_blocks(fields.hidden, fields.wide(width), names="feed_forward")
        yield AlikeLayers(numbers=others, blocks=tuple(blocks))


LLAMA4 = Family(
    parts=(attention(bias="attention_bias", kinds=without_rotary_full), _llama4_feed_forward, norms()),
    defaults={
        "vocab_size": 202048,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        LOCAL: 16,
        "num_experts_per_tok": 1,
        "attention_chunk_size": 8192,
        "use_qk_norm": True,
    },
    aliases={"num_experts": LOCAL},
)
