"""The public call that trains the predictor of predictive_learned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.api.out import new_file, written
from kvbench.checks import MOST_SEED, check_int, check_number
from kvbench.configuration.errors import UsageError, refusing
from kvbench.files import write_whole
from kvbench.messages import unknown

if TYPE_CHECKING:
    from kvbench.predictor.weights import PredictorWeights
    from kvbench.workload.request import Session

QUANTILE = 0.9
SEED = 0


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Args:
        weights: the network; `about` holds its trace, split, quantile, seed and figures on requests not seen.
        comparison: a row a predictor, the trained one first, rated on requests not seen.
    """

    weights: "PredictorWeights"
    comparison: Sequence[Mapping[str, Any]]


def train(
    trace: str | PathLike[str],
    *,
    out: str | PathLike[str] | None = None,
    format: str | None = None,
    quantile: float = QUANTILE,
    seed: int = SEED,
) -> Trained:
    """Train the predictor of predictive_learned and rate it, as `python -m kvbench train trace=… out=…` does.

    Args:
        trace: a scenario's name, its YAML file, or with a format a trace file.
        out: a new file for the weights, whose name ends in .safetensors; None: nothing is written.
        format: of a trace file, one of `kvbench.workload.trace_formats.FORMATS`.
        quantile: of the further tokens, above 0, below 1.
        seed: the same seed gives the same weights.
    Returns:
        The `weights`, and the `comparison` with other predictors on requests not seen.
    Raises:
        ValueError: an argument is wrong, or the trace is missing, malformed or too short; nothing is written.
    """
    from kvbench.predictor.compare import compare
    from kvbench.predictor.replay import examples_of
    from kvbench.predictor.train import train as trained
    from kvbench.predictor.weights import SUFFIX

    path = None if out is None else new_file(out, SUFFIX)
    with refusing():
        check_number("quantile", quantile, 0, 1, above=True, below=True)
        check_int("seed", seed, 0, MOST_SEED)
    name, source, sessions = _requests(str(trace), format, seed)
    examples = examples_of(sessions)
    with refusing(f"trace={trace}: "):
        weights = trained(examples, quantile, seed, name, source)
    rows = compare(weights, examples)
    rated = {key: rows[0][key] for key in ("num_requests", "pinball_tokens", "coverage")}
    weights = replace(weights, about={**weights.about, "unseen": rated})
    if path is not None:
        with written(path):
            write_whole(path, lambda partial: partial.write_bytes(weights.to_bytes()))
    return Trained(weights, rows)


def _requests(trace: str, format: str | None, seed: int) -> tuple[str, str, Sequence["Session"]]:
    """The trace's name, where it is from, and its requests: all of them, whatever the scenario's max_requests."""
    import numpy as np

    from kvbench.workload.trace import Trace

    try:
        if format is None:
            return _scenarios_requests(trace, seed)
        path = Path(trace)
        read = Trace(path=str(path), file=path.name, format=format, source=path.name)
        return path.name, path.name, read.workload(np.random.default_rng(seed)).sessions
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error


def _scenarios_requests(name: str, seed: int) -> tuple[str, str, Sequence["Session"]]:
    from kvbench.configuration.catalogue import names
    from kvbench.configuration.chosen import workload_of
    from kvbench.configuration.composed import composed
    from kvbench.workload.trace_formats import FORMATS

    if name not in names("scenario") and not name.endswith((".yaml", ".yml")):
        hint = f"a trace file needs format={' or '.join(FORMATS)} beside it"
        raise UsageError(f"{unknown('scenario', name, names('scenario'))}\n  {hint}")
    scenario, workload = workload_of(composed({"scenario": name}, None, {"seed": seed, "scenario.max_requests": None}))
    return Path(name).stem, getattr(scenario, "source", "generated"), workload.sessions
