"""A model by kvbench's own keys: layers that are alike, or groups of them, and how many parameters there are."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from inspect import signature
from typing import Any

from kvbench.configuration.parameters import ASSUMED, parts_of
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.model.model import Model

ALIKE = signature(KVGeometry.uniform).parameters
NEEDED = tuple(name for name, parameter in ALIKE.items() if parameter.default is parameter.empty)
SIZES = ("hidden_size", "vocab_size", "intermediate_size", "max_tokens")
GROUPS, NUM_LAYERS = "groups", "num_layers"


def keys_of(geometry: KVGeometry) -> dict[str, Any]:
    """The keys of a model's file that say a geometry."""
    if not geometry.is_plain:
        groups = [
            {key: list(value) if key == "layers" else value for key, value in asdict(group).items()}
            for group in geometry.groups
        ]
        return {"name": geometry.name, "dtype": geometry.dtype, "groups": groups}
    sizes = {key: getattr(geometry.plain, key) for key in (NUM_LAYERS, "num_heads", "num_kv_heads", "head_dim")}
    held = sorted(geometry.held_dtypes - {geometry.dtype})
    return {**sizes, "name": geometry.name, "dtype": geometry.dtype} | ({"kv_dtype": held[0]} if held else {})


def model_of_keys(keys: Mapping[str, Any], dtype: str) -> Model:
    """A model of such keys, those that are null left out.

    Args:
        keys: whose names were checked.
        dtype: what it computes in.
    Raises:
        ValueError: a number is out of its range, or contradicts another.
        TypeError: a value is of another type.
    """
    name = keys.get("name") or ""
    if keys.get(GROUPS) is not None:
        geometry = KVGeometry(groups=tuple(_group(node, dtype) for node in keys[GROUPS]), dtype=dtype, name=name)
        num_layers = keys.get(NUM_LAYERS) or 1 + max(layer for group in geometry.groups for layer in group.layers)
    else:
        given = {key: keys[key] for key in ALIKE if keys.get(key) is not None}
        geometry = KVGeometry.uniform(**{**given, "dtype": dtype, "name": name})
        num_layers = geometry.num_layers
    weights = tuple(replace(part, dtype=dtype) for part in parts_of(keys, geometry.groups, num_layers))
    is_told = all(keys.get(key) for key in ("intermediate_size", "vocab_size"))
    return Model(
        name=name or "model",
        groups=geometry.groups,
        weights=weights,
        num_layers=num_layers,
        hidden_size=keys.get("hidden_size") or 0,
        vocab_size=keys.get("vocab_size") or 0,
        intermediate_size=keys.get("intermediate_size") or 0,
        max_tokens=keys.get("max_tokens"),
        dtype=dtype,
        name_or_path=keys.get("name_or_path"),
        assumed=(ASSUMED,) if weights and not is_told else (),
    )


def _group(node: Mapping[str, Any], dtype: str) -> LayerGroup:
    if not isinstance(node, Mapping) or not isinstance(node.get("layers"), list):
        raise ValueError(f"model.groups is a list of mappings, each with the numbers of its layers, got {node!r}")
    states = tuple(StateTensor(**state) for state in node.get("state", ()))
    return LayerGroup(**{"dtype": dtype, **node, "layers": tuple(node["layers"]), "state": states})
