"""`kvbench work results/X`: run points of a sweep beside others that do the same, here or on another machine."""

from kvbench.api.working import work
from kvbench.cli.arguments import folder_and

USAGE = "python -m kvbench work results/short_chat/2026-11-29_20-30-00 workers=2"


def main(arguments: list[str]) -> int:
    """Run what nobody has run yet, until nothing is left; `collect` joins it.

    Raises:
        UsageError: an argument is wrong, there is no manifest, or its points may not be run here.
    """
    folder, workers, trusted = folder_and(arguments, USAGE)
    work(folder, workers=workers, trusted=trusted)
    print(f"{folder}: nothing is left to run; join it: python -m kvbench collect {folder}")
    return 0
