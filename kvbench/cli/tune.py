"""`kvbench tune +scenario=… hardware=[…] subject_to=[…]`: the best deployment, and how it compares with defaults."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.api.tuning import tune
from kvbench.cli.arguments import needing, settings_of
from kvbench.cli.drawn import chart_path, draw
from kvbench.configuration.catalogue import own_settings
from kvbench.configuration.errors import UsageError, WriteFailed
from kvbench.decide.manifest import versions
from kvbench.messages import unknown, unknown_key

if TYPE_CHECKING:
    from kvbench.api.recommending import Recommended
    from kvbench.api.tuning import Tuned

TABLE, JSON = FORMATS = ("table", "json")
OWN = ("trials", "workers", "folder")
CHOSEN = ("scenario", "strategy", "model", "backend", "hardware", "engine", "trusted")
LISTS = ("strategy", "hardware", "subject_to", "trusted", "minimise", "maximise", "search")
TEXTS = ("scenario", "backend", "engine.version", "format", "chart", "folder")
BESIDE = ("trials", "workers", "format", "chart")
SEARCHED = ("minimise", "maximise", "subject_to", "search")
USAGE = (
    "python -m kvbench tune +scenario=azure_conv 'hardware=[h100,l40s]' model=llama3_8b "
    "'minimise=[cost_per_million_tokens]' 'subject_to=[ttft_p99_s<=1]'"
)


def usual_folder(verb: str, arguments: list[str], scenario: str) -> Path:
    """Where a search is kept that names no folder: the same for the same command, however it runs."""
    asked = sorted(each for each in arguments if each.partition("=")[0] not in BESIDE)
    found = hashlib.sha256(json.dumps([asked, versions()], sort_keys=True).encode()).hexdigest()
    return Path("results") / verb / f"{Path(scenario).stem}-{found[:8]}"


def main(arguments: list[str]) -> int:
    """Print the front and how the best compares with defaults, and draw it where a file is named.

    Raises:
        UsageError: the input is wrong, a trace is missing, or the chart cannot be written.
        KeyboardInterrupt: a signal ended it; the same command goes on.
    """
    return searched("tune", tune, arguments, ("scenario", "hardware"), USAGE)


def searched(
    verb: str, call: Callable[..., "Tuned | Recommended"], arguments: list[str], needed: tuple[str, ...], usage: str
) -> int:
    """Print what a search, or what stands on one, answers; keep its rows, and draw its chart where a file is named.

    Args:
        verb: its folder's name.
        call: the public call.
        arguments: as given.
        needed: keys without which there is no answer.
        usage: an example, for messages.
    Raises:
        UsageError: as `main`.
        KeyboardInterrupt: likewise.
    """
    given = settings_of(arguments, LISTS, TEXTS, usage)
    shown, path = given.pop("format", TABLE), chart_path(given.pop("chart", None))
    if shown not in FORMATS:
        raise UsageError(unknown("format", shown, FORMATS))
    chosen: dict[str, Any] = {key: given.pop(key) for key in CHOSEN if key in given}
    needing(chosen | given, needed, usage)
    chosen |= {key: given.pop(key) for key in (*OWN, *SEARCHED) if key in given}
    for key in given:
        if "." not in key and key not in own_settings():
            raise UsageError(unknown_key(key, own_settings(), (*BESIDE, *OWN, *SEARCHED)))
    degrees = {key.partition(".")[2]: given.pop(key) for key in list(given) if key.startswith("parallel.")}
    folder = chosen.setdefault("folder", str(usual_folder(verb, arguments, str(chosen["scenario"]))))
    try:
        found = call(
            chosen.pop("scenario"), chosen.pop("strategy", None), parallel=degrees or None, settings=given, **chosen
        )
        found.save(folder)
    except FileNotFoundError as error:  # the scenario's trace
        raise UsageError(str(error)) from error
    except OSError as error:
        raise WriteFailed(f"folder={folder}: {error.strerror or error}") from error
    except KeyboardInterrupt as stop:
        kept = f"what was tried is in {folder}, and the same command goes on"
        raise KeyboardInterrupt(kept) from stop
    print(json.dumps(found.as_dict(), indent=2, ensure_ascii=False) if shown == JSON else found.text)
    print(f"rows: {folder}", file=sys.stderr)
    if path is not None:
        print(f"chart: {draw(found.chart, path)}", file=sys.stderr)
    return 0
