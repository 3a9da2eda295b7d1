"""`kvbench capacity model=… hardware=…`: how many tokens, and how many users, fit."""

import json
from typing import Any

from kvbench.api.capacity import STRATEGIES, capacity
from kvbench.api.fit import Fit
from kvbench.api.fit_text import chart_of, compared, text_of
from kvbench.cli.arguments import needing, settings_of
from kvbench.cli.drawn import chart_path, draw
from kvbench.configuration.errors import UsageError, refusing

USAGE = "python -m kvbench capacity model=./config.json hardware=h100 parallel.tensor=2 model.kv_dtype=fp8_e4m3"
TABLE, JSON = "table", "json"
CHOSEN = ("model", "hardware", "engine", "parallel", "scenario", "strategy", "trusted")
TEXTS = ("model", "engine.version", "format", "chart")
"""Keys whose values are read as they stand."""


def main(arguments: list[str]) -> int:
    """Print what fits, accelerator by accelerator, and draw it where a file is named.

    Raises:
        UsageError: the input is wrong, or the chart cannot be written.
    """
    given = settings_of(arguments, ("hardware",), TEXTS, USAGE)
    needing(given, ("model", "hardware"), USAGE)
    shown, path = given.pop("format", TABLE), chart_path(given.pop("chart", None))
    if shown not in (TABLE, JSON):
        raise UsageError(f"format is {TABLE} or {JSON}, got {shown!r}")
    fits = fits_of(given)
    if shown == JSON:
        print(as_json(fits))
    else:
        print("\n\n\n".join(map(text_of, fits)))
        if len(fits) > 1:
            print(f"\n\n{compared(fits)}")
    if path is not None:
        drawn = draw(chart_of(fits), path)
        if shown == TABLE:
            print(f"\nchart: {drawn}")
    return 0


def fits_of(given: dict[str, Any]) -> list[Fit]:
    """What fits on each accelerator that is named.

    Raises:
        UsageError: the input is wrong.
    """
    chosen = {key: given.pop(key) for key in CHOSEN if key in given}
    machines, strategies = chosen.pop("hardware"), chosen.pop("strategy", STRATEGIES)
    machines = machines if isinstance(machines, list) else [machines]
    try:
        with refusing():
            return [capacity(hardware=machine, strategies=strategies, settings=given, **chosen) for machine in machines]
    except FileNotFoundError as error:  # the scenario's trace
        raise UsageError(str(error)) from error


def as_json(fits: list[Fit]) -> str:
    """One object an accelerator: alone where there is one, else in a list."""
    objects = [json.dumps(fit.as_dict(), indent=2, allow_nan=False, ensure_ascii=False) for fit in fits]
    return objects[0] if len(objects) == 1 else "[" + ",\n".join(objects) + "]"
