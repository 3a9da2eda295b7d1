"""`kvbench resume results/X`: run what a sweep lacks, and join it."""

from kvbench.api.working import begin_again, checked
from kvbench.cli.arguments import folder_and
from kvbench.cli.sweeping import run

USAGE = "python -m kvbench resume results/short_chat/2026-11-29_20-30-00 workers=2"


def main(arguments: list[str]) -> int:
    """Run the points that were never run and those that failed, and join all; 1 where one fails, 2 if refused.

    Raises:
        UsageError: an argument is wrong, there is no manifest, or its points may not be run here.
    """
    folder, workers, trusted = folder_and(arguments, USAGE)
    manifest = checked(folder, trusted)
    begin_again(folder)
    return run(folder, manifest, workers)
