"""What serves the requests of a measurement: a fleet of its model, on its machine, by its engine."""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from kvbench.backend.choice import Conditions
from kvbench.calibration.printed.named import model_of, weights_dtype_of
from kvbench.calibration.validation.points import ServingPoint, System
from kvbench.engine.base import Engine
from kvbench.engine.ideal import Ideal
from kvbench.engine.sglang import SGLang
from kvbench.engine.trtllm import TensorRTLLM
from kvbench.engine.vllm import VLLM
from kvbench.fleet.fleet import Fleet, FleetServer
from kvbench.fleet.serving import FLAGS
from kvbench.messages import unknown
from kvbench.model.dtypes import DTYPE_BYTES, kv_dtype
from kvbench.model.geometry import geometry_in
from kvbench.model.hardware import Hardware
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.model.parameters import parameters_of
from kvbench.model.precision import in_precision

ENGINES: dict[str, type[Engine]] = {each.name: each for each in (VLLM, SGLang, TensorRTLLM, Ideal)}
OF_TABLES = {"w4a16_mxfp4": "mxfp4", "fp8_block": "fp8"}
"""Precisions of weights as tables of kernels call them."""
DEGREES = {"tensor": "tp", "pipeline": "pp", "expert": "ep", "data": "dp"}


class Server(NamedTuple):
    """What serves a point.

    Args:
        fleet: replicas of its model on its machine.
        group: what rows of this system are called.
    """

    fleet: FleetServer
    group: str


class ServedBy(NamedTuple):
    """What a server is made of.

    Args:
        model: in the precisions that it is served in.
        name: the machine's, for people.
        hardware: the machine.
        engine: with its settings.
        parallel: how the model is laid over machines.
    """

    model: Model
    name: str
    hardware: Hardware
    engine: Engine
    parallel: Parallel


def server_of(point: ServingPoint, parts: ServedBy, said: Collection[str] = ()) -> Server:
    """What serves a point, within its limits.

    Args:
        point: the measurement.
        parts: what it is made of.
        said: settings of the engine that stay as they are.
    Raises:
        ValueError: the machine cannot hold the model, or the parts do not go together.
    """
    wanted = point.limits._asdict()
    flags = {key: next((flag for flag in FLAGS[key] if hasattr(parts.engine, flag)), "") for key in wanted}
    limits: dict[str, Any] = {flags[key]: value for key, value in wanted.items() if value is not None and flags[key]}
    engine = replace(parts.engine, **{flag: value for flag, value in limits.items() if flag not in said})
    conditions = Conditions(
        geometry=geometry_in(parts.model),
        hardware=parts.hardware,
        weights=parameters_of(parts.model),
        model=parts.model,
        parallel=parts.parallel,
        engine=engine,
    )
    return Server(Fleet(replays=0).made(conditions), _group(parts, point.system))


def _group(parts: ServedBy, system: System) -> str:
    ranks = [f"{short}{size}" for name, short in DEGREES.items() if (size := getattr(parts.parallel, name)) > 1]
    dtype = system.weights_dtype or parts.model.dtype
    name = parts.model.name.rpartition("--")[2]  # folders of configurations are called PUBLISHER--NAME
    return ", ".join([name, parts.name, parts.engine.name, *(ranks or ["tp1"]), dtype])


def engine_named(system: System) -> Engine:
    """The engine that a file names, of the version that it states.

    Raises:
        ValueError: there is none of that name, or no such version.
    """
    if system.engine not in ENGINES:
        raise ValueError(unknown("engine", system.engine, ENGINES))
    return ENGINES[system.engine](version=system.version or None)


def named_model(system: System, models: Mapping[str, Model], where: object) -> Model:
    """The model that a file names, in the precisions that it states.

    Args:
        system: what served.
        models: those at hand, by name.
        where: they come from, for the message.
    Raises:
        ValueError: none is named, none is of that name, or it states a precision that is not modelled.
    """
    if not system.model:
        raise ValueError("of which model it is, is not said: give model=NAME, or a config.json")
    found = model_of({"model": system.model, "config_bytes_per_token": ""}, models)
    if found is None:
        raise ValueError(f"model {system.model!r} is not at hand: give model=NAME, or its config.json in {where}")
    return as_stated(found[1], system)


def as_stated(model: Model, system: System) -> Model:
    """A model in the precisions that a file states; a configuration with parts of that dtype says which they are.

    Raises:
        ValueError: a precision is not modelled.
    """
    weights = weights_dtype_of(OF_TABLES.get(system.weights_dtype, system.weights_dtype))
    if system.weights_dtype and weights is None:
        raise ValueError(f"weights of {system.weights_dtype!r} are not modelled")
    is_own = weights in {part.dtype for part in model.weights} - set(DTYPE_BYTES)
    found = re.match(r"\w+", system.kv_dtype)
    return in_precision(model, None if is_own else weights, kv_dtype(found[0]) if found else None)
