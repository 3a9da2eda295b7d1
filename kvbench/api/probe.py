"""The probe of what lossy strategies cost: whether it is wanted, on what, and its figures."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from kvbench.api.progress import Advance
from kvbench.configuration.errors import UsageError
from kvbench.configuration.parts import Config
from kvbench.configuration.quality import AUTO, asked_quality
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import CAST_DTYPES
from kvbench.quality.compare import Comparison, check, compare
from kvbench.results.schema import QUALITY
from kvbench.strategy.base import Strategy
from kvbench.workload.request import Session


def check_probe(config: Config, geometry: KVGeometry, strategies: Mapping[str, Strategy]) -> None:
    """Refuse, before anything is run, what a probe would refuse after.

    Raises:
        UsageError: the data is broken, or does not fit the model.
    """
    if not is_wanted(config, geometry, strategies):
        return
    try:
        check(geometry, config["quality_tokens"], data_of(config))
    except ValueError as error:
        hint = "" if config["quality_data"] else "; quality=false leaves the probe out"
        raise UsageError(f"quality: {error}{hint}") from error


def is_wanted(config: Config, geometry: KVGeometry, strategies: Mapping[str, Strategy]) -> bool:
    """Whether strategies are probed: left to auto, all of them where one is lossy or data to probe with is given.

    Nothing carries out a cache of four bits a number, nor probes it unless that is asked for, and where all layers have
    a window strategies decide over none. Data that steps append is taken for such data too, and alone asks for no
    probe.
    """
    probe = asked_quality(config).probe
    if probe == AUTO:
        is_asked_for = config["quality_data"] not in (None, config["data"])
        others = geometry.held_dtypes - {geometry.dtype}
        is_lossy = not all(strategy.lossless for strategy in strategies.values()) or (others and geometry.is_plain)
        sees_all = any(group.holds_tokens and group.tokens is None for group in geometry.groups)
        return is_asked_for or bool(is_lossy and sees_all and others <= {*CAST_DTYPES})
    return bool(probe)


def data_of(config: Config) -> Path | None:
    """The file of recorded K and V."""
    return None if config["quality_data"] is None else Path(config["quality_data"]).expanduser()


def probed(
    config: Config,
    geometry: KVGeometry,
    strategies: Mapping[str, Strategy],
    sessions: tuple[Session, ...],
    advance: Advance,
) -> Comparison | None:
    """Probe the strategies, telling of each; None where that is not wanted."""
    if not is_wanted(config, geometry, strategies):
        return None
    return compare(
        strategies,
        sessions,
        geometry=geometry,
        device=config["device"],
        seed=config["seed"],
        max_tokens=config["quality_tokens"],
        data=data_of(config),
        on_strategy=lambda name: advance(f"quality of {name}", 0),
    )


def quality_frame(found: Comparison | None) -> pd.DataFrame | None:
    """Recall by depth, columns as in schema.QUALITY; None where no needle was planted."""
    rows = [] if found is None else found.by_depth()
    return pd.DataFrame(rows, columns=list(QUALITY)) if rows else None


def quality_line(found: Comparison) -> str:
    """What was probed, for the report."""
    queries = next((each.num_queries for each in found.found.values() if each is not None), 0)
    return (
        f"quality: {queries:,} queries of one request of {found.num_tokens:,} tokens held against exact attention; "
        f"{found.data}"
    )
