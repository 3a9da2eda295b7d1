"""How busy other processes kept the processors meanwhile: what makes the figures of a shared machine doubtful."""

import os
from pathlib import Path

DOUBTFUL = 0.1
"""Share of the processors' time that others may take before the figures say little."""

_IDLE_FIELDS = (3, 4)
_COUNTED_FIELDS = 8


class OtherLoad:
    """Measures from its making on; Linux alone tells."""

    def __init__(self) -> None:
        self._start = self._read()

    def report(self) -> str:
        """A line about the time since then; empty where the system does not tell."""
        end = self._read()
        if self._start is None or end is None:
            return ""
        busy_s, total_s, own_s = (after - before for before, after in zip(self._start, end, strict=True))
        share = max(busy_s - own_s, 0.0) / max(total_s, 1e-9)
        warning = "; THE MACHINE WAS BUSY, do not quote these" if share > DOUBTFUL else ""
        return f"(other processes took {100 * share:.0f} % of the processors meanwhile{warning})"

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Processor seconds so far: busy, in all, and of this process with its children."""
        try:
            fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
        except OSError:
            return None
        ticks = [int(field) for field in fields[:_COUNTED_FIELDS]]
        idle = sum(ticks[index] for index in _IDLE_FIELDS)
        rate = os.sysconf("SC_CLK_TCK")
        return (sum(ticks) - idle) / rate, sum(ticks) / rate, sum(os.times()[:4])
