"""From a model's configuration to the geometry of a cache around it, and the check that its layers have it."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from kvbench.integrations.fields import foreign_fields
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import FULL, WINDOW

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

SLIDING, IN_CHUNKS = "sliding_attention", "chunked_attention"
ATTENTIONS = {"full_attention", SLIDING, IN_CHUNKS}
"""Kinds of layers that hold K and V; of some, the mask hides the older ones."""
TWICE_THE_HEADS = {"mimo_v2_flash"}
"""Models whose code gives window layers other heads than the configuration says."""


def geometry_of(config: "PreTrainedConfig", dtype: str) -> KVGeometry:
    """The shape of a token's K and V in a model, as if every layer held all tokens; `windowed` says which do not.

    Args:
        config: the model's; of one with images or sound, its text model counts.
        dtype: of K and V: float32, float16 or bfloat16.
    Raises:
        ValueError: layers hold something else than K and V of the same heads, or a field says so in a way that is not
            understood; or the dtype is none of those.
    """
    text, name = config.get_text_config(decoder=True), name_of(config)
    check_decoder(config)
    num_layers: object = getattr(text, "num_hidden_layers", None)
    num_heads: object = getattr(text, "num_attention_heads", None)
    head_dim: object = getattr(text, "head_dim", None) or _divided(getattr(text, "hidden_size", None), num_heads)
    if not (_is_count(num_layers) and _is_count(num_heads) and _is_count(head_dim)):
        got = f"num_hidden_layers={num_layers}, num_attention_heads={num_heads}, head_dim={head_dim}"
        raise unfit(name, f"no figures of heads and layers ({got})", config)
    num_kv_heads = _kv_heads(text, num_heads)
    for what in foreign_fields(text.to_dict(), text.model_type, head_dim, num_kv_heads):
        raise unfit(name, what, config)
    return KVGeometry.uniform(
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        dtype=dtype,
        name=name,
    )


def check_decoder(config: "PreTrainedConfig", known: AbstractSet[str] = ATTENTIONS) -> None:
    """Refuse a model that is not a decoder whose layers all are of known kinds: of attention over tokens of its own.

    Args:
        config: the model's.
        known: words of layer_types.
    Raises:
        ValueError: it is something else.
    """
    text, name = config.get_text_config(decoder=True), name_of(config)
    if getattr(config, "is_encoder_decoder", False):
        raise unfit(name, "an encoder and a decoder", config)
    if getattr(text, "is_heterogeneous", False):
        differing = ", ".join(sorted(text.per_layer_attributes or ())) or "which are left out"
        raise unfit(name, f"layers that differ (per_layer_config: {differing})", config)
    kinds = set(map(str, getattr(text, "layer_types", None) or ()))
    others = sorted(kinds - known)
    if others:
        raise unfit(name, f"layers of another kind than attention over K and V ({', '.join(others)})", config)
    if SLIDING in kinds and text.model_type in TWICE_THE_HEADS:
        raise unfit(name, f"twice the KV heads in layers with a window (layer_types: {SLIDING})", config)


def name_of(config: "PreTrainedConfig") -> str:
    """What a model is called: where it came from, or its type."""
    return Path(getattr(config, "name_or_path", "") or "").name or str(config.model_type)


def windowed(geometry: KVGeometry, text: "PreTrainedConfig") -> KVGeometry:
    """The same model, with layers that look at the last tokens only, or at a chunk's, as such that hold the last ones.

    A padded row's chunks begin at its own first token, so that none can be let go of at another row's end of one.

    Args:
        geometry: from `geometry_of`.
        text: the text model's configuration.
    """
    kinds: list[str] | None = getattr(text, "layer_types", None)
    sizes = {SLIDING: getattr(text, "sliding_window", None), IN_CHUNKS: getattr(text, "attention_chunk_size", None)}
    if kinds is None:
        kinds = [next((kind for kind, size in sizes.items() if size is not None), "")] * geometry.num_layers
    by_size: dict[int | None, list[int]] = {}
    for number, kind in enumerate(kinds):
        by_size.setdefault(sizes.get(kind), []).append(number)
    groups = [
        replace(geometry.plain, kind=FULL if size is None else WINDOW, layers=tuple(layers), tokens=size)
        for size, layers in by_size.items()
    ]
    return replace(geometry, groups=tuple(groups))


def context_of(config: "PreTrainedConfig") -> int | None:
    """The longest sequence that a text model is made for, in tokens; None where it does not say."""
    found = getattr(config, "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def check_layers(model: "PreTrainedModel", geometry: KVGeometry) -> None:
    """Run one token, and compare what each layer holds of it with the geometry.

    Raises:
        ValueError: a layer holds something else.
    """
    import torch
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device), past_key_values=cache, use_cache=True)
    expected = (1, geometry.plain.num_kv_heads, 1, geometry.plain.head_dim)
    shapes = [tuple(tuple(tensor.shape) for tensor in _held(layer)) for layer in cache.layers]
    if shapes != [(expected, expected)] * geometry.num_layers:
        raise unfit(
            geometry.name, f"layers whose K and V are not {expected} a token but {_short(shapes)}", model.config
        )


def _held(layer: object) -> list[Any]:
    return [tensor for tensor in (getattr(layer, "keys", None), getattr(layer, "values", None)) if tensor is not None]


def _short(shapes: Iterable[object]) -> str:
    return ", ".join(sorted({str(shape) for shape in shapes})) or "none"


def _kv_heads(text: "PreTrainedConfig", num_heads: int) -> int:
    if getattr(text, "multi_query", False) and not getattr(text, "new_decoder_architecture", False):
        return 1
    return getattr(text, "num_key_value_heads", None) or num_heads


def _is_count(figure: object) -> TypeGuard[int]:
    return isinstance(figure, int) and figure > 0


def _divided(hidden_size: object, num_heads: object) -> int | None:
    if not (isinstance(hidden_size, int) and isinstance(num_heads, int)) or num_heads < 1 or hidden_size % num_heads:
        return None
    return hidden_size // num_heads


def unfit(name: str, what: str, config: "PreTrainedConfig") -> ValueError:
    """What says that a model's layers hold something else."""
    return ValueError(
        f"{name}: a {config.model_type} model has {what}; expected is a decoder whose layers hold K and V of the same "
        "heads"
    )
