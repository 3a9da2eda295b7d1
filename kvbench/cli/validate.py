"""`kvbench validate FILE…`: what others measured, and engines printed, beside what is said here."""

import json
import sys

from kvbench.api.validating import validate
from kvbench.cli.arguments import key_values
from kvbench.configuration.errors import UsageError

TABLE, JSON = "table", "json"
DEFAULTS = {"format": TABLE}
KEYS = ("configs", "hardware", "fail_if", "out", *DEFAULTS)
USAGE = "python -m kvbench validate h100_vllm.parquet fail_if='mape>0.1' out=./validation"


def main(arguments: list[str]) -> int:
    """Print each figure beside ours, and last a line of counts and errors; 1 where a condition of `fail_if` holds.

    Raises:
        UsageError: an argument is wrong, or a file cannot be read.
    """
    files = [argument for argument in arguments if "=" not in argument]
    if not files:
        raise UsageError(f"validate takes files of measurements, got none; for example: {USAGE}")
    given = key_values([each for each in arguments if "=" in each], KEYS, (), USAGE, DEFAULTS)
    shown, out = given.pop("format"), given.pop("out", None)
    if shown not in (TABLE, JSON):
        raise UsageError(f"format is {TABLE} or {JSON}, got {shown!r}")
    found = validate(*files, **given)
    for why in found.failed:
        print(f"fails by {why}", file=sys.stderr)
    if out is not None:
        paths = found.save(out)
        print(f"written: {', '.join(map(str, paths))}", file=sys.stderr)
    print(found.text if shown == TABLE else json.dumps(found.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    return int(bool(found.failed))
