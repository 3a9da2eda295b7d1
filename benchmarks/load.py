"""How busy other processes kept the processors meanwhile: what makes the figures of a shared machine doubtful."""

from kvbench.results.environment import Processors, since

DOUBTFUL = 0.1
"""Share of the processors' time that others may take before the figures say little."""


class OtherLoad:
    """Measures from its making on; Linux alone tells."""

    def __init__(self) -> None:
        self._start = Processors.now()

    def report(self) -> str:
        """A line about the time since then; empty where the system does not tell."""
        share = since(self._start)
        if share is None:
            return ""
        warning = "; THE MACHINE WAS BUSY, do not quote these" if share > DOUBTFUL else ""
        return f"(other processes took {100 * share:.0f} % of the processors meanwhile{warning})"
