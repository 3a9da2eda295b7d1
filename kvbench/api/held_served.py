"""What serves the requests of an end-to-end measurement: its model on its machine, by its engine."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.api.printed_lines import models_at_hand
from kvbench.calibration.printed.named import model_of as model_named
from kvbench.calibration.printed.named import weights_dtype_of
from kvbench.calibration.validation.points import ServingPoint, System
from kvbench.calibration.validation.simulated import Server
from kvbench.configuration.catalogue import names
from kvbench.configuration.composed import composed
from kvbench.configuration.engine import engine_of
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import geometry_of, model_of
from kvbench.configuration.parts import backend_of
from kvbench.fleet.fleet import FleetServer
from kvbench.fleet.serving import FLAGS
from kvbench.model.dtypes import DTYPE_BYTES, kv_dtype
from kvbench.model.precision import in_precision

if TYPE_CHECKING:
    from kvbench.model.model import Model

SAID = ("hardware", "model", "engine")
WHOLE_BATCH_FLAGS = FLAGS["prefill_chunk_tokens"]
MAX_BATCH_FLAGS = FLAGS["max_batch"]


@dataclass(frozen=True)
class Servers:
    """What serves each point of a file.

    Args:
        said: what is said of them beside the file: by SAID, and further keys such as engine.max_num_seqs.
        folder: of published configurations, whose models may be named.
        hardware: that a file's name says; "": none.
    """

    said: Mapping[str, Any]
    folder: Path
    hardware: str = ""
    _made: dict[object, Server] = field(default_factory=dict)

    def of(self, point: ServingPoint) -> Server:
        """What serves a point.

        Raises:
            ValueError: why nothing does.
        """
        tokens = point.columns.num_prompt_tokens.sum() if point.whole_batch else None
        key = (point.system, point.max_batch, tokens)
        if key not in self._made:
            self._made[key] = self._server(point, None if tokens is None else int(tokens))
        return self._made[key]

    def _server(self, point: ServingPoint, step_tokens: int | None) -> Server:
        system = point.system
        chosen = {
            "hardware": self._hardware(system),
            "model": self._model(system),
            "engine": self._engine(system),
            "parallel": {name: getattr(system, name) for name in ("tensor", "pipeline", "data")} | self._degrees,
            "backend": "fleet",
        }
        settings = {key: value for key, value in self.said.items() if key not in SAID and "parallel." not in key}
        if system.version and "engine" not in self.said:
            settings.setdefault("engine.version", system.version)
        if "model" in self.said:
            settings = _precision(system) | settings
        config = composed(chosen, (), settings)
        more = dict(self._limits(engine_of(config), point.max_batch, step_tokens))
        if any(key not in settings for key in more):
            config = composed(chosen, (), more | settings)
        fleet = backend_of(config, geometry_of(config))
        assert isinstance(fleet, FleetServer)
        return Server(fleet, self._group(config, chosen, system))

    @staticmethod
    def _limits(engine: object, max_batch: int | None, step_tokens: int | None) -> "list[tuple[str, int]]":
        """Settings of the engine for a batch of a size that is said, and for a step that takes all its prompts."""
        found = []
        for flags, value in ((MAX_BATCH_FLAGS, max_batch), (WHOLE_BATCH_FLAGS, step_tokens)):
            flag = next((flag for flag in flags if hasattr(engine, flag)), None)
            if flag is not None and value is not None:
                found.append((f"engine.{flag}", value))
        return found

    def _hardware(self, system: System) -> Any:
        chosen = self.said.get("hardware") or system.hardware or self.hardware
        if not chosen:
            raise UsageError("of which hardware it is, is not said: give hardware=NAME")
        return chosen

    def _engine(self, system: System) -> Any:
        chosen = self.said.get("engine") or system.engine
        if not chosen:
            raise UsageError(f"which engine served is not said: give engine=NAME, one of {', '.join(names('engine'))}")
        return chosen

    @property
    def _degrees(self) -> dict[str, Any]:
        return {key.removeprefix("parallel."): value for key, value in self.said.items() if key.startswith("parallel.")}

    def _model(self, system: System) -> Any:
        if "model" in self.said:
            return self.said["model"]
        if not system.model:
            raise UsageError("of which model it is, is not said: give model=NAME, or a config.json")
        found = model_named({"model": system.model, "config_bytes_per_token": ""}, self._models)
        if found is None:
            raise UsageError(
                f"model {system.model!r} is not at hand: give model=NAME, or its config.json in {self.folder}"
            )
        return _as_stated(found[1], system)

    @cached_property
    def _models(self) -> "dict[str, Model]":
        return models_at_hand(self.folder)[0]

    def _group(self, config: Mapping[str, Any], chosen: Mapping[str, Any], system: System) -> str:
        model, degrees = model_of(config), chosen["parallel"]
        machine = chosen["hardware"]
        ranks = [f"{short}{degrees[name]}" for name, short in _SHORT if degrees.get(name, 1) > 1]
        dtype = system.weights_dtype or model.dtype
        named = machine if isinstance(machine, str) else Path(str(machine)).stem
        return ", ".join([model.name, named, str(chosen["engine"]), *(ranks or ["tp1"]), dtype])


_SHORT = (("tensor", "tp"), ("pipeline", "pp"), ("expert", "ep"), ("data", "dp"))


def _as_stated(model: "Model", system: System) -> "Model":
    """The model in the precisions that a file states; a configuration with parts of that dtype says which they are."""
    told = _precision(system)
    weights = told.get("model.weights_dtype")
    is_own = weights in {part.dtype for part in model.weights} - set(DTYPE_BYTES)
    return in_precision(model, None if is_own else weights, told.get("model.kv_dtype"))


def _precision(system: System) -> dict[str, str]:
    """The precisions that a file states, by the keys of a model that is named."""
    weights = weights_dtype_of(system.weights_dtype)
    if system.weights_dtype and weights is None:
        raise UsageError(f"weights of {system.weights_dtype!r} are not modelled")
    found = re.match(r"\w+", system.kv_dtype)
    told = {"model.weights_dtype": weights, "model.kv_dtype": kv_dtype(found[0]) if found else None}
    return {key: value for key, value in told.items() if value is not None}
