"""The public call that searches for the best deployment, and what it returns."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from kvbench.api.asked_space import MACHINE, asked_of
from kvbench.api.verbs import name_of
from kvbench.configuration.errors import UsageError, needing_extra, refusing
from kvbench.decide.advice import untold
from kvbench.decide.constraints import constraints_of
from kvbench.decide.importance import importance
from kvbench.decide.objectives import Goal, goals_of
from kvbench.files import write_text
from kvbench.results.columns import ends
from kvbench.results.front import may_win
from kvbench.results.replays import DRAWS

if TYPE_CHECKING:
    from kvbench.backend.choice import BackendChoice
    from kvbench.charts.tuned import TunedChart
    from kvbench.model.hardware import Hardware
    from kvbench.workload.scenario import Scenario

TRIALS = 500
"""Deployments that are tried, where nobody says how many."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """Deployments that were tried, and what is best.

    Args:
        rows: a row a deployment: its number, its keys, a summary's columns (with intervals where it was near the
            front), error, verdict, limited_by, on_front and merged, the number of the one that stands for it.
        judged: rows likewise, on requests that were not searched on; role is "best", "front" or "default".
        against: a row a goal and default: what is said of the default (holds), and the best deployment's figure over
            the default's, with its interval.
        keys: what is searched, and columns of rows.
        goals: what is wanted, the first of which decides.
        subject_to: what had to hold.
        scenario: what was served.
        requests: what was searched on, and what judged on, in words.
        size: deployments of the space; None: a range has no end of them.
        is_exhaustive: whether all were tried.
    """

    rows: pd.DataFrame
    judged: pd.DataFrame
    against: pd.DataFrame
    keys: tuple[str, ...]
    goals: tuple[Goal, ...]
    subject_to: tuple[str, ...]
    scenario: str
    requests: str
    size: int | None
    is_exhaustive: bool

    @property
    def best(self) -> dict[str, Any] | None:
        """The row of the best deployment; None where none is known to hold."""
        return best_of(self.rows, self.goals)

    @property
    def untold(self) -> dict[str, list[str]]:
        """Strategies of which a condition cannot be told for want of a figure, by why that is."""
        return untold(self.rows[may_win(self.rows)], constraints_of(self.subject_to)) if self.subject_to else {}

    @property
    def importance(self) -> dict[str, float]:
        """By key the share of the first goal's spread that goes with its value; {} where too few were tried."""
        return importance(self.rows, self.keys, self.goals[0])

    @property
    def text(self) -> str:
        """Tables for a terminal: the front, and how the best does on requests that were not searched on."""
        from kvbench.charts.tuned import tuned_text

        return tuned_text(
            self.rows,
            self.judged,
            self.against,
            keys=self.keys,
            goals=self.goals,
            subject_to=self.subject_to,
            said=self._said,
            untold=self.untold,
            importance=self.importance,
        )

    @property
    def _said(self) -> tuple[str, str]:
        """What was asked, and what was done."""
        wanted = " and ".join(goal.text for goal in self.goals)
        where = f", where {' and '.join(self.subject_to)}" if self.subject_to else ""
        number, failed = len(self.rows), int((self.rows["error"] != "").sum())
        of = "all that there are" if self.is_exhaustive else f"of {self.size:,}" if self.size else "of endlessly many"
        lacks = f"; {failed:,} could not serve all" if failed else ""
        return f"{self.scenario}: {wanted}{where}", f"{number:,} deployments, {of}{lacks}; searched on {self.requests}"

    @property
    def chart(self) -> "TunedChart":
        """The front of two goals, or one over the trials."""
        from kvbench.charts.tuned import TunedChart

        return TunedChart(rows=self.rows, goals=self.goals, keys=self.keys, subject=self.scenario)

    def save(self, folder: "str | PathLike[str]") -> None:
        """Write deployments.csv, judged.csv, against.csv and tuned.txt, each whole, into a folder.

        Args:
            folder: made where it is not there.
        Raises:
            OSError: it cannot be written.
        """
        frames = {"deployments": self.rows, "judged": self.judged, "against": self.against}
        for name, frame in frames.items():
            shown = frame.drop(columns=[column for column in map(str, frame) if column.endswith(DRAWS)])
            write_text(Path(folder) / f"{name}.csv", shown.dropna(axis=1, how="all").to_csv(index=False))
        write_text(Path(folder) / "tuned.txt", self.text + "\n")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the best, the front, and what it was judged by."""
        shown = [*self.keys, *(goal.column for goal in self.goals), "verdict", "limited_by", "error"]
        columns = [name for column in shown for name in (column, *ends(column)) if name in self.rows]

        def plain(frame: pd.DataFrame, names: Sequence[str]) -> Any:
            return json.loads(frame.reindex(columns=list(names)).to_json(orient="records", double_precision=15))

        best = self.best
        return {
            "scenario": self.scenario,
            "goals": [goal.text for goal in self.goals],
            "subject_to": list(self.subject_to),
            "requests": self.requests,
            "size": self.size,
            "num_tried": len(self.rows),
            "is_exhaustive": self.is_exhaustive,
            "best": None if best is None else int(best["deployment"]),
            "untold": self.untold,
            "importance": self.importance,
            "front": plain(self.rows[self.rows["on_front"]], ["deployment", *columns, "merged"]),
            "judged": plain(self.judged, ["role", *columns]),
            "against": plain(self.against, [str(name) for name in self.against]),
        }


def best_of(rows: pd.DataFrame, goals: Sequence[Goal]) -> dict[str, Any] | None:
    """The row on the front with the best figure of the first goal; None where nothing is on it."""
    front = [{str(name): value for name, value in row.items()} for row in rows[rows["on_front"]].to_dict("records")]
    return min(front, key=goals[0].cost, default=None)


def tune(
    scenario: "str | PathLike[str] | Scenario",
    strategies: Any = None,
    *,
    minimise: Iterable[str] = (),
    maximise: Iterable[str] = (),
    subject_to: str | Iterable[str] = (),
    search: Iterable[str] = ("strategy",),
    hardware: "str | PathLike[str] | Mapping[str, object] | Hardware | Sequence[Any] | None" = None,
    backend: "str | Mapping[str, object] | BackendChoice | None" = "fleet",
    trials: int = TRIALS,
    workers: int = 1,
    folder: "str | PathLike[str] | None" = None,
    settings: Mapping[str, object] | None = None,
    trusted: Iterable[str] = (),
    **chosen: Any,
) -> Tuned:
    """Search for the best deployment of a model under constraints, as `python -m kvbench tune …` does.

    A list, of machines, models, engines, degrees of parallelism or values of a setting, is searched; so are the ranges
    that parameters declare, where they are named. All are tried where they are no more than `trials`; else Optuna
    suggests. Those near the front are served again with other times of work, so that constraints are judged, and
    deployments told apart, by intervals. The best is then held against defaults on requests that were not searched on.

    Args:
        scenario: as in `run`; of a trace one half is searched on, and the other judged on.
        strategies: as in `run`: one after another is tried.
        minimise: figures of the summary of which less is wanted; the first decides. None: cost_per_million_tokens.
        maximise: figures of which more is.
        subject_to: what has to hold: "ttft_p99_s<=1", or several.
        search: whose declared ranges are searched: "strategy", "engine", "strategy.dynamic", or single keys.
        hardware: as in `run`, or a list.
        backend: "fleet", or one with settings.
        trials: deployments that are tried, at most.
        workers: processes that search.
        folder: where rows are kept, so that the same call goes on where it was stopped; None: nowhere.
        settings: as in `run`; a list of values is searched, and so is a range, {"low": 1.1, "high": 3}.
        trusted: as in `run`.
        chosen: model, engine and parallel, as in `run`, or lists of them.
    Returns:
        The deployments, the front, the best, and how it compares with defaults.
    Raises:
        ValueError: the input is wrong, nothing is to be searched, or a goal has no figure.
        FileNotFoundError: a trace is missing.
        KeyboardInterrupt: it was stopped; rows are in the folder.
    """
    with refusing():
        goals = goals_of(_texts(minimise), _texts(maximise))
        constraints = constraints_of(_texts(subject_to)) if _texts(subject_to) else ()
    for name, number in (("trials", trials), ("workers", workers)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise UsageError(f"{name} is a whole number, at least 1, got {number!r}")
    groups = {"scenario": scenario, "backend": backend, MACHINE: hardware, **chosen}
    name = name_of(scenario)
    basis, space = asked_of(name, groups, strategies, dict(settings or {}), _texts(search), tuple(trusted))
    with needing_extra():
        from kvbench.api.tuning_task import Task, closely, folder_of, judge, run_task
    with folder_of(folder) as place:
        task = Task(basis, space, goals, constraints, trials, place)
        task.claim()
        run_task(task, workers)
        rows = closely(task)
        unseen, against = judge(task, rows)
        return Tuned(
            rows=rows,
            judged=unseen,
            against=against,
            keys=space.keys,
            goals=goals,
            subject_to=tuple(each.text for each in constraints),
            scenario=name,
            requests=task.halves.told,
            size=space.size,
            is_exhaustive=task.search(lambda tried: None).is_exhaustive,
        )


def _texts(given: str | Iterable[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)
