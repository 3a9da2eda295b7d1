"""The public call that measures this machine."""

from collections.abc import Mapping
from os import PathLike
from typing import TYPE_CHECKING

from kvbench.api.out import new_file, written
from kvbench.api.progress import alive
from kvbench.configuration.composed import composed
from kvbench.configuration.errors import refusing
from kvbench.files import write_text, write_whole

if TYPE_CHECKING:
    from kvbench.calibration.result import Calibration
    from kvbench.calibration.validate import ValidationCase
    from kvbench.model.geometry import KVGeometry
    from kvbench.strategy.base import Strategy

SUFFIX, TABLE_SUFFIX = ".yaml", ".parquet"
STRATEGIES = ("static", "dynamic", "concat", "paged", "int8", "int4")
CASES: Mapping[str, int | None] = {"short_chat": None, "parallel_sampling": 2}
"""Scenarios that nothing is fitted to, and how many of their requests are run; None: all."""
NUM_REPETITIONS = 1


def calibrate(
    model: "str | PathLike[str] | Mapping[str, object] | KVGeometry | None" = None,
    *,
    dtype: str | None = None,
    device: str = "auto",
    out: str | PathLike[str] | None = None,
) -> "Calibration":
    """Measure this machine and hold its model against further runs, as `python -m kvbench calibrate out=…` does.

    Args:
        model: whose heads are measured: a name, a YAML file, a shape, or its keys; None: the article's.
        dtype: float32, float16 or bfloat16; None: the model's.
        device: auto, cpu or cuda.
        out: a new hardware file, whose name ends in .yaml; the kernels that were timed are written beside it, in a
            new file of the same name that ends in .parquet. None: nothing is written.
    Returns:
        The `hardware`, for `run`; a `table` of µs a step measured and modelled, with errors and noise as shares; a
        `verdict` in words; `is_exact`, whether bytes, slots and resizes of the model are those that were measured;
        strategies that were `left_out`, with the reason; and the `kernel_table` that was timed, with its `kernel_fit`.
    Raises:
        ValueError: an argument is wrong, there is no such device, or memory does not last; nothing is written.
    """
    path = None if out is None else new_file(out, SUFFIX)
    beside = None if path is None else new_file(path.with_suffix(TABLE_SUFFIX), TABLE_SUFFIX)
    # Imported here, so that other calls come at once.
    from kvbench.backend.device import find_device
    from kvbench.calibration.file import file_text
    from kvbench.calibration.measure import FULL
    from kvbench.calibration.whole import calibrated

    geometry, strategies, cases = composed_for(model, dtype, CASES)
    with refusing():
        find_device(device)
    with refusing(f"model={model}: " if isinstance(model, str) else ""), alive():
        found = calibrated(geometry, device, FULL, strategies, cases, NUM_REPETITIONS)
    table = found.kernel_table
    if path is not None and beside is not None and table is not None:
        with written(beside):
            write_whole(beside, lambda partial: table.to_parquet(partial, index=False))
        with written(path):
            write_text(path, file_text(found.hardware))
    return found


def composed_for(
    model: object, dtype: str | None, sizes: Mapping[str, int | None]
) -> tuple["KVGeometry", dict[str, "Strategy"], list["ValidationCase"]]:
    """The model, the strategies and the cases.

    Args:
        model: as in `calibrate`.
        dtype: as in `calibrate`.
        sizes: scenarios, at least one, and how many of their requests; None: all.
    Raises:
        UsageError: the model or the dtype is wrong.
    """
    from kvbench.calibration.validate import ValidationCase
    from kvbench.configuration.chosen import strategies_of, workload_of
    from kvbench.configuration.model import geometry_of

    cases = []
    for name, size in sizes.items():
        settings = {"dtype": dtype, "scenario.max_requests": size}
        config = composed({"scenario": name, "model": model}, STRATEGIES, settings)
        scenario, workload = workload_of(config)
        shown = name if size is None else f"{name}, {size} requests"
        cases.append(ValidationCase(shown, workload.sessions, scenario.max_concurrency))
    return geometry_of(config), strategies_of(config), cases
