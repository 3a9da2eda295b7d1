"""`kvbench collect results/X`: the frame, charts and report of what a sweep has so far."""

from kvbench.cli.arguments import folder_and
from kvbench.cli.sweeping import join

USAGE = "python -m kvbench collect results/short_chat/2026-11-29_20-30-00"


def main(arguments: list[str]) -> int:
    """Join what is done, finished or not; 1 where a point failed, 2 where one was refused.

    Raises:
        UsageError: an argument is wrong, or there is no manifest.
    """
    folder, _, _ = folder_and(arguments, USAGE, keys=())
    return join(folder)
