"""`kvbench rerun results/X`: run a folder's configuration as it stands, and say what differs from what it found."""

from datetime import datetime
from pathlib import Path

from kvbench.api.rerunning import compared, job_again
from kvbench.cli.arguments import folder_and
from kvbench.cli.folder import held
from kvbench.cli.job import keep
from kvbench.cli.terminal import say
from kvbench.results.results import load

USAGE = "python -m kvbench rerun results/short_chat/2026-11-29_20-30-00"
MOST_SAID = 20


def main(arguments: list[str]) -> int:
    """Run it into a new folder beside the old one; 1 where bytes or counts differ.

    Raises:
        UsageError: an argument is wrong, there is no finished run, or its configuration is refused.
    """
    folder, _, trusted = folder_and(arguments, USAGE, keys=("trusted",))
    before, job = job_again(folder, trusted)
    say(job.header)
    into = Path(folder.parent, datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f"))
    with held(into, f"rerun={into}"):
        keep(job.run(), into)
    _, made, found = compared(before, load(into))
    say([f"{into} beside {folder}:", *(f"  {line}" for line in made or ["the same versions, on the same machine"])])
    say([f"  {line}" for line in found[:MOST_SAID]] or ["  the same bytes and counts"])
    if len(found) > MOST_SAID:
        say([f"  and {len(found) - MOST_SAID:,} more figures that differ"])
    return 1 if found else 0
