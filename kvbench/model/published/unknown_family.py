"""A model_type that nobody taught kvbench: taken as a plain one where all that it says fits, and said so."""

import difflib
from collections.abc import Mapping
from typing import Any

from kvbench.messages import cut
from kvbench.model.published.attention import attention
from kvbench.model.published.families import FAMILIES, SAME_AS
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, after_first, dense, norms
from kvbench.model.published.windows import all_windowed

ALIASES = {
    "n_layer": "num_hidden_layers",
    "n_layers": "num_hidden_layers",
    "num_layers": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_heads": "num_attention_heads",
    "n_embd": "hidden_size",
    "d_model": "hidden_size",
    "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size",
    "ffn_hidden_size": "intermediate_size",
    "num_kv_heads": "num_key_value_heads",
    "n_head_kv": "num_key_value_heads",
    "kv_channels": "head_dim",
    "qkv_bias": "attention_bias",
    "use_qkv_bias": "attention_bias",
}
COUNTS = ("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")


def plain_family(given: Mapping[str, Any], model_type: str) -> Family:
    """A family of a plain shape: heads in groups, a gated feed-forward part or experts, two norms a layer."""
    count = next((key for key in COUNTS if given.get(key)), None)
    feed_forward = (
        dense(bias="mlp_bias")
        if count is None
        else Experts(
            count=count,
            size="moe_intermediate_size" if given.get("moe_intermediate_size") else "intermediate_size",
            shared="n_shared_experts" if "n_shared_experts" in given else "num_shared_experts",
            sparse=after_first(),
        )
    )
    known = difflib.get_close_matches(model_type[:80], [*FAMILIES, *SAME_AS], n=1, cutoff=0.6)
    nearest = f" (the nearest known: {known[0]})" if known else ""
    return Family(
        parts=(attention(bias="attention_bias", kinds=all_windowed), feed_forward, norms()),
        aliases=ALIASES,
        assumed=(
            f"model_type {cut(model_type)} is not known{nearest}: taken as plain layers of "
            f"attention{' and a gated feed-forward part' if count is None else ' and gated experts'}, two norms each, "
            "biases only where the configuration says so",
        ),
    )
