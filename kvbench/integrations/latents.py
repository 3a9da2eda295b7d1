"""Models with latent attention, whose cache is given a latent and a rotary part instead of K and V."""

from typing import TYPE_CHECKING

from kvbench.integrations.fields import foreign_fields
from kvbench.integrations.shape import check_decoder, name_of, unfit
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import FULL, LayerGroup
from kvbench.plan.area import Packed
from kvbench.strategy.base import Strategy

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KINDS = {"deepseek_v2", "deepseek_v3", "glm4_moe_lite", "minicpm3", "youtu"}
"""Types of models whose every layer holds that and nothing else; others have an indexer's keys, or states."""
UNDERSTOOD = {
    "kv_lora_rank",
    "q_lora_rank",
    "qk_rope_head_dim",
    "qk_nope_head_dim",
    "qk_head_dim",
    "v_head_dim",
    "head_dim",
    "num_key_value_heads",
}
"""Fields of their configurations that say how wide a token is, or what is made of it behind the cache."""


def latents_of(config: "PreTrainedConfig", dtype: str) -> KVGeometry | None:
    """What a model with latent attention has its cache hold; None for other models.

    Of a token it is one head of two widths: as K the latent, as V the rotary part. K and V of all heads are made of
    them behind the cache.

    Args:
        config: the model's; of one with images or sound, its text model counts.
        dtype: of what is held: float32, float16 or bfloat16.
    Raises:
        ValueError: it is such a model, and a field that is not understood says that layers hold something else.
    Source: DeepSeek-V2, arXiv:2405.04434, section 2.1.
    """
    text = config.get_text_config(decoder=True)
    if text.model_type not in KINDS or not getattr(text, "kv_lora_rank", None):
        return None
    check_decoder(config)
    fields = {name: value for name, value in text.to_dict().items() if name not in UNDERSTOOD}
    for what in foreign_fields(fields, text.model_type, text.kv_lora_rank, 1):
        raise unfit(name_of(config), what, config)
    group = LayerGroup(
        kind=FULL,
        layers=tuple(range(text.num_hidden_layers)),
        num_heads=text.num_attention_heads,
        num_kv_heads=1,
        key_dim=text.kv_lora_rank,
        value_dim=text.qk_rope_head_dim,
        dtype=dtype,
    )
    return KVGeometry(groups=(group,), dtype=dtype, name=name_of(config))


def check_stores(strategy: Strategy, geometry: KVGeometry) -> None:
    """Refuse what does more than store latents: they are not what attention reads, so that nothing can rank them.

    Raises:
        ValueError: the strategy evicts, packs, or is told of attention.
    """
    if strategy.signals:
        does = f"is told of attention ({', '.join(strategy.signals)})"
    elif not strategy.attends_all:
        does = "evicts tokens"
    elif any(isinstance(area.format, Packed) for area in strategy.areas):
        does = "packs K and V of one width"
    else:
        return
    raise ValueError(
        f"{type(strategy).__name__} {does}; of {geometry.called} latents are held, which K and V are made of behind "
        "the cache: expected is a strategy that stores all tokens, such as dynamic or paged"
    )
