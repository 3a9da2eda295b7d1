"""Families of 2021 to 2023: norms with biases, two products, positions that are learnt, queries that share a head."""

from collections.abc import Iterator

from kvbench.model.published.attention import Heads, attention, heads_of
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import dense, dense_blocks, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, vector
from kvbench.model.weights import EMBEDDING, HEAD


def _own_heads(fields: Fields, _: str) -> Heads:
    """Every head of queries has its own of K and V; the classes know no other way."""
    own = heads_of(fields)
    if own.num_kv_heads != own.num_heads:
        raise fields.refused("num_key_value_heads", f"num_attention_heads ({own.num_heads})", own.num_kv_heads)
    return own


def _phi_outside(fields: Fields) -> Iterator[Weights]:
    yield Weights(part="biases", num_parameters=fields.number("vocab_size"), kind=HEAD)


PHI = Family(
    parts=(
        attention(bias=True, qk_norm="norm", has_qk_norm="qk_layernorm"),
        dense(bias=True, is_gated=False),
        norms(1, bias=True),
    ),
    norm_bias=True,
    outside=_phi_outside,
    defaults={"vocab_size": 51200, "intermediate_size": 8192, "max_position_embeddings": 2048},
)


GPT_NEOX = Family(
    parts=(
        attention(bias="attention_bias", heads=_own_heads),
        dense(bias=True, is_gated=False),
        norms(bias=True),
    ),
    norm_bias=True,
    defaults={"vocab_size": 50432, "intermediate_size": 24576, "attention_bias": True},
)


def _opt_outside(fields: Fields) -> Iterator[Weights]:
    """Positions, with two rows before the first; embeddings narrower than the layers, with a product to and from."""
    hidden, narrow = fields.hidden, fields.number("word_embed_proj_dim", fields.hidden)
    positions = fields.number("max_position_embeddings") + 2
    yield Weights(part="positions", num_parameters=positions * hidden, kind=EMBEDDING)
    if narrow != hidden:
        raise fields.refused("word_embed_proj_dim", f"hidden_size ({hidden}): another is not read", narrow)
    if fields.flag("do_layer_norm_before", True) is False:
        raise fields.refused("do_layer_norm_before", "true: OPT-350M is not read", False)


OPT = Family(
    parts=(
        attention(bias="enable_bias", heads=_own_heads),
        dense(size="ffn_dim", bias="enable_bias", is_gated=False),
        norms(bias="layer_norm_elementwise_affine"),
    ),
    norm_bias="layer_norm_elementwise_affine",
    outside=_opt_outside,
    defaults={
        "tie_word_embeddings": True,
        "vocab_size": 50272,
        "ffn_dim": 3072,
        "max_position_embeddings": 2048,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
    },
)


def _falcon_heads(fields: Fields, _: str) -> Heads:
    """One head of K and V where queries share it; num_kv_heads counts in the new architecture only."""
    num_heads, is_new = fields.number("num_attention_heads"), fields.flag("new_decoder_architecture")
    given = fields.number("num_kv_heads", num_heads)
    shares = fields.flag("multi_query", True) and not is_new
    num_kv_heads = 1 if shares else given if is_new else num_heads
    if fields.hidden % num_heads or num_heads % num_kv_heads:
        raise ValueError(
            f"{fields.where}: hidden_size is a multiple of num_attention_heads, and those of num_kv_heads, got "
            f"{fields.hidden}, {num_heads} and {num_kv_heads}"
        )
    head_dim = fields.hidden // num_heads
    return Heads(num_heads, num_kv_heads, head_dim, head_dim)


def _falcon_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    width = fields.wide(fields.number("ffn_hidden_size", 4 * fields.hidden))
    blocks = dense_blocks(fields.hidden, width, fields.flag("bias"), is_gated=False)
    yield AlikeLayers(numbers=fields.layers, blocks=tuple(blocks))


def _falcon_norms(fields: Fields) -> Iterator[AlikeLayers]:
    is_new = fields.flag("new_decoder_architecture")
    count = fields.number("num_ln_in_parallel_attn", 2 if is_new else 1)
    if not is_new and not fields.flag("parallel_attn", True):
        count = 2
    yield AlikeLayers(numbers=fields.layers, blocks=(vector("norms", 2 * count * fields.hidden),))


FALCON = Family(
    parts=(attention(bias="bias", heads=_falcon_heads), _falcon_feed_forward, _falcon_norms),
    norm_bias=True,
    defaults={"tie_word_embeddings": True, "vocab_size": 65024, "max_position_embeddings": 2048},
    aliases={"n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_head_kv": "num_kv_heads"},
)


def _gpt2_outside(fields: Fields) -> Iterator[Weights]:
    positions = fields.number("max_position_embeddings")
    yield Weights(part="positions", num_parameters=positions * fields.hidden, kind=EMBEDDING)


def _gpt2_feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    width = fields.wide(fields.number("n_inner", 4 * fields.hidden))
    yield AlikeLayers(
        numbers=fields.layers, blocks=tuple(dense_blocks(fields.hidden, width, bias=True, is_gated=False))
    )


GPT2 = Family(
    parts=(attention(bias=True, heads=_own_heads), _gpt2_feed_forward, norms(bias=True)),
    norm_bias=True,
    outside=_gpt2_outside,
    defaults={"tie_word_embeddings": True, "vocab_size": 50257, "max_position_embeddings": 1024},
    aliases={
        "n_positions": "max_position_embeddings",
        "n_embd": "hidden_size",
        "n_layer": "num_hidden_layers",
        "n_head": "num_attention_heads",
    },
)
