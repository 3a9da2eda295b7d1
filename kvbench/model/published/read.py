"""From a published configuration to a model."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kvbench.messages import cut
from kvbench.model.dtypes import DTYPE_BYTES, SHORT
from kvbench.model.groups import STATE, LayerGroup
from kvbench.model.model import Model
from kvbench.model.precision import in_precision
from kvbench.model.published.families import FAMILIES, SAME_AS
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights
from kvbench.model.published.precisions import Quantization
from kvbench.model.published.quantization import quantization_of
from kvbench.model.published.unknown_family import plain_family
from kvbench.model.weights import Product, WeightPart

ANOTHER_PART = ("text_config", "llm_config", "language_config", "thinker_config")
LANGUAGE_ALONE = "only the language model is counted, not what sees or hears"
NUM_LAYERS = "num_hidden_layers"
QUANTIZED = ("quantization_config", "compression_config")
OF_THE_WHOLE = ("tie_word_embeddings", "torch_dtype", "dtype", *QUANTIZED)


def read_model(
    config: Mapping[str, Any],
    name: str | None = None,
    *,
    dtype: str | None = None,
    weights_dtype: str | None = None,
    kv_dtype: str | None = None,
    name_or_path: str | None = None,
) -> Model:
    """Read a configuration, such as config.json's, without weights and without transformers.

    Args:
        config: its keys.
        name: the model's name; None: its model_type.
        dtype: what it computes in; None: what the configuration says, but float32, which engines hold in bfloat16.
        weights_dtype: what it holds its products' weights in; None: what its quantization_config says.
        kv_dtype: what it holds K, V and latents in; None: what that says, or what it computes in.
        name_or_path: where the model itself is.
    Returns:
        The model; `assumed` says what was taken for granted.
    Raises:
        ValueError: a key is missing, contradicts another, or may change the cache and is not understood.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"a model's configuration is a mapping of keys to values, got {type(config).__name__}")
    given, assumed = _text_part(config)
    if any(given.get(key) is not None for key in ANOTHER_PART):  # of one that also speaks
        given, assumed = _text_part(given)
    model_type = given.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise ValueError(f"a model's configuration has a model_type, such as llama, got {cut(repr(model_type))}")
    family = FAMILIES.get(SAME_AS.get(model_type, model_type)) or plain_family(given, model_type)
    if given.get(NUM_LAYERS) is None:
        listed = (given.get(key) for key in family.listing)
        given[NUM_LAYERS] = next((len(each) for each in listed if isinstance(each, list | str)), None)
    fields = Fields(given, model_type, family.defaults, family.aliases)
    fields.dtype, sentences = _dtype_of(given, dtype)
    quantization = quantization_of(_quantized(given) if weights_dtype is None else None)
    layers = [found for part in family.parts for found in part(fields)]
    around = tuple(family.around(fields))
    model = Model(
        name=name or cut(model_type),
        groups=_groups(layers, fields.dtype),
        weights=tuple(_parts(layers, around, fields.dtype, quantization)),
        num_layers=fields.num_layers,
        hidden_size=fields.hidden,
        vocab_size=fields.number("vocab_size"),
        intermediate_size=fields.widest,
        max_tokens=fields.optional(family.max_tokens),
        dtype=fields.dtype,
        name_or_path=name_or_path,
        assumed=(*assumed, *family.assumed, *sentences),
    )
    fields.check_all_known()
    return in_precision(model, weights_dtype, kv_dtype or quantization.kv_dtype)


def _quantized(given: Mapping[str, Any]) -> object:
    found = (given.get(key) for key in QUANTIZED)
    return next((each for each in found if each is not None), None)


def _text_part(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The configuration of the language model, with what the whole says of it."""
    for key in ANOTHER_PART:
        inner = config.get(key)
        if inner is None:
            continue
        if not isinstance(inner, Mapping):
            raise ValueError(f"a model's configuration: {key} is a mapping of keys to values, got {cut(repr(inner))}")
        given = {own: config[own] for own in OF_THE_WHOLE if config.get(own) is not None}
        given |= {str(own): value for own, value in inner.items() if value is not None or own not in given}
        given.setdefault("model_type", config.get("model_type"))
        return given, [LANGUAGE_ALONE]
    return {str(own): value for own, value in config.items()}, []


def _dtype_of(given: Mapping[str, Any], asked: str | None) -> tuple[str, list[str]]:
    """What a model computes in, and what was assumed of it."""
    said = asked or given.get("dtype") or given.get("torch_dtype") or "bfloat16"
    said = said.removeprefix("torch.") if isinstance(said, str) else said
    found = SHORT.get(said, said) if isinstance(said, str) else ""
    if asked is None and (found == "auto" or found.startswith("float8")):
        return "bfloat16", []
    if found not in DTYPE_BYTES:
        raise ValueError(f"a model computes in one of {', '.join(DTYPE_BYTES)}, got {cut(repr(said))}")
    if asked is None and found == "float32":
        return "bfloat16", ["its numbers are of float32 in the file, and held in bfloat16, as engines do"]
    return found, []


def _groups(layers: list[AlikeLayers], dtype: str) -> tuple[LayerGroup, ...]:
    found = [own.group for own in layers if own.group is not None]
    return tuple(group if group.kind == STATE else replace(group, dtype=dtype) for group in found)


def _parts(
    layers: list[AlikeLayers], around: tuple[Weights, ...], dtype: str, quantization: Quantization
) -> list[WeightPart]:
    """Parameters by what they are, where they lie and how they divide; blocks alike in all of that are one part."""
    counts: dict[tuple[Any, ...], int] = {}
    products: dict[tuple[Any, ...], list[Product]] = {}
    for numbers, blocks in [*((own.numbers, own.blocks) for own in layers), ((), around)]:
        for block in blocks:
            for own, here in quantization.dtypes(block, numbers, dtype):
                key = (block.part, block.kind, block.num_experts, block.num_active, block.split, own, here)
                counts[key] = counts.get(key, 0) + block.num_parameters
                if (product := block.product) is not None:
                    products.setdefault(key, []).append(product)
    return [
        WeightPart(
            name=name,
            kind=kind,
            num_parameters=count,
            num_experts=num_experts,
            num_active=num_active,
            split=split,
            dtype=own,
            layers=here,
            products=tuple(products.get(key, ())),
        )
        for key, count in counts.items()
        for name, kind, num_experts, num_active, split, own, here in [key]
    ]
