"""`kvbench capacity model=… hardware=…`: how many tokens, and how many users, fit."""

import json
from pathlib import Path
from typing import Any

import yaml

from kvbench.api.capacity import STRATEGIES, capacity
from kvbench.api.fit import Fit
from kvbench.api.fit_text import chart_of, compared, text_of
from kvbench.configuration.errors import UsageError, WriteFailed, refusing

USAGE = "python -m kvbench capacity model=./config.json hardware=h100 parallel.tensor=2 model.kv_dtype=fp8_e4m3"
TABLE, JSON = "table", "json"
ENDINGS = (".png", ".svg")
CHOSEN = ("model", "hardware", "engine", "parallel", "scenario", "strategy", "trusted")
TEXTS = ("model", "engine.version", "format", "chart")
"""Keys whose values are read as they stand."""


def main(arguments: list[str]) -> int:
    """Print what fits, accelerator by accelerator, and draw it where a file is named.

    Raises:
        UsageError: the input is wrong, or the chart cannot be written.
    """
    given = read(arguments)
    shown, drawn = given.pop("format", TABLE), given.pop("chart", None)
    if shown not in (TABLE, JSON):
        raise UsageError(f"format is {TABLE} or {JSON}, got {shown!r}")
    if drawn is not None and Path(drawn).suffix not in ENDINGS:
        raise UsageError(f"chart is a file whose name ends in .png or .svg, of which both are written, got {drawn!r}")
    fits = fits_of(given)
    if shown == JSON:
        print(as_json(fits))
    else:
        print("\n\n\n".join(map(text_of, fits)))
        if len(fits) > 1:
            print(f"\n\n{compared(fits)}")
    if drawn is not None:
        paths = draw(fits, Path(drawn).expanduser())
        if shown == TABLE:
            print(f"\nchart: {', '.join(map(str, paths))}")
    return 0


def read(arguments: list[str]) -> dict[str, Any]:
    """Keys and their values, which are read as YAML is.

    Raises:
        UsageError: an argument is no key=value, or stands twice, or model or hardware is missing.
    """
    given: dict[str, Any] = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        key = key.removeprefix("+")
        if not equals or not key:
            raise UsageError(f"expected key=value, got {argument!r}; for example: {USAGE}")
        if key in given:
            raise UsageError(f"{key}=… stands twice: {argument!r}")
        given[key] = _value(key, text)
    for key in ("model", "hardware"):
        if not given.get(key):
            raise UsageError(f"{key}=… is missing; for example: {USAGE}")
    return given


def _value(key: str, text: str) -> Any:
    if key == "hardware" and not text.startswith("{"):
        return [name.strip() for name in text.strip().removeprefix("[").removesuffix("]").split(",") if name.strip()]
    if key in TEXTS:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{key}: cannot read {text!r}: {' '.join(str(error).split())}") from error


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


def draw(fits: list[Fit], path: Path) -> list[Path]:
    """Draw requests over context as PNG and SVG.

    Raises:
        WriteFailed: a file cannot be written.
    """
    from kvbench.charts.chart import save

    try:
        return save(chart_of(fits).figure(), path.parent, path.stem)
    except OSError as error:
        raise WriteFailed(f"chart={path}: it cannot be written: {error.strerror or error}") from error
