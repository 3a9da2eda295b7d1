"""From a composed configuration to the serving engine whose rules hold, and how a model is laid over accelerators."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from kvbench.configuration.errors import UsageError, refusing
from kvbench.configuration.targets import build
from kvbench.engine.base import Engine
from kvbench.messages import unknown
from kvbench.model.parallel import Parallel

DEGREES = tuple(field.name for field in fields(Parallel))


def engine_of(config: Mapping[str, Any]) -> Engine | None:
    """The engine; None where none was chosen.

    Raises:
        UsageError: it refuses a setting.
    """
    node = config.get("engine")
    if isinstance(node, Mapping):
        node = build(node, "engine", "engine", config["trusted"])
    if node is None or isinstance(node, Engine):
        return node
    raise UsageError(f"engine: it is no engine but a {type(node).__name__}; name one, such as engine=vllm")


def parallel_of(config: Mapping[str, Any]) -> Parallel:
    """The degrees of parallelism; of those that are not said, 1.

    Raises:
        UsageError: a degree is unknown or out of its range.
    """
    with refusing():
        return Parallel(**degrees(config.get("parallel")))


def degrees(given: object) -> dict[str, Any]:
    """The degrees that are said, by name.

    Args:
        given: a mapping of them, what such a mapping makes, or None.
    Raises:
        UsageError: it is something else, or a degree is unknown.
    """
    if isinstance(given, Parallel):
        return vars(given)
    if not isinstance(given, Mapping | None):
        raise UsageError(f"parallel is a mapping of degrees, such as tensor: 2, got {given!r}")
    found = {str(key): value for key, value in (given or {}).items()}
    for key in found:
        if key not in DEGREES:
            raise UsageError(f"parallel: {unknown('degree', key, DEGREES)}")
    return found
