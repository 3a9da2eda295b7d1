"""`kvbench compare RUN RUN…`: what became of each figure from one run to another."""

import json
import os
import sys

from kvbench.api.comparing import compare
from kvbench.cli.arguments import key_values, listed_names
from kvbench.cli.help import run_of
from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown

TABLE, MARKDOWN, JSON = FORMATS = ("table", "markdown", "json")
LISTS = ("across", "metrics")
KEYS = (*LISTS, "fail_if", "format")
USAGE = "python -m kvbench compare results/short_chat/A results/short_chat/B fail_if='ttft_p99>1.1'"


def main(arguments: list[str]) -> int:
    """Print ratios with their intervals; 1 where a condition of `fail_if` holds beyond doubt.

    Raises:
        UsageError: an argument is wrong, a folder cannot be read, or the runs may not be compared.
    """
    folders = [argument for argument in arguments if "=" not in argument]
    if not any(map(os.path.exists, folders)) and (meant := run_of(arguments)):
        raise UsageError(f"compare takes folders of finished runs; what you name is run so:\n  {meant}")
    if len(folders) < 2:  # noqa: PLR2004
        raise UsageError(f"compare takes two folders of results at least, got {len(folders)}; for example: {USAGE}")
    given = key_values([each for each in arguments if "=" in each], KEYS, (), USAGE, {})
    shown = given.pop("format", TABLE)
    if shown not in FORMATS:
        raise UsageError(unknown("format", shown, FORMATS))
    lists = {key: listed_names(given.pop(key, "")) for key in LISTS}
    try:
        found = compare(*folders, **lists, fail_if=given.pop("fail_if", None))
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    for why in found.failed:
        print(f"fails by {why}", file=sys.stderr)
    for why in found.untold:
        print(f"cannot be told: {why}", file=sys.stderr)
    if shown == JSON:
        print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        print(found.text if shown == TABLE else found.markdown)
    return int(bool(found.failed))
