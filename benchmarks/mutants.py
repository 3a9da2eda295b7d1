"""Plant small faults in the core, one at a time, and see whether tests notice. What survives is printed.

Run as `python -m benchmarks.mutants` at the root of a checkout; see README.md beside this file.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks.planted import ROOT, Copy
from tests.support.mutations import Mutation, mutations

CORE = (
    "ledger",
    "ops.py",
    "area.py",
    "strategy",
    "runner.py",
    "batching.py",
    "progress.py",
    "recorder.py",
    "frames.py",
    "metrics.py",
    "fleet",
    "prefix",
    "backend/storage",
    "workload",
)
COMPILED = ("fleet", "prefix", "strategy")
"""Numba compiles what is here into functions of other files too, and would not see that it changed."""
THROUGH = dict.fromkeys(("batching.py", "progress.py", "recorder.py"), "kvbench/runner.py")
"""Parts that tests reach through another file."""
NEAR_S, CORE_S = 200, 900
"""Seconds of the processor that tests may take: those that import a file or its package, and the whole core's."""
GOAL = 0.97


@dataclass(frozen=True)
class Fault:
    """A mutation of a file of a part of the core."""

    part: str
    name: str
    mutation: Mutation

    def __str__(self) -> str:
        return f"{self.name}:{self.mutation.shown((ROOT / self.name).read_text(encoding='utf-8'))}"


def files() -> Iterator[tuple[str, str]]:
    """Each part of the core, with the name of each of its files."""
    for part in CORE:
        path = ROOT / "kvbench" / part
        found = sorted(path.glob("*.py")) if path.is_dir() else [path]
        for each in found:
            yield part, str(each.relative_to(ROOT))
        if not found:
            raise FileNotFoundError(f"{path} holds no sources")


def chosen(num: int, seed: int) -> list[Fault]:
    """Faults to plant: of each part by its share of all, at least two, and there of each kind in turn."""
    possible: dict[str, list[Fault]] = {part: [] for part in CORE}
    for part, name in files():
        found = mutations((ROOT / name).read_text(encoding="utf-8"))
        possible[part] += [Fault(part, name, mutation) for mutation in found]
    total = sum(map(len, possible.values()))
    generator = random.Random(seed)
    taken = []
    for faults in possible.values():
        in_turn, seen = [], Counter()
        for fault in generator.sample(faults, len(faults)):
            in_turn.append((seen[fault.mutation.kind], fault.mutation.kind, len(in_turn), fault))
            seen[fault.mutation.kind] += 1
        taken += [each[-1] for each in sorted(in_turn)[: max(round(num * len(faults) / total), 2)]]
    return taken


def tests_of(names: list[str]) -> list[str]:
    """The test files that import one of these files of the core, or all the core's."""
    modules = [".".join(Path(name).with_suffix("").parts).removesuffix(".__init__") for name in names]
    forms = tuple(f"{form} {module} " for module in modules for form in ("from", "import"))
    tests = sorted((ROOT / "tests").glob("test_*.py"))
    return [
        str(test.relative_to(ROOT))
        for test in tests
        if any(f"{line.strip()} ".startswith(forms) for line in test.read_text(encoding="utf-8").splitlines())
    ]


class Plantation:
    """Faults planted in one copy, one at a time.

    Args:
        scratch: an empty folder.
    """

    def __init__(self, scratch: Path) -> None:
        self._copy = Copy(scratch / "copy")
        self._kept, self._anew = scratch / "machine code", scratch / "machine code anew"

    def survivors(self, faults: list[Fault], only_near: bool) -> list[Fault]:
        """Those that no test notices: none that imports the file or its package, then none that imports the core."""
        left = []
        for name, of_file in groupby(faults, lambda fault: fault.name):
            own = list(of_file)
            near = tests_of([name, str(Path(name).with_name("__init__.py")), THROUGH.get(own[0].part, name)])
            left += self._unnoticed(own, near, NEAR_S) if near else own
        if only_near:
            return left
        return self._unnoticed(left, tests_of([name for _, name in files()]), CORE_S) if left else []

    def _unnoticed(self, faults: list[Fault], tests: list[str], cpu_s: int) -> list[Fault]:
        if not self._copy.passes(tests, cpu_s, self._kept):
            sys.exit(f"tests fail where nothing is planted: {' '.join(tests)}\n{self._copy.said()}")
        left = []
        for fault in faults:
            sound = (ROOT / fault.name).read_text(encoding="utf-8")
            self._copy.write(fault.name, fault.mutation.planted(sound))
            passes = self._copy.passes(tests, cpu_s, self._anew if fault.part in COMPILED else self._kept)
            self._copy.write(fault.name, sound)
            shutil.rmtree(self._anew, ignore_errors=True)
            print("unnoticed" if passes else "noticed  ", fault, flush=True)
            left += [fault] * passes
        return left


def main() -> None:
    """Read the command line, plant, and say what share was noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200, help="faults to plant, in all shards together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", default="1/1", help="which of how many equal parts, such as 1/2")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--near", action="store_true", help="run no tests but those that import the faulty file")
    parser.add_argument("--list", action="store_true", help="print what would be planted")
    options = parser.parse_args()
    number, of = map(int, options.shard.split("/"))
    faults = [fault for fault in chosen(options.num, options.seed) if options.only in fault.name][number - 1 :: of]
    faults.sort(key=lambda fault: fault.name)
    if options.list:
        print(*faults, sep="\n")
        return
    with tempfile.TemporaryDirectory() as scratch:
        survived = Plantation(Path(scratch)).survivors(faults, options.near)
    print(f"\nnoticed {len(faults) - len(survived)} of {len(faults)}", *survived, sep="\n")
    sys.exit(len(survived) > (1 - GOAL) * len(faults))


if __name__ == "__main__":
    main()
