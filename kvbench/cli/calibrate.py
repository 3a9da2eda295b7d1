"""`kvbench calibrate out=FILE`: measure this machine, and hold a model made of that against further runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvbench.api.out import new_file, written
from kvbench.api.progress import alive
from kvbench.cli.arguments import key_values
from kvbench.configuration.errors import UsageError

if TYPE_CHECKING:
    from kvbench.calibration.validate import Case, Outcome
    from kvbench.model.geometry import KVGeometry
    from kvbench.strategy.base import Strategy

DEFAULTS = {"model": "article", "dtype": "null", "device": "auto"}
KEYS = ("out", *DEFAULTS)
USAGE = "python -m kvbench calibrate out=mine.yaml model=article dtype=float32 device=auto"
SUFFIX = ".yaml"

STRATEGIES = ("static", "dynamic", "concat", "paged", "int8", "int4")
CASES = {"short_chat": "null", "parallel_sampling": "4"}
"""Scenarios that nothing is fitted to, and how many of their requests are run."""
NUM_REPETITIONS = 2
MOST_ERROR = 0.15
"""The error that a model should not exceed."""


def main(arguments: list[str]) -> int:
    """Measure, validate, write the hardware file whole, and print errors beside noise.

    Returns:
        0; 1 where bytes, slots or resizes of the model are not those that were measured.
    Raises:
        UsageError: an argument is wrong, there is no such device, or memory does not last.
    """
    given = key_values(arguments, KEYS, ("out",), USAGE, DEFAULTS)
    out = _out(given["out"])
    # Imported here, so that other verbs come at once.
    from kvbench.backend.device import find_device
    from kvbench.calibration.file import file_text
    from kvbench.calibration.measure import FULL
    from kvbench.calibration.whole import calibrated
    from kvbench.files import write_text

    geometry, strategies, cases = composed_for(given, CASES)
    try:
        find_device(given["device"])
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        chosen = fitting(geometry, strategies)
        with alive():
            hardware, outcomes = calibrated(geometry, given["device"], FULL, chosen, cases, NUM_REPETITIONS)
    except ValueError as error:
        raise UsageError(f"model={given['model']}: {error}") from error
    with written(out):
        write_text(out, file_text(hardware))
    path = out if out.is_absolute() or out.parts[0] == ".." else f"./{out}"
    print(
        f"{hardware.name}; {hardware.source}\n\n{table_text(outcomes)}\n\n{verdict_text(outcomes)}\n"
        f"hardware file: {out}; price plans on it: python -m kvbench +scenario=short_chat backend=modelled "
        f"hardware={path} cache_only=true model={given['model']}"
    )
    return 1 if any(each.differences for each in outcomes) else 0


def composed_for(
    given: Mapping[str, str], sizes: Mapping[str, str]
) -> tuple["KVGeometry", dict[str, "Strategy"], list["Case"]]:
    """The model, the strategies and the cases.

    Args:
        given: model and dtype.
        sizes: scenarios, and how many of their requests.
    Raises:
        UsageError: the model or the dtype is wrong.
    """
    from kvbench.calibration.validate import Case
    from kvbench.cli.command_line import check, read
    from kvbench.cli.keys import check_keys, composed
    from kvbench.configuration.model import geometry_of
    from kvbench.configuration.parts import strategies_of, workload_of

    cases = []
    for name, size in sizes.items():
        own = [f"+scenario={name}", f"scenario.max_requests={size}", f"strategy=[{','.join(STRATEGIES)}]"]
        with read([*own, *(f"{key}={given[key]}" for key in ("model", "dtype"))]) as command:
            check(command)
            check_keys(command)
            config = composed(command)
        scenario, workload = workload_of(config)
        shown = name if size == "null" else f"{name}, {size} requests"
        cases.append(Case(shown, workload.sessions, scenario.max_concurrency))
    return geometry_of(config), strategies_of(config), cases


def fitting(geometry: "KVGeometry", strategies: Mapping[str, "Strategy"]) -> dict[str, "Strategy"]:
    """The strategies whose areas the model's heads go into; says which are left out, and why."""
    from kvbench.ledger import Limits

    found = {}
    for name, strategy in strategies.items():
        try:
            strategy.fitted(Limits(geometry=geometry, budget_bytes=None, live_tokens=(1,))).ledger(geometry)
        except ValueError as error:
            print(f"{name} is left out: {error}")
        else:
            found[name] = strategy
    return found


def table_text(outcomes: Sequence["Outcome"]) -> str:
    """A line a strategy and scenario, and the mean: time a step measured and modelled, error and noise."""
    names = ("scenario", "strategy", "measured", "modelled", "error", "noise", "of a step", "noise")
    units = ("", "", "ms a step", "ms a step", "%", "%", "%", "%")
    rows: list[tuple[str, ...]] = [names, units]
    for each in outcomes:
        shares = (each.error, each.noise, each.step_error, each.step_noise)
        times = [f"{us / 1000:,.3f}" for us in (each.measured_us, each.modelled_us)]
        rows.append((each.case, each.strategy, *times, *(f"{100 * share:.1f}" for share in shares)))
    means = [
        100 * sum(getattr(each, name) for each in outcomes) / len(outcomes)
        for name in ("error", "noise", "step_error", "step_noise")
    ]
    rows.append(("mean", "", "", "", *(f"{each:.1f}" for each in means)))
    wide = max(len(row[0]) for row in rows)
    return "\n".join(f"{row[0]:<{wide}}  {row[1]:<10}" + "".join(f"{cell:>11}" for cell in row[2:]) for row in rows)


def verdict_text(outcomes: Sequence["Outcome"]) -> str:
    """Whether bytes agree, and whether mean errors are as small as they should be."""
    wrong = [each for each in outcomes if each.differences]
    differing = [f"{each.strategy} in {each.case}: {', '.join(each.differences)}" for each in wrong]
    agreed = f"NOT equal in every step: {'; '.join(differing)}" if differing else "equal in every step"
    goal = f"goal of at most {100 * MOST_ERROR:.0f} %"
    lines = []
    for case in dict.fromkeys(each.case for each in outcomes):
        own = [each for each in outcomes if each.case == case]
        error, noise = (sum(shares) / len(own) for shares in zip(*((e.error, e.noise) for e in own), strict=True))
        met = "met" if error <= MOST_ERROR else "MISSED"
        lines.append(f"{case}: mean error {100 * error:.1f} %, noise {100 * noise:.1f} %; {goal}: {met}")
    return "\n".join(
        (
            "error: distance of the modelled mean time a step from the measured one; noise: of a second measurement",
            "from the first; of a step: the same of single steps, mean over them",
            f"bytes, slots and resizes: {agreed}",
            *lines,
        )
    )


def _out(text: str) -> Path:
    return new_file(text, SUFFIX)
