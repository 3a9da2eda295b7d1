"""Plant small faults in the core, one at a time, and see whether tests notice. What survives is printed.

Run as `python -m benchmarks.mutants` at the root of a checkout; see README.md beside this file.
"""

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.planted import ROOT, Copy
from tests.support.mutations import Mutation, mutations

CORE = (
    "ledger",
    "plan",
    "strategy",
    "runner",
    "results/summary.py",
    "fleet",
    "fleet/prefix",
    "backend/storage",
    "workload",
)
COMPILED = ("fleet", "fleet/prefix", "strategy")
"""Numba compiles what is here into functions of other files too, and would not see that it changed."""
BOOKS = "refusals closed declared ledger golden golden_blocks golden_evicting golden_tiers corners"
MOVES = f"{BOOKS} windows limits forking storages adaptive storage_models peaks late_times runner metrics"
RUNS = "late_times limits runner golden corners metrics within forking background peaks modelled declared provenance"
NEAR = {
    "ledger": f"{MOVES} background runner chain",
    "plan": f"{MOVES} attention curves chain",
    "strategy": f"{BOOKS} limits forking forecast adaptive within runner peaks background chain outside contract",
    "runner": f"{RUNS} busy record drive",
    "results/summary.py": f"metrics {RUNS} results front report",
    "fleet": "fleet_bounds fleet_spaces fleet_rules fleet_golden fleet_blocks fleet_frames fleet",
    "fleet/prefix": "prefix prefix_experiment prefix_models",
    "backend/storage": "storage_parts storages corners attention windows storage_models background peaks faults replay "
    "aio chain attention_strategies",
    "workload": "workload_conversation workload_lengths workload_arrivals workload_traces trace_mooncake configuration "
    "life within forecast record prefix_experiment",
}
"""Tests that are likely to notice a fault in a part, the quick ones first: what they notice needs no others."""
NEAR_S, CORE_S = 200, 900
"""Seconds of the processor that tests may take: those near a part, and the whole core's."""
FIRST = 5
"""Test files that are tried before the others are so much as imported: most faults they notice."""
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


def near(part: str) -> list[str]:
    """The test files of NEAR."""
    return [f"tests/test_{name}.py" for name in dict.fromkeys(NEAR[part].split())]


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
        """Those that no test notices: none that is near, then none that imports the core."""
        parts = list(dict.fromkeys(fault.part for fault in faults))
        self._require_sound(dict.fromkeys(test for part in parts for test in near(part)))
        left = [fault for fault in faults if not self._is_noticed(fault, near(fault.part), NEAR_S)]
        if only_near or not left:
            return left
        tests = tests_of([name for _, name in files()])
        self._require_sound(tests)
        return [fault for fault in left if not self._is_noticed(fault, tests, CORE_S)]

    def _require_sound(self, tests: Iterable[str]) -> None:
        tests = list(tests)
        if not self._copy.passes(tests, CORE_S, self._kept):
            sys.exit(f"tests fail where nothing is planted: {' '.join(tests)}\n{self._copy.said()}")

    def _is_noticed(self, fault: Fault, tests: list[str], cpu_s: int) -> bool:
        sound = (ROOT / fault.name).read_text(encoding="utf-8")
        self._copy.write(fault.name, fault.mutation.planted(sound))
        machine_code = self._anew if fault.part in COMPILED else self._kept
        passes = all(self._copy.passes(some, cpu_s, machine_code) for some in (tests[:FIRST], tests[FIRST:]) if some)
        self._copy.write(fault.name, sound)
        shutil.rmtree(self._anew, ignore_errors=True)
        print("unnoticed" if passes else "noticed  ", fault, flush=True)
        return not passes


def main() -> None:
    """Read the command line, plant, and say what share was noticed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200, help="faults to plant, in all shards together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", default="1/1", help="which of how many equal parts, such as 1/2")
    parser.add_argument("--only", default="", help="files whose name holds this")
    parser.add_argument("--near", action="store_true", help="run no tests but those in NEAR")
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
