"""A search in its folder: deployments are tried, those near the front looked at closely, and the best judged."""

import hashlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from itertools import product
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kvbench.api.asked_space import MACHINE, size_keys
from kvbench.api.basis import Basis
from kvbench.api.beside import as_worker, run_beside
from kvbench.api.deployments import Halves, check_basis, halves_of, serve
from kvbench.api.fleet import COMPILED_FIRST
from kvbench.api.progress import watched
from kvbench.configuration.errors import UsageError, WriteFailed, refusing
from kvbench.decide.advice import BEST, DEFAULT, FRONT
from kvbench.decide.constraints import Constraint
from kvbench.decide.kept import Became, KeptRows
from kvbench.decide.manifest import versions
from kvbench.decide.near import near_front
from kvbench.decide.objectives import Goal
from kvbench.decide.ratios import ratio_of
from kvbench.decide.searching import SEARCHED, Search
from kvbench.decide.settled import NOBODY, judged, settled
from kvbench.decide.space import Deployment, Dimension, Space
from kvbench.files import write_text
from kvbench.results.columns import ends
from kvbench.results.front import may_win
from kvbench.results.replays import DRAWS, with_draws
from kvbench.results.schema import SUMMARY
from kvbench.workload.trace import TraceMissing

NEAR, UNSEEN = "near", "unseen"
"""Stages of rows, beside those that a search leaves."""
USUAL = "paged"
"""The strategy of defaults, where it is one of those that are searched."""
MOST_SIZES = 64
"""Of a machine's default that are tried, the smallest first."""
MOST_JUDGED = 8
"""Of a front."""
TOLD = "search.json"
UPKEEP = "_per_million_tokens"
"""Ends the names of what machines take, which their files may not say."""


@dataclass(frozen=True)
class Task:
    """All that a process needs to search.

    Args:
        basis: what all deployments have.
        space: what is searched.
        goals: what is wanted.
        constraints: what has to hold.
        trials: deployments that are tried, at most.
        folder: where rows are kept.
    """

    basis: Basis
    space: Space
    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    trials: int
    folder: Path

    @cached_property
    def halves(self) -> Halves:
        """The requests."""
        return halves_of(self.basis, self.space.first({}))

    @cached_property
    def kept(self) -> KeptRows:
        """Rows in the folder."""
        (self.folder / "rows").mkdir(exist_ok=True)
        return KeptRows(self.folder / "rows")

    def search(
        self, on_look: Callable[[int], object], goes_on: Callable[[], bool] = lambda: True, salt: int = 0
    ) -> Search:
        """The search, to be run here."""
        return Search(
            space=self.space,
            goals=self.goals,
            constraints=self.constraints,
            trials=self.trials,
            carry_out=partial(serve, self.basis, columns=self.halves.searched),
            kept=self.kept,
            folder=self.folder,
            seed=self.basis.settings.get("seed", 0),
            on_look=on_look,
            goes_on=goes_on,
            salt=salt,
        )

    def became(self, stage: str, deployment: Deployment) -> Became:
        """What becomes of a deployment at a stage, where it is looked at closely; kept."""
        columns = self.halves.unseen if stage == UNSEEN else self.halves.searched
        return self.kept.get(stage, deployment) or self.kept.add(
            stage, serve(self.basis, deployment, columns, closely=True)
        )

    def claim(self) -> None:
        """Say in the folder what is searched there, or see that it is the same.

        Raises:
            UsageError: it is another search's, or something else is there.
        """
        check_basis(self.basis, self.space)
        path = self.folder / TOLD
        if not path.exists() and any(self.folder.iterdir()):
            raise UsageError(f"{self.folder} is not empty, and holds no search: name another folder")
        if not path.exists():
            write_text(path, json.dumps({"identity": self._identity, "scenario": self.basis.name}) + "\n")
        elif json.loads(path.read_text(encoding="utf-8")).get("identity") != self._identity:
            raise UsageError(
                f"{self.folder} holds a search of another space, other requests or another version: name another folder"
            )

    @cached_property
    def _identity(self) -> str:
        """What searches share whose rows are the same: space, configurations, requests and versions."""
        configs = [
            self.basis.composed(self.space.first({each.key: value}))
            for each in self.space.dimensions
            for value in (each.tried.choices if each.key in self.basis.choices else ())
        ]
        columns = self.halves.searched
        found = hashlib.sha256()
        for each in (columns.arrival_ns, columns.num_prompt_tokens, columns.num_output_tokens):
            found.update(b"" if each is None else np.ascontiguousarray(each).tobytes())
        told = [[asdict(each) for each in self.space.dimensions], configs, self.basis.settings, versions()]
        found.update(json.dumps(told, sort_keys=True, default=repr).encode())
        return found.hexdigest()[:24]


