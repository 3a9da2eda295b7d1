"""MiMo-V2: layers with a window have heads of their own, and sinks."""

from collections.abc import Sequence

from kvbench.model.published.attention import Heads, attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, after_first, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.windows import FULL_ATTENTION, SLIDING

NAMES = ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim")


def _kinds(fields: Fields) -> Sequence[str]:
    """By hybrid_layer_pattern, in which 1 has the window; or the first and each sixth see all tokens."""
    given = fields.listed("layer_types", (FULL_ATTENTION, SLIDING))
    pattern = fields.listed("hybrid_layer_pattern", (0, 1))
    if pattern is None:
        pattern = [int(layer > 0 and (layer + 1) % 6 != 0) for layer in fields.layers]
    return given or [SLIDING if number else FULL_ATTENTION for number in pattern]


def _heads(fields: Fields, kind: str) -> Heads:
    whole = [fields.number(name) for name in NAMES]
    windowed = [fields.number(f"swa_{name}", own) for name, own in zip(NAMES, whole, strict=True)]
    own = Heads(*(windowed if kind == SLIDING else whole))
    if own.num_heads % own.num_kv_heads:
        raise ValueError(
            f"{fields.where}: heads of queries are a multiple of those of K and V, got {own.num_heads} and "
            f"{own.num_kv_heads}"
        )
    return own


MIMO_V2 = Family(
    parts=(
        attention(
            bias="attention_bias",
            kinds=_kinds,
            heads=_heads,
            sinks={SLIDING: "add_swa_attention_sink_bias", FULL_ATTENTION: "add_full_attention_sink_bias"},
        ),
        Experts(count="n_routed_experts", shared="n_shared_experts", has_correction=True, sparse=after_first()),
        norms(),
    ),
    defaults={
        "vocab_size": 152576,
        "intermediate_size": 16384,
        "moe_intermediate_size": 2048,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 192,
        "v_head_dim": 128,
        "swa_num_key_value_heads": 8,
        "sliding_window": 128,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "add_swa_attention_sink_bias": True,
        "first_k_dense_replace": 1,
    },
    aliases={"sliding_window_size": "sliding_window", "attention_chunk_size": "sliding_window"},
)
