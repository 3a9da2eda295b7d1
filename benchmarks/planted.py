"""A copy of the checkout, in which faults are planted; tests run in processes that each import kvbench anew."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra  # noqa: F401  what takes long to import is imported once, before processes part
import hypothesis
import matplotlib.figure  # noqa: F401
import numba
import pandas  # noqa: F401
import pytest
import torch  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
WALL_OF_CPU = 4
"""Seconds of the clock that a process may take for each second of the processor: others may use it too."""
MEMORY_BYTES = 12 << 30
WITHOUT = ("cacheprovider", "xdist", "nbmake", "anyio")
QUIET = ("-x", "-q", *(f"-pno:{name}" for name in WITHOUT), "--hypothesis-seed=0", "-m", "not slow and not gpu")
hypothesis.settings.register_profile("faults", phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate))
hypothesis.settings.load_profile("faults")  # that an example fails is enough: it need not be the smallest
ANSWERS = {0: True, 1: False, 2: False, 3: False}
"""What pytest's exit status says: all passed, some failed, or modules and fixtures could not even be had."""


class Copy:
    """A copy of the checkout's files, those not yet committed too.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._num_written = 0
        listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)

    def write(self, name: str, text: str) -> None:
        """Write a file, with a time of its own: Python tells compiled modules by it."""
        self._num_written += 1
        (self.folder / name).write_text(text, encoding="utf-8")
        os.utime(self.folder / name, (1e9 + 10 * self._num_written,) * 2)

    def passes(self, tests: list[str], cpu_s: int, machine_code: Path) -> bool:
        """Whether tests pass. Those that take too long or too much memory do not.

        Args:
            tests: names of their files.
            cpu_s: seconds of the processor that they may take.
            machine_code: folder of what Numba compiles.
        """
        process = os.fork()
        if not process:
            self._test(tests, cpu_s, machine_code)
        end = time.monotonic() + WALL_OF_CPU * cpu_s
        while time.monotonic() < end:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return ANSWERS[code] if code >= 0 else False
            time.sleep(0.05)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return False

    def said(self) -> str:
        """What the last tests printed."""
        return (self.folder / "said.txt").read_text(encoding="utf-8", errors="replace")

    def _test(self, tests: list[str], cpu_s: int, machine_code: Path) -> None:
        """Become the tests' process: it never returns."""
        try:
            os.setsid()
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            said = os.open(self.folder / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.chdir(self.folder)
            os.environ |= {"PYTHONPATH": str(self.folder), "NUMBA_CACHE_DIR": str(machine_code)}
            numba.config.CACHE_DIR = str(machine_code)
            sys.path[:] = [str(self.folder), *(path for path in sys.path if Path(path).resolve() != ROOT)]
            for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "benchmarks")]:
                del sys.modules[name]
            code = int(pytest.main([*QUIET, *tests]))
            sys.stdout.flush()
        finally:
            os._exit(locals().get("code", 4))
