"""Models in which layers that hold a state stand between layers that hold K and V: what transformers holds of both."""

from dataclasses import replace
from typing import TYPE_CHECKING

from kvbench.integrations.shape import check_decoder, name_of, unfit
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import CONVOLUTION, STATE, StateTensor
from kvbench.model.published import read_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

KINDS = {"bamba", "granitemoehybrid", "jamba", "nemotron_h", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next"}
"""Types of models whose layers hold K and V, or a state, or nothing; of others one layer holds both, or latents."""
LAYERS = {"full_attention", "linear_attention", "mlp", "moe"}
"""Kinds of layers that they have."""
RECURRENT_DTYPE = "float32"
"""Of what transformers hands over as a recurrent state, whatever the model computes in."""


def hybrid_of(config: "PreTrainedConfig", dtype: str) -> KVGeometry | None:
    """What a hybrid model has its cache hold, layers with K and V first; None for other models.

    Args:
        config: the model's; of one with images, its text model counts.
        dtype: of what is held, but for recurrent states: float32, float16 or bfloat16.
    Raises:
        ValueError: it is such a model, and a field is not understood, or no layer holds K and V.
    """
    text, name = config.get_text_config(decoder=True), name_of(config)
    if text.model_type not in KINDS:
        return None
    check_decoder(config, LAYERS)
    if "full_attention" not in (text.layer_types or ()):
        raise unfit(name, "no layer that holds K and V", config)
    fields = {key: value for key, value in text.to_dict().items() if key != "quantization_config"}
    groups = read_model(fields, dtype=dtype).groups
    holding = (group for group in groups if group.holds_tokens or group.state)
    own = sorted(holding, key=lambda group: group.kind == STATE)
    if not own[0].is_plain or any(group.holds_tokens for group in own[1:]):
        raise unfit(name, " and ".join(group.where for group in own), config)
    held = (replace(group, state=tuple(map(_as_held, group.state))) for group in own)
    return KVGeometry(groups=tuple(held), dtype=dtype, name=name)


def _as_held(tensor: StateTensor) -> StateTensor:
    """As transformers has it: of a convolution as many inputs as it is wide, one more than the next token needs."""
    if tensor.name == CONVOLUTION:
        return replace(tensor, columns=tensor.columns + 1)
    return replace(tensor, dtype=RECURRENT_DTYPE)


def computed_in(geometry: KVGeometry, dtype: str) -> KVGeometry:
    """The same model computed in another dtype; its recurrent states keep their own."""
    groups = (
        replace(
            group,
            state=tuple(
                replace(tensor, dtype=dtype) if tensor.name == CONVOLUTION else tensor for tensor in group.state
            ),
        )
        for group in geometry.in_dtype(dtype).groups
    )
    return replace(geometry, groups=tuple(groups), dtype=dtype)