def run_task(task: Task, workers: int) -> None:
    """Search in so many processes.

    Raises:
        UsageError: Optuna is needed and missing.
        WriteFailed: workers ended before the search.
    """
    task.kept.look()
    there, total = len(task.kept.of(SEARCHED)), min(task.space.size or task.trials, task.trials)
    with watched(total, "deployments") as advance:
        seen = 0

        def on_look(tried: int) -> None:
            nonlocal seen
            advance("search" if tried else COMPILED_FIRST.format("search"), min(tried, total) - seen)
            seen = min(tried, total)

        on_look(there)
        search = task.search(on_look)
        if workers > 1 and there < total:

            def look() -> None:
                task.kept.look()
                on_look(len(task.kept.of(SEARCHED)))

            with refusing():
                search.take_up()
            run_beside(_worker, (task,), workers, look)
        with refusing():
            search.run()  # what is left, where processes ended before their time


def _worker(task: Task) -> None:
    goes_on = as_worker()
    try:
        task.search(lambda tried: None, goes_on, os.getpid()).run()
    except (KeyboardInterrupt, ValueError, OSError):  # whoever started it comes to the same, and says so
        sys.exit(1)


@contextmanager
def folder_of(folder: "str | PathLike[str] | None") -> Iterator[Path]:
    """A folder for rows, there; one that goes with the call where none is named.

    Raises:
        WriteFailed: it cannot be made, or written to.
    """
    try:
        if folder is None:
            with tempfile.TemporaryDirectory(prefix="kvbench-") as place:
                yield Path(place)
        else:
            path = Path(folder).expanduser().absolute()
            path.mkdir(parents=True, exist_ok=True)
            yield path
    except TraceMissing:
        raise
    except OSError as error:
        raise WriteFailed(f"folder={folder}: {error.strerror or error}; what is there stands") from error


def rows_of(became: Sequence[Became], keys: Sequence[str], numbers: Sequence[int] | None = None) -> pd.DataFrame:
    """Rows of deployments: number, keys, figures and error; beside these, figures in replays.

    Args:
        became: what became of them.
        keys: of the space.
        numbers: of the deployments; None: in order, from 0.
    """
    numbers, nothing = range(len(became)) if numbers is None else numbers, dict.fromkeys(SUMMARY, math.nan)
    told = [
        {**nothing, **each.row, "deployment": number, **dict.fromkeys(keys), **each.deployment, "error": each.error}
        for number, each in zip(numbers, became, strict=True)
    ]
    columns = ["deployment", *keys, *(name for name in SUMMARY if name not in keys), "error"]
    more = sorted({name for row in told for name in row} - set(columns))
    frame = pd.DataFrame(told, columns=[*columns, *more])
    replays = [
        {"deployment": number, "replay": turn, **figures}
        for number, each in zip(numbers, became, strict=True)
        for turn, figures in enumerate(each.replays)
    ]
    return with_draws(frame, pd.DataFrame(replays) if replays else None)


def closely(task: Task) -> pd.DataFrame:
    """All rows of a search, those near the front looked at closely, and what is said of each.

    Raises:
        UsageError: a goal has no figure in any row.
    """
    tried = in_order(task)
    rows = judged(rows_of(tried, task.space.keys), task.constraints)
    can_win = np.flatnonzero(may_win(rows) & (rows["error"] == "").to_numpy())
    _check_figures(task, rows, can_win)
    candidates = [tried[each].row for each in can_win]
    places = [int(can_win[each]) for each in near_front(candidates, task.goals, task.constraints)]
    with watched(len(places), "deployments") as advance:
        near = []
        for place in places:
            near.append(task.became(NEAR, tried[place].deployment))
            advance("a closer look", 1)
    found = settled(rows_of(near, task.space.keys, places), task.goals, task.constraints) if near else None
    rows = rows.assign(on_front=False, merged=NOBODY)
    if found is None:
        return rows
    stands = found["deployment"].to_numpy()
    found["merged"] = [int(stands[each]) if each != NOBODY else NOBODY for each in found["merged"]]
    found.index = pd.Index(places)
    drawn = [name for name in map(str, found) if name.endswith(DRAWS)]
    others = rows.drop(index=places)
    others = others.assign(**{name: pd.Series([np.empty(0)] * len(others), others.index, object) for name in drawn})
    return pd.concat([others, found[[*rows, *drawn]]]).sort_index()


def in_order(task: Task) -> list[Became]:
    """What was tried: in the order of the space where all of it was, else as it came."""
    if not task.search(lambda tried: None).is_exhaustive:
        return task.kept.of(SEARCHED)
    return [became for each in task.space if (became := task.kept.get(SEARCHED, each)) is not None]


