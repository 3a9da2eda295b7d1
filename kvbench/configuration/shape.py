"""A model by kvbench's own keys: layers that are alike, or groups of them, and how many parameters there are."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from inspect import signature
from typing import Any

from kvbench.checks import check_int
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.model.model import Model
from kvbench.model.weights import BODY, EXPERTS, WeightPart

ALIKE = signature(KVGeometry.uniform).parameters
NEEDED = tuple(name for name, parameter in ALIKE.items() if parameter.default is parameter.empty)
SIZES = ("hidden_size", "vocab_size", "intermediate_size", "max_tokens")
PARAMETERS = ("num_parameters", "num_active_parameters")
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
    return Model(
        name=name or "model",
        groups=geometry.groups,
        weights=tuple(_weights(keys, num_layers, dtype)),
        num_layers=num_layers,
        hidden_size=keys.get("hidden_size") or 0,
        vocab_size=keys.get("vocab_size") or 0,
        intermediate_size=keys.get("intermediate_size") or 0,
        max_tokens=keys.get("max_tokens"),
        dtype=dtype,
        name_or_path=keys.get("name_or_path"),
    )


def _group(node: Mapping[str, Any], dtype: str) -> LayerGroup:
    if not isinstance(node, Mapping) or not isinstance(node.get("layers"), list):
        raise ValueError(f"model.groups is a list of mappings, each with the numbers of its layers, got {node!r}")
    states = tuple(StateTensor(**state) for state in node.get("state", ()))
    return LayerGroup(**{"dtype": dtype, **node, "layers": tuple(node["layers"]), "state": states})


def _weights(keys: Mapping[str, Any], num_layers: int, dtype: str) -> Iterator[WeightPart]:
    """Parameters of which no more is known than how many a token needs, spread evenly over the layers."""
    total, active = (keys.get(key) for key in PARAMETERS)
    if total is None:
        return
    check_int("model.num_parameters", total, 1)
    check_int("model.hidden_size, where num_parameters is given,", keys.get("hidden_size"), 1)
    active = total if active is None else active
    check_int("model.num_active_parameters", active, 1)
    if active > total:
        raise ValueError(f"model.num_active_parameters is at most num_parameters ({total:,}), got {active:,}")
    for kind, count in ((BODY, active), (EXPERTS, total - active)):
        whole, rest = divmod(count, num_layers)
        for num_parameters, layers in ((whole, tuple(range(num_layers))), (rest, ())):
            if num_parameters:
                yield WeightPart(
                    name="parameters",
                    kind=kind,
                    num_parameters=num_parameters,
                    layers=layers,
                    num_active=int(kind == BODY),
                    dtype=dtype,
                )
