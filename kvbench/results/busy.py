"""What other programs took of this machine's processors while something was measured."""

import os
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
LEAST_S = 0.1
"""Of a processor's time; the kernel counts in hundredths, and less says nothing."""


@dataclass(frozen=True)
class Processors:
    """Seconds since the start, summed over the processors that this process may use.

    Args:
        busy_s: in which they worked, or their hypervisor gave them to another machine.
        total_s: in which they worked or did not.
        own_s: of this process, its threads, and its children that have ended.
    """

    busy_s: float
    total_s: float
    own_s: float

    @classmethod
    def now(cls) -> "Processors | None":
        """As the kernel counts them; None where the system does not tell."""
        try:
            lines = STAT.read_text(encoding="ascii").splitlines()
            ticks_per_s, own = os.sysconf("SC_CLK_TCK"), sum(os.times()[:4])
            names = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            rows = [list(map(int, line.split()[1:9])) for line in lines if line.split(" ", 1)[0] in names]
        except (OSError, ValueError, AttributeError):
            return None
        total = sum(map(sum, rows))
        idle = sum(row[3] + row[4] for row in rows if len(row) > 4)  # noqa: PLR2004
        return cls((total - idle) / ticks_per_s, total / ticks_per_s, own)

    def taken_by_others(self, later: "Processors | None") -> float | None:
        """The share of the time from here until later that neither was idle nor this process's.

        Returns:
            0 to 1; None where it is too short to tell.
        """
        if later is None or later.total_s - self.total_s < LEAST_S:
            return None
        others_s = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        return min(max(others_s / (later.total_s - self.total_s), 0.0), 1.0)


def since(start: Processors | None) -> float | None:
    """What others took since then, as a share; None where the system does not tell."""
    return None if start is None else start.taken_by_others(Processors.now())
