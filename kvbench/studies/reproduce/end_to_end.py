"""A table of published end-to-end measurements, simulated: how far TTFT, TPOT and throughput are off, by system."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pandas as pd

from kvbench.calibration.validation.kernels import Judged
from kvbench.calibration.validation.points import ServingPoint
from kvbench.calibration.validation.recognised import read_table
from kvbench.calibration.validation.rows import errors_by
from kvbench.calibration.validation.servers import ServedBy, Server, engine_named, named_model, server_of
from kvbench.calibration.validation.serving_table import read_serving
from kvbench.calibration.validation.simulated import judged_points
from kvbench.messages import unknown
from kvbench.model.hardware import Hardware
from kvbench.model.model import Model
from kvbench.model.parallel import Parallel
from kvbench.studies.reproduce.figures import PublishedFigure

RESULT = "End to end"
TABLE, FOLDER, VARIABLE = "serving.csv", "measurements", "KVBENCH_MEASUREMENTS"
GOALS = {
    ("tpot", "h100, trtllm, tp1, bfloat16"): 5.0,
    ("output_tokens_per_s", "h100, trtllm, tp1, bfloat16"): 5.0,
    ("output_tokens_per_s", "h100, trtllm, tp1, fp8"): 8.0,
    ("tpot", "h100, trtllm, tp2, bfloat16"): 10.0,
}
"""Per cent that the mean error of a kind may have, by the end of its system's name; others are shown."""
SOURCE = "aiconfigurator, silicon_sample.csv; TensorRT-LLM, docs/source/performance"
MISSING = (
    f"The table {TABLE} of end-to-end measurements is missing: put it into the folder {FOLDER}, or into the one that "
    f"the environment variable {VARIABLE} names."
)


def table_path() -> Path | None:
    """The table; None where there is none."""
    path = Path(os.environ.get(VARIABLE, FOLDER), TABLE)
    return path if path.is_file() else None


def held(path: Path, models: Mapping[str, Model], machines: Mapping[str, Hardware]) -> Judged:
    """Each figure of the table beside ours.

    Args:
        path: the table.
        models: those that it may name, by their own names.
        machines: the same, by the names of kvbench's files.
    """
    points, left_out = read_serving(path, read_table(path))
    made: dict[object, Server] = {}

    def serving(point: ServingPoint) -> Server:
        system = point.system
        key = (system, point.limits)
        if key not in made:
            if system.hardware not in machines:
                raise ValueError(unknown("hardware", system.hardware, machines))
            degrees = Parallel(tensor=system.tensor, pipeline=system.pipeline, data=system.data)
            model, engine = named_model(system, models, "models"), engine_named(system)
            parts = ServedBy(model, system.hardware, machines[system.hardware], engine, degrees)
            made[key] = server_of(point, parts)
        return made[key]

    found = judged_points(points, serving, replays=0)
    return Judged(found.rows, (*left_out, *found.not_told))


def figures(rows: pd.DataFrame) -> Iterator[PublishedFigure]:
    """The mean error of each kind of figure and system, in per cent of what was published."""
    for (kind, system), errors, _ in errors_by(rows, ("kind", "group")):
        goal = next((goal for (of, end), goal in GOALS.items() if of == kind and system.endswith(end)), None)
        quantity = f"{kind.replace('_', ' ')}, {system}: mean error of {errors.number}"
        yield PublishedFigure(
            result=RESULT, quantity=quantity, unit="%", published=0.0, ours=100 * errors.mape, goal=goal, source=SOURCE
        )


def missing_figures() -> Iterator[PublishedFigure]:
    """What would be judged."""
    for (kind, system), goal in GOALS.items():
        quantity = f"{kind.replace('_', ' ')}, {system}: mean error"
        yield PublishedFigure(
            result=RESULT, quantity=quantity, unit="%", published=0.0, ours=None, goal=goal, source=SOURCE
        )
