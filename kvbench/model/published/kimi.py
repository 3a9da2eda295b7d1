"""Kimi Linear: Kimi delta attention's layers between latent ones."""

from collections.abc import Mapping, Sequence

from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import Experts, after_first, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.hybrids import listed_kinds
from kvbench.model.published.latent import latent
from kvbench.model.published.latents import V3
from kvbench.model.published.states import kimi_delta, state
from kvbench.model.published.windows import FULL_ATTENTION, LINEAR


def _kinds(fields: Fields) -> Sequence[str]:
    """By the lists of linear_attn_config, whose layers are counted from 1."""
    given, inner = listed_kinds(fields, "layer_types"), fields.value("linear_attn_config")
    attends = inner.get("full_attn_layers") if isinstance(inner, Mapping) else None
    if given is None and not isinstance(attends, list):
        raise ValueError(f"{fields.where} lacks layer_types, or full_attn_layers in linear_attn_config")
    return given or [FULL_ATTENTION if layer + 1 in (attends or ()) else LINEAR for layer in fields.layers]


def _attends(fields: Fields) -> Sequence[bool]:
    return [kind == FULL_ATTENTION for kind in _kinds(fields)]


KIMI_LINEAR = Family(
    parts=(
        latent(only=_attends),
        state(kimi_delta, _kinds),
        Experts(
            count="num_experts",
            chosen="num_experts_per_token",
            shared="num_shared_experts",
            has_correction=True,
            sparse=after_first(),
        ),
        norms(),
    ),
    defaults={
        **{key: value for key, value in V3.items() if not key.startswith(("n_", "q_lora", "num_experts"))},
        "q_lora_rank": None,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
        "mamba_ssm_dtype": "float32",
        "mla_use_nope": True,
    },
    max_tokens="model_max_length",
    aliases={"num_experts_per_tok": "num_experts_per_token", "n_shared_experts": "num_shared_experts"},
)
