"""`kvbench validate FILE…`: what others measured, and engines printed, beside what is said here."""

import json
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from kvbench.api.validating import validate
from kvbench.api.validation_text import MOST_ROWS, text_of
from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown

TABLE, JSON = "table", "json"
CHOSEN = ("configs", "hardware", "model", "engine", "inputs", "fail_if")
SHOWN = ("format", "out", "rows")
NUMBERS = ("concurrency", "rate", "replays")
SETTINGS = ("engine.", "parallel.", "model.")
"""Beginnings of keys whose values are read as YAML is, as those of NUMBERS are."""
USAGE = "python -m kvbench validate h100_vllm.parquet fail_if='mape>0.1' out=./validation"


def main(arguments: list[str]) -> int:
    """Print each figure beside ours, and last a line of counts and errors; 1 where a condition of `fail_if` holds.

    Raises:
        UsageError: an argument is wrong, or a file cannot be read.
    """
    files = [argument for argument in arguments if "=" not in argument]
    if not files:
        raise UsageError(f"validate takes files of measurements, got none; for example: {USAGE}")
    given = _read([each for each in arguments if "=" in each])
    shown, out = given.pop("format", TABLE), given.pop("out", None)
    if shown not in (TABLE, JSON):
        raise UsageError(f"format is {TABLE} or {JSON}, got {shown!r}")
    most_rows = given.pop("rows", str(MOST_ROWS))
    if not most_rows.isdecimal():
        raise UsageError(f"rows is a whole number of at least 0, got {most_rows!r}")
    chosen = {key: given.pop(key) for key in (*CHOSEN, *NUMBERS) if key in given}
    found = validate(*files, settings=given, **chosen)
    for why in found.failed:
        print(f"fails by {why}", file=sys.stderr)
    if out is not None:
        paths = found.save(out)
        print(f"written: {', '.join(map(str, paths))}", file=sys.stderr)
    if shown == TABLE:
        print(text_of(found, int(most_rows)))
    else:
        print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    return int(bool(found.failed))


def _read(arguments: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for argument in arguments:
        key, _, text = argument.partition("=")
        if key in given:
            raise UsageError(f"{key}=… stands twice: {argument!r}")
        if key in (*CHOSEN, *SHOWN):
            given[key] = text
        elif key in NUMBERS or key.startswith(SETTINGS):
            given[key] = _value(key, text)
        else:
            raise UsageError(unknown("key", key, (*CHOSEN, *NUMBERS, *SHOWN, *(f"{each}…" for each in SETTINGS))))
    return given


def _value(key: str, text: str) -> Any:
    if key == "engine.version":
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{key}: cannot read {text!r}: {' '.join(str(error).split())}") from error
