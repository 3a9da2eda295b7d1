"""A published model's quantization_config, by its method."""

from collections.abc import Iterator, Mapping
from typing import Any

from kvbench.messages import cut, unknown
from kvbench.model.published.module_names import ModuleNames
from kvbench.model.published.precisions import Precision, Quantization

IGNORED = ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules", "llm_int8_skip_modules")
"""Keys of those modules that stay as they are, by method."""
ALGORITHMS = {
    "FP8": "fp8",
    "FP8_PB_WO": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "MXFP8": "mxfp8",
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "MXFP4": "mxfp4",
    "W4A8_AWQ": "int4",
    "W4A16_AWQ": "int4",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "INT8": "int8",
}
INT4_BY_GROUP = {32: "int4_g32", 64: "int4_g64"}
SCHEMES = {"float 8": "FP8", "float 4": "NVFP4", "int 8": "INT8"}
CACHES = {"FP8": "fp8_e4m3", "NVFP4": "nvfp4", "INT8": "int8"}


def quantization_of(config: object) -> Quantization:
    """Read a quantization_config, or modelopt's hf_quant_config.json.

    Raises:
        ValueError: its method is none of those known, or what it says is not understood.
    """
    if config is None:
        return Quantization()
    if not isinstance(config, Mapping):
        raise ValueError(f"quantization_config is a mapping, got {cut(repr(config))}")
    inner = config.get("quantization")
    given: Mapping[str, Any] = {**config, **inner} if isinstance(inner, Mapping) else config
    method = given.get("quant_method") or ("modelopt" if "quant_algo" in given else None)
    reader = METHODS.get(method.lower().removeprefix("intel/")) if isinstance(method, str) else None
    if reader is None:
        raise ValueError(f"{unknown('quant_method', method, METHODS)}\n  or say model.weights_dtype instead")
    names = [name for key in IGNORED for name in _listed(given, key)]
    return Quantization(
        precisions=tuple(reader(given)), ignored=ModuleNames(names) if names else None, kv_dtype=_cache(given)
    )


def _listed(given: Mapping[str, Any], key: str) -> list[Any]:
    found = given.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"quantization_config: {key} is a list of modules, got {cut(repr(found))}")
    return found


def _fp8(given: Mapping[str, Any]) -> Iterator[Precision]:
    """One precision, eight bits; experts in four where they are said to be."""
    yield from _by_layer(given)
    if _says(given, "moe_quant_algo") is not None:
        yield Precision(dtype=_algorithm(given["moe_quant_algo"]), only_experts=True)
    yield Precision(dtype="fp8")


def _mxfp4(_: Mapping[str, Any]) -> Iterator[Precision]:
    """Experts alone, as gpt-oss is published."""
    yield Precision(dtype="mxfp4", only_experts=True)


def _integers(given: Mapping[str, Any]) -> Iterator[Precision]:
    bits = next((given[key] for key in ("bits", "w_bit", "wbits") if key in given), 4)
    size = next((given[key] for key in ("group_size", "q_group_size") if key in given), 128)
    yield Precision(dtype=_integer_dtype(bits, size))


def _bitsandbytes(given: Mapping[str, Any]) -> Iterator[Precision]:
    is_four = bool(given.get("load_in_4bit") or given.get("_load_in_4bit"))
    yield Precision(dtype="int4_g64" if is_four else "int8")


def _compressed(given: Mapping[str, Any]) -> Iterator[Precision]:
    """A rule for each group of modules."""
    groups = given.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise ValueError(f"quantization_config: config_groups is a mapping of groups, got {cut(repr(groups))}")
    for name, group in groups.items():
        if not isinstance(group, Mapping) or not isinstance(group.get("weights"), Mapping | None):
            raise ValueError(f"quantization_config: {cut(name)} is a mapping with weights, got {cut(repr(group))}")
        if group.get("weights") is not None:
            targets = [entry for entry in _listed(group, "targets") if entry != "Linear"]
            dtype = _scheme(group["weights"], str(group.get("format") or given.get("format") or ""))
            yield Precision(dtype=dtype, targets=ModuleNames(targets) if targets else None)


def _modelopt(given: Mapping[str, Any]) -> Iterator[Precision]:
    yield from _by_layer(given)
    algorithm = _says(given, "quant_algo")
    if algorithm == "MIXED_PRECISION" or algorithm is None:
        if isinstance(given.get("config_groups"), Mapping) and not given.get("quantized_layers"):
            yield from _compressed(given)
    else:
        yield Precision(dtype=_algorithm(algorithm))


def _by_layer(given: Mapping[str, Any]) -> Iterator[Precision]:
    """Modules with a precision of their own, by what it is."""
    own = given.get("quantized_layers") or {}
    if not isinstance(own, Mapping) or not all(isinstance(each, Mapping) for each in own.values()):
        raise ValueError(f"quantization_config: quantized_layers is a mapping of modules, got {cut(repr(own))}")
    names: dict[str, list[str]] = {}
    for module, each in own.items():
        names.setdefault(_algorithm(each.get("quant_algo")), []).append(module)
    for dtype, modules in names.items():
        yield Precision(dtype=dtype, targets=ModuleNames(modules))


def _scheme(weights: Mapping[str, Any], form: str) -> str:
    bits, kind, size = weights.get("num_bits"), weights.get("type", "int"), weights.get("group_size")
    if kind == "float":
        if bits == 8:  # noqa: PLR2004
            return "mxfp8" if form.startswith("mx") else "fp8"
        if bits == 4:  # noqa: PLR2004
            return "mxfp4" if form.startswith("mx") or size == 32 else "nvfp4"  # noqa: PLR2004
    elif kind == "int":
        return _integer_dtype(bits, size)
    raise ValueError(f"quantization_config: weights are floats or integers of 8 or 4 bits, got {kind} of {bits}")


def _integer_dtype(bits: object, size: object) -> str:
    if bits == 8:  # noqa: PLR2004
        return "int8"
    if bits == 4:  # noqa: PLR2004
        return INT4_BY_GROUP.get(size, "int4") if isinstance(size, int) else "int4"
    raise ValueError(f"quantization_config: integers have 8 or 4 bits, got {cut(repr(bits))}")


def _algorithm(found: object) -> str:
    if not isinstance(found, str) or found.upper() not in ALGORITHMS:
        raise ValueError(unknown("quant_algo", found, ALGORITHMS))
    return ALGORITHMS[found.upper()]


def _says(given: Mapping[str, Any], key: str) -> Any:
    found = given.get(key)
    return None if found in (None, "", "NONE") else found


def _cache(given: Mapping[str, Any]) -> str | None:
    """What the cache is held in, where calibrated scales are beside the weights."""
    for key in ("kv_cache_scheme", "kv_cache_quant_algo"):
        found = _says(given, key)
        if isinstance(found, Mapping):
            found = SCHEMES.get(f"{found.get('type')} {found.get('num_bits')}", found)
        if found is not None:
            if not isinstance(found, str) or found.upper() not in CACHES:
                raise ValueError(f"quantization_config: {unknown(key, cut(repr(found)), CACHES)}")
            return CACHES[found.upper()]
    return None


METHODS = {
    "fp8": _fp8,
    "fbgemm_fp8": _fp8,
    "mxfp4": _mxfp4,
    "gptq": _integers,
    "awq": _integers,
    "auto-round": _integers,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
}
