"""Fields of a model's configuration that change what its layers hold, by their names: models invent new ones."""

import re
from collections.abc import Iterable, Mapping

SIZES = re.compile(
    r"head_(dim|size)|(^|_)(d_head|dim_head|d_kv|kv_channels|(k|v|q|qk|kv|key|value)_(dim|size|channels))(_|$)"
)
"""The size of a head's K or V, of some layers or all: what is not the size of all is not understood."""
HEADS = re.compile(r"(kv|key_value)_heads|kv_n_heads|n_heads?_kv|multi_query_group_num|num_query_groups")
"""The number of KV heads, likewise."""
FOREIGN = (
    (r"kv_lora|latent|(^|_)mla(_|$)", "latent attention (MLA)"),
    (r"shar.*(kv|key|cache)|(kv|key_value|cache).*shar|(^|_)cla(_|$)", "layers that share K and V"),
    (r"k_eq_v", "K and V that are one"),
    (r"cross_attention", "attention over something else (cross-attention)"),
    (r"(^|_)index(er)?_(n|num|head|top)", "keys of an index beside K and V"),
    (r"compress", "K and V that are compressed"),
    (
        r"(^|_)(ssm|mamba|rwkv|recurrent|retention|lightning|conv)_|linear_(attn|attention|num|key|value|conv)",
        "layers that hold a state",
    ),
    (
        r"hybrid_override|block_configs|layers_block_type|attn_layer_(indices|period|offset)|full_attention_interval",
        "layers of several kinds",
    ),
    (r"(^|_)ut_steps|(^|_)num_(loops|recur)", "layers that are run more than once"),
    (r"prompt_length|num_(meta|memory)_tokens", "tokens of its own before the prompt"),
)
"""What must not be set, and what it would tell of."""
NOT_COUNTED = {"falcon": ("num_kv_heads",)}
"""What a kind of model has and does not go by: transformers repeats Falcon's K and V for all heads, and holds those."""


def foreign_fields(fields: Mapping[str, object], kind: str, head_dim: int, num_kv_heads: int) -> Iterable[str]:
    """What a configuration says of its layers that K and V of the same heads are not, each with the field's name.

    Args:
        fields: of the configuration, by name.
        kind: the model's type.
        head_dim: elements of a head's K, and V, as far as it is understood.
        num_kv_heads: heads of K and V, likewise.
    """
    for name, value in fields.items():
        if not value or name in NOT_COUNTED.get(kind, ()):
            continue
        for pattern, what in FOREIGN:
            if re.search(pattern, name):
                yield f"{what} ({name}={value})"
        if SIZES.search(name) and _others(value, head_dim):
            yield f"heads of several sizes ({name}={value}, and head_dim is {head_dim})"
        if HEADS.search(name) and _others(value, num_kv_heads):
            yield f"layers with other numbers of KV heads ({name}={value}, and there are {num_kv_heads})"


def _others(value: object, expected: int) -> bool:
    """Whether a figure, or one of several (a list a layer, a dict a kind), is another one than all have."""
    if isinstance(value, Mapping):
        value = list(value.values())
    each = value if isinstance(value, list | tuple) else [value]
    return any(figure not in (None, expected) for figure in each)
