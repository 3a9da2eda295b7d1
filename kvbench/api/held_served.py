"""What served the requests of a file: by what is said beside it, and what it says of itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.api.printed_lines import models_at_hand
from kvbench.calibration.validation.points import ServingPoint, System
from kvbench.calibration.validation.servers import ServedBy, Server, as_stated, named_model, server_of
from kvbench.configuration.catalogue import names
from kvbench.configuration.composed import composed
from kvbench.configuration.engine import engine_of, parallel_of
from kvbench.configuration.errors import UsageError
from kvbench.configuration.model import hardware_of, model_of

if TYPE_CHECKING:
    from kvbench.model.model import Model

ENGINE, PARALLEL = "engine.", "parallel."


@dataclass(frozen=True)
class Servers:
    """What serves each point of a file.

    Args:
        said: what is said of them beside the file, before what it says: hardware, model, engine, and further keys such
            as engine.max_num_seqs.
        folder: of published configurations, whose models may be named.
        hardware: that a file's name says; "": none.
        engine: the same.
    """

    said: Mapping[str, Any]
    folder: Path
    hardware: str = ""
    engine: str = ""
    _made: dict[object, Server] = field(default_factory=dict)

    def of(self, point: ServingPoint) -> Server:
        """What serves a point.

        Raises:
            ValueError: why nothing does.
        """
        key = (point.system, point.limits)
        if key not in self._made:
            set_already = [key.removeprefix(ENGINE) for key in self.said if key.startswith(ENGINE)]
            self._made[key] = server_of(point, self._parts(point.system), set_already)
        return self._made[key]

    def _parts(self, system: System) -> ServedBy:
        machine = self.said.get("hardware") or system.hardware or self.hardware
        engine = self.said.get("engine") or system.engine or self.engine
        model: Any = self.said.get("model")
        if not machine:
            raise UsageError("of which hardware it is, is not said: give hardware=NAME")
        if model is None:
            model = named_model(system, self._models, self.folder)
        if not engine:
            raise UsageError(f"which engine served is not said: give engine=NAME, one of {', '.join(names('engine'))}")
        settings = {key: value for key, value in self.said.items() if key.startswith((ENGINE, "model."))}
        if system.version and "engine" not in self.said:
            settings.setdefault("engine.version", system.version)
        degrees = {name: getattr(system, name) for name in ("tensor", "pipeline", "data")}
        degrees |= {key.removeprefix(PARALLEL): value for key, value in self.said.items() if key.startswith(PARALLEL)}
        chosen = {"hardware": machine, "model": model, "engine": engine, "parallel": degrees}
        config = composed(chosen, (), settings)
        hardware, found = hardware_of(config), engine_of(config)
        assert hardware is not None
        assert found is not None
        made = model_of(config)
        is_told = any(key in self.said for key in ("model.weights_dtype", "model.kv_dtype"))
        return ServedBy(
            model=made if is_told or "model" not in self.said else as_stated(made, system),
            name=machine if isinstance(machine, str) and machine in names("hardware") else hardware.name,
            hardware=hardware,
            engine=found,
            parallel=parallel_of(config),
        )

    @cached_property
    def _models(self) -> "dict[str, Model]":
        return models_at_hand(self.folder)[0]
