"""What does not go together, whoever says it: refused on the command line and in calls alike."""

from collections.abc import Iterable, Mapping
from typing import Any

from kvbench.configuration.errors import UsageError

QUALITY, PROBE = "quality", "quality.probe"
"""A setting, and what it is short for."""
PROBING = ("data", PROBE, "quality_tokens", "quality_data")
"""Settings of runs of a scenario alone."""
NAME_OR_PATH = "model.name_or_path"


def check_beside_experiment(keys: Iterable[str]) -> None:
    """Refuse to set, beside an experiment, what it decides itself.

    Args:
        keys: those that are set.
    Raises:
        UsageError: there is such a key.
    """
    keys = list(keys)
    for key in keys:
        if key.startswith("strategy."):
            raise UsageError(f"{key}: an experiment has parameters of its own: set experiment.strategies.NAME.…")
    if probing := [key for key in keys if key in PROBING]:
        raise UsageError(f"an experiment decides itself what it appends and probes: leave {', '.join(probing)} out")


def check_name_or_path(value: object, config: Mapping[str, Any]) -> None:
    """Refuse another model's weights where none are loaded: bytes and times would be those of the chosen shape.

    Args:
        value: what `model.name_or_path` is set to.
        config: composed without it.
    Raises:
        UsageError: it is another than the model's own.
    """
    experiment, model = config.get("experiment"), config["model"]
    is_loaded = isinstance(experiment, Mapping) and "text" in experiment
    own = model.get if isinstance(model, Mapping) else vars(model).get
    if not is_loaded and value not in (None, own("name_or_path")):
        raise UsageError(
            f"{NAME_OR_PATH}={value}: nothing loads that model here; bytes and times are those of "
            f"{own('name') or 'the model chosen'}, whatever lies there. +experiment=quality and the verb record "
            "load one; for its shape, set model.num_layers, model.num_heads, model.num_kv_heads, model.head_dim"
        )
