"""`kvbench rate +scenario=… subject_to=[…]`: the highest load at which objectives hold."""

import json
import sys

from kvbench.api.rating import rate
from kvbench.cli.arguments import needing, settings_of
from kvbench.cli.drawn import chart_path, draw
from kvbench.configuration.errors import UsageError
from kvbench.messages import unknown

TABLE, JSON = FORMATS = ("table", "json")
CHOSEN = ("scenario", "strategy", "model", "backend", "hardware", "engine", "trusted", "subject_to")
LISTS = ("strategy", "hardware", "subject_to", "trusted")
TEXTS = ("scenario", "model", "backend", "engine", "engine.version", "format", "chart")
USAGE = "python -m kvbench rate +scenario=azure_conv hardware=h100 model=llama3_8b 'subject_to=[ttft_p99_s<=1]'"


def main(arguments: list[str]) -> int:
    """Print the loads with their intervals, and draw attained shares over them where a file is named.

    Raises:
        UsageError: the input is wrong, a trace is missing, or the chart cannot be written.
    """
    given = settings_of(arguments, LISTS, TEXTS, USAGE)
    shown, path = given.pop("format", TABLE), chart_path(given.pop("chart", None))
    if shown not in FORMATS:
        raise UsageError(unknown("format", shown, FORMATS))
    chosen = {key: given.pop(key) for key in CHOSEN if key in given}
    needing(chosen, ("scenario", "subject_to"), USAGE)
    degrees = {key.partition(".")[2]: given.pop(key) for key in list(given) if key.startswith("parallel.")}
    try:
        found = rate(
            chosen.pop("scenario"), chosen.pop("strategy", None), parallel=degrees or None, settings=given, **chosen
        )
    except FileNotFoundError as error:  # the scenario's trace
        raise UsageError(str(error)) from error
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if shown == JSON else found.text)
    if path is not None:
        print(f"chart: {draw(found.chart, path)}", file=sys.stderr)
    return 0
