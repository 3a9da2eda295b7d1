"""ERNIE 4.5: a mixture of experts in the layers between two, or in each of several."""

from collections.abc import Sequence

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, norms
from kvbench.model.published.fields import Fields


def _ernie_sparse(fields: Fields) -> Sequence[bool]:
    first = fields.number("moe_layer_start_index", 1, least=0)
    last = fields.number("moe_layer_end_index", fields.num_layers - 1, least=-1)
    last = fields.num_layers - 1 if last < 0 else last
    step = fields.number("moe_layer_interval", 1)
    return [(layer + 1) % step == 0 and first <= layer <= last for layer in fields.layers]


ERNIE_MOE = Family(
    parts=(
        attention(bias="use_bias"),
        Experts(
            count="moe_num_experts",
            chosen="moe_k",
            shared="moe_num_shared_experts",
            has_correction=True,
            sparse=_ernie_sparse,
        ),
        norms(),
    ),
    defaults={
        "tie_word_embeddings": True,
        "vocab_size": 103424,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "num_key_value_heads": 4,
        "moe_num_experts": 64,
        "moe_num_shared_experts": 2,
        "moe_k": 6,
    },
    aliases={"num_experts": "moe_num_experts", "num_experts_per_tok": "moe_k"},
)
