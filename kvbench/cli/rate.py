"""`kvbench rate +scenario=… subject_to=[…]`: the highest load at which objectives hold."""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from kvbench.api.rating import rate
from kvbench.configuration.errors import UsageError, WriteFailed
from kvbench.messages import unknown

TABLE, JSON = FORMATS = ("table", "json")
CHOSEN = ("scenario", "strategy", "model", "backend", "hardware", "engine", "trusted", "subject_to")
SHOWN = ("format", "chart")
LISTS = ("strategy", "hardware", "subject_to", "trusted")
TEXTS = ("scenario", "model", "backend", "engine", "engine.version", *SHOWN)
ENDINGS = (".png", ".svg")
USAGE = "python -m kvbench rate +scenario=azure_conv hardware=h100 model=llama3_8b 'subject_to=[ttft_p99_s<=1]'"


def main(arguments: list[str]) -> int:
    """Print the loads with their intervals, and draw attained shares over them where a file is named.

    Raises:
        UsageError: the input is wrong, a trace is missing, or the chart cannot be written.
    """
    given = read(arguments)
    shown, drawn = given.pop("format", TABLE), given.pop("chart", None)
    if shown not in FORMATS:
        raise UsageError(unknown("format", shown, FORMATS))
    if drawn is not None and Path(drawn).suffix not in ENDINGS:
        raise UsageError(f"chart is a file whose name ends in .png or .svg, of which both are written, got {drawn!r}")
    chosen = {key: given.pop(key) for key in CHOSEN if key in given}
    for key in ("scenario", "subject_to"):
        if not chosen.get(key):
            raise UsageError(f"{key}=… is missing; for example: {USAGE}")
    degrees = {key.partition(".")[2]: given.pop(key) for key in list(given) if key.startswith("parallel.")}
    try:
        found = rate(
            chosen.pop("scenario"), chosen.pop("strategy", None), parallel=degrees or None, settings=given, **chosen
        )
    except FileNotFoundError as error:  # the scenario's trace
        raise UsageError(str(error)) from error
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if shown == JSON else found.text)
    if drawn is not None:
        print(f"chart: {', '.join(map(str, _drawn(found.chart, Path(drawn).expanduser())))}", file=sys.stderr)
    return 0


def read(arguments: list[str]) -> dict[str, Any]:
    """Keys and their values, which are read as YAML is.

    Raises:
        UsageError: an argument is no key=value, or stands twice.
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
    return given


def _value(key: str, text: str) -> Any:
    if key in LISTS:
        inside = text.strip().removeprefix("[").removesuffix("]")
        return [each.strip().strip("\"'") for each in inside.split(",") if each.strip()]
    if key in TEXTS:
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{key}: cannot read {text!r}: {' '.join(str(error).split())}") from error


def _drawn(chart: Any, path: Path) -> list[Path]:
    from kvbench.charts.chart import save

    try:
        return save(chart.figure(), path.parent, path.stem)
    except OSError as error:
        raise WriteFailed(f"chart={path}: it cannot be written: {error.strerror or error}") from error