def _check_figures(task: Task, rows: pd.DataFrame, can_win: np.ndarray) -> None:
    """Refuse a goal that has no figure anywhere; of a constraint that has none, it cannot be told whether it holds.

    Raises:
        UsageError: so it is, or nothing could be served.
    """
    if not len(can_win):
        errors = [each for each in rows["error"] if each]
        why = f"; the first: {errors[0]}" if errors else ": all are references, which are never chosen"
        raise UsageError(f"none of the {len(rows):,} deployments could be served{why}")
    first = {str(name): value for name, value in rows.iloc[int(can_win[0])].items()}
    for goal in task.goals:
        if rows.loc[can_win, goal.column].isna().all():
            if goal.column.endswith(UPKEEP):
                raise UsageError(f"{goal.column} is empty; say hardware.price_per_hour or power_w, or name another")
            raise UsageError(Constraint("", (), goal.column, "<", 0).why_empty(first))


def judge(task: Task, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best, others of the front and defaults on requests that were not searched on; and the best over defaults."""
    front = rows[rows["on_front"] & (rows["merged"] == rows["deployment"])]
    goal = task.goals[0]
    best_first = front.sort_values(goal.column, ascending=not goal.more, kind="stable").index[:MOST_JUDGED]
    tried = in_order(task)
    chosen = [tried[int(place)].deployment for place in best_first]
    named = [(BEST if not number else FRONT, each) for number, each in enumerate(chosen)]
    machines = next(each for each in task.space.dimensions if each.key == MACHINE).tried.choices
    named += [(DEFAULT, default_of(task, str(machine))) for machine in machines]
    with watched(len(named), "deployments") as advance:
        became = []
        for role, deployment in named:
            became.append(task.became(UNSEEN, deployment))
            advance(role, 1)
    found = judged(rows_of(became, task.space.keys), task.constraints)
    roles = pd.DataFrame({"role": [role for role, _ in named]})
    return pd.concat([roles, found], axis=1), _against(roles["role"], found, task.goals)


def default_of(task: Task, machine: str) -> Deployment:
    """A machine's default: the usual strategy and every setting as it comes; the smallest that keeps to what has to
    hold, of the sizes that are searched, or else the smallest that can be served."""
    choices = {each.key: each.tried.choices for each in task.space.dimensions if each.key in task.basis.choices}
    strategy = USUAL if USUAL in choices["strategy"] else choices["strategy"][0]
    common = {key: values[0] for key, values in choices.items()} | {MACHINE: machine, "strategy": strategy}
    sizes = size_keys(task.space)
    options = sorted(product(*(_numbers(each) for each in sizes)), key=math.prod)
    fallback: Deployment | None = None
    deployment: Deployment = common
    for values in options[:MOST_SIZES]:
        deployment = common | {each.key: value for each, value in zip(sizes, values, strict=True)}
        became = task.kept.get(DEFAULT, deployment) or task.kept.add(
            DEFAULT, serve(task.basis, deployment, task.halves.searched)
        )
        if not became.error and all(each.excess(became.row) <= 0 for each in task.constraints):
            return deployment
        if not became.error and fallback is None:
            fallback = deployment
    return fallback or deployment


def _numbers(size: Dimension) -> list[int]:
    return [int(value) for value in size.tried.values or () if value is not None]


def _against(roles: pd.Series, found: pd.DataFrame, goals: Sequence[Goal]) -> pd.DataFrame:
    """The best's figures over the defaults'."""
    rows: list[dict[str, Any]] = []
    best = found[roles == BEST]
    for place in found.index[roles == DEFAULT] if len(best) else ():
        other = found.loc[[place]]
        machine, is_served = other[MACHINE].iloc[0], not best["error"].iloc[0] and not other["error"].iloc[0]
        for goal in goals if is_served else ():
            values = [float(each[goal.column].iloc[0]) for each in (best, other)]
            if any(map(math.isnan, values)):
                continue
            ratio = ratio_of(goal.column, other, best, best[MACHINE].iloc[0] == machine)
            told = {"default": machine, "holds": other["verdict"].iloc[0], "metric": goal.column}
            told |= {"best": values[0], "usual": values[1], "ratio": ratio.value}
            told |= dict(zip(ends("ratio"), (ratio.low, ratio.high), strict=True))
            rows.append(told | {"verdict": ratio.verdict(goal.column, True)})
    columns = ("default", "holds", "metric", "best", "usual", "ratio", *ends("ratio"), "verdict")
    return pd.DataFrame(rows, columns=list(columns))
