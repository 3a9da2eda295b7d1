"""A job: what a configuration asks for, checked, with nothing run yet."""

from collections.abc import Callable
from typing import NamedTuple

from kvbench.results.results import Results


class Job(NamedTuple):
    """A run that may begin.

    Args:
        header: what will be run, on what, a line each.
        run: runs it, with signs of life on stderr.
    """

    header: list[str]
    run: Callable[[], Results]


class Stopped(KeyboardInterrupt):
    """A signal ended a run after a part of it was done.

    Args:
        how_far: what is done, in words.
        results: of that part.
    """

    def __init__(self, how_far: str, results: Results) -> None:
        super().__init__(how_far)
        self.results = results
