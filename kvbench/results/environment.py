"""Where and with what a run was made, and what other programs took of the processors meanwhile."""

import os
import platform
import subprocess
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import kvbench

PACKAGES = ("kvbench", "torch", "numpy", "pandas", "pyarrow", "matplotlib", "hydra-core", "transformers", "numba")
STAT = Path("/proc/stat")
LEAST_S = 0.1
"""Of a processor's time; the kernel counts in hundredths, and less says nothing."""


def environment() -> dict[str, Any]:
    """Versions, processor, operating system and kvbench's commit, for environment.json."""
    return deepcopy(_environment())


@cache
def _environment() -> dict[str, Any]:
    """Once a process, as a process has one of each."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": processor_name(),
        "commit": _commit(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """The processor's model, or what the operating system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


GPU_FACTS = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "clocks.max.mem")


def driver_and_clocks(gpu: str = "0") -> dict[str, str]:
    """What nvidia-smi says of a GPU now, clocks in MHz; empty where there is none to ask, or it does not know the GPU.

    Args:
        gpu: its number or UUID.
    """
    command = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={','.join(GPU_FACTS)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    names = (name.replace("clocks.", "clock_mhz_").replace(".", "_") for name in GPU_FACTS)
    return dict(zip(names, (value.strip() for value in said.split(",")), strict=False))


def _commit() -> str | None:
    """The commit of the checkout that this package stands in, with + where it was changed; None where it is in none."""
    folder = Path(kvbench.__file__).resolve().parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != folder.parent:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


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
