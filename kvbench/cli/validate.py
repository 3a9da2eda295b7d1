"""`kvbench validate capacity.csv`: what engines printed at their start, beside what is said here."""

import json

from kvbench.api.validating import validate
from kvbench.cli.arguments import key_values
from kvbench.configuration.errors import UsageError

TABLE, JSON = "table", "json"
DEFAULTS = {"format": TABLE}
KEYS = ("configs", *DEFAULTS)
USAGE = "python -m kvbench validate capacity.csv configs=./configs"


def main(arguments: list[str]) -> int:
    """Print each line beside ours, and last a line of counts and errors.

    Raises:
        UsageError: an argument is wrong, or the table cannot be read.
    """
    tables = [argument for argument in arguments if "=" not in argument]
    if len(tables) != 1:
        raise UsageError(f"validate takes one table of printed lines, got {len(tables)}; for example: {USAGE}")
    given = key_values([each for each in arguments if "=" in each], KEYS, (), USAGE, DEFAULTS)
    if given["format"] not in (TABLE, JSON):
        raise UsageError(f"format is {TABLE} or {JSON}, got {given['format']!r}")
    found = validate(tables[0], configs=given.get("configs"))
    print(found.text if given["format"] == TABLE else json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    return 0
