"""Search a space: all of it where it is small, else where Optuna suggests; others search beside, and go on later."""

import math
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvbench.decide.claims import Claims
from kvbench.decide.constraints import Constraint
from kvbench.decide.kept import Became, KeptRows, identity
from kvbench.decide.objectives import Goal
from kvbench.decide.space import Deployment, Space
from kvbench.decide.work import WAIT_S

if TYPE_CHECKING:
    import optuna

SEARCHED = "searched"
"""The stage of rows that a search leaves."""
CHUNK = 16
"""Deployments that are claimed at once, where all are tried."""
MOST_AGAIN = 3
"""Suggestions, one after another, that were tried before; then one is drawn that was not."""
MOST_DRAWN = 1_000
WORST = 1e30
"""What a study is told where a figure is empty, or nothing could be served: it takes no trial without numbers."""
EXCESS = "excess"
JOURNAL = "study.log"
MISSING = "a search of more deployments than it may try needs Optuna: python -m pip install 'optuna>=4.9'"

Carry = Callable[[Deployment], Became]


@dataclass(kw_only=True)
class Search:
    """A search of a space, beside others that search it in the same folder.

    Args:
        space: what is searched.
        goals: what is wanted.
        constraints: what has to hold.
        trials: deployments that are tried, at most.
        carry_out: serves one.
        kept: rows, by stage; what is there is not served again.
        folder: with `kept`'s, a journal of what was suggested, and what workers are at.
        seed: of suggestions; alone, a search with the same seed tries the same.
        salt: another for each of several that search beside each other.
        on_look: told how many are tried.
        goes_on: whether to go on; asked before each.
    """

    space: Space
    goals: Sequence[Goal]
    constraints: Sequence[Constraint]
    trials: int
    carry_out: Carry
    kept: KeptRows
    folder: Path
    seed: int = 0
    salt: int = 0
    on_look: Callable[[int], object] = lambda tried: None
    goes_on: Callable[[], bool] = lambda: True
    wait: Callable[[float], object] = time.sleep
    _rng: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng([self.seed, self.salt])

    @property
    def is_exhaustive(self) -> bool:
        """Whether all of the space is tried."""
        return self.space.size is not None and self.space.size <= self.trials

    def run(self) -> None:
        """Search, until so many are tried.

        Raises:
            ValueError: Optuna is missing, and needed.
            OSError: nothing can be written.
        """
        self.kept.look()
        if self.is_exhaustive:
            self._all()
        else:
            self._suggested()
        self.kept.look()

    def _all(self) -> None:
        """Try all, in chunks that are claimed."""
        every = list(self.space)
        chunks = {first: every[first : first + CHUNK] for first in range(0, len(every), CHUNK)}
        claims = Claims(self._place("claims"))
        while chunks and self.goes_on():
            done = [first for first, chunk in chunks.items() if self.goes_on() and self._tried(claims, first, chunk)]
            chunks = {first: chunk for first, chunk in chunks.items() if first not in done}
            if chunks and not done:
                self.wait(WAIT_S)

    def _tried(self, claims: Claims, first: int, chunk: Sequence[Deployment]) -> bool:
        """Whether a chunk is done, by others or now here."""
        self.kept.look()
        if all(self.kept.get(SEARCHED, each) for each in chunk):
            return True
        with claims.claimed(f"{first:08d}") as is_mine:
            if not is_mine:
                return False
            self.kept.look()
            for each in chunk:
                if self.goes_on():
                    self._one(each)
        return self.goes_on()

    def _one(self, deployment: Deployment) -> Became:
        """Serve one, unless it was."""
        found = self.kept.get(SEARCHED, deployment) or self.kept.add(SEARCHED, self.carry_out(deployment))
        self.on_look(len(self.kept.of(SEARCHED)))
        return found

    def take_up(self) -> None:
        """See to what those left who were killed, before several search: each of them would leave it to the others."""
        if not self.is_exhaustive:
            with self._searching():
                pass

    @contextmanager
    def _searching(self) -> Iterator[tuple["optuna.Study", Callable[[], int]]]:
        """Be one of those who search, which others can see."""
        searchers = Claims(self._place("searchers"))
        with searchers.claimed(uuid.uuid4().hex):
            study, number_of = study_of(self)
            ask_again(study, searchers)
            yield study, number_of

    def _suggested(self) -> None:
        with self._searching() as (study, number_of):
            again = 0
            while self.goes_on() and number_of() < self.trials:
                again = 0 if self._tell(study, study.ask()) else again + 1
                if again >= MOST_AGAIN:
                    again = 0
                    self._draw(study)

    def _tell(self, study: "optuna.Study", trial: "optuna.Trial") -> bool:
        """Serve what is suggested, unless another is at it, and tell; whether it is new."""
        try:
            deployment = self.space.suggested(trial)
            with Claims(self._place("claims")).claimed(identity(deployment)) as is_mine:
                if not is_mine:
                    study.tell(trial, state=_failed())
                    return False
                self.kept.look()
                is_new = self.kept.get(SEARCHED, deployment) is None
                values, excess = self._figures(self._one(deployment))
        except BaseException:  # it was not tried, and others are not to take it for under way
            study.tell(trial, state=_failed())
            raise
        constrain(trial, excess)
        trial.set_user_attr("id", identity(deployment))
        study.tell(trial, values)
        return is_new

    def _draw(self, study: "optuna.Study") -> None:
        """Try one that nobody has tried, drawn at random."""
        for _ in range(MOST_DRAWN):
            deployment = self.space.drawn(self._rng)
            if not self.kept.get(SEARCHED, deployment):
                study.enqueue_trial({each.key: deployment[each.key] for each in self._asked(deployment)})
                self._tell(study, study.ask())
                return

    def _asked(self, deployment: Deployment) -> Iterator[Any]:
        return (each for each in self.space.dimensions if each.key in deployment)

    def _figures(self, became: Became) -> tuple[list[float], list[float]]:
        """What a study is told: costs, and how far each constraint is exceeded."""
        costs = [goal.cost(became.row) for goal in self.goals]
        is_known = not became.error and all(map(math.isfinite, costs))
        excess = [each.excess(became.row) for each in self.constraints] + ([] if is_known else [WORST])
        excess += [0.0] * (len(self.constraints) + 1 - len(excess))
        return [cost if is_known else WORST for cost in costs], [min(each, WORST) for each in excess]

    def _place(self, name: str) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path


def constrain(trial: "optuna.Trial", excess: Sequence[float]) -> None:
    """Tell how far each constraint is exceeded: until Optuna 5 a sampler asks for it, since then a trial is told."""
    if hasattr(trial, "set_constraint"):
        for number, each in enumerate(excess):
            trial.set_constraint(str(number), each)
    else:
        trial.set_user_attr(EXCESS, list(excess))


def ask_again(study: "optuna.Study", searchers: Claims) -> None:
    """Fail what those asked for who were killed, and ask for it next: a row that is kept is told without serving.

    Args:
        study: in its folder.
        searchers: all who search there; where another lives, what is under way may be its own.
    """
    from optuna.trial import TrialState

    left = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))  # before the look at who lives
    for trial in left if len(searchers.living()) == 1 else ():
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _failed() -> Any:
    from optuna.trial import TrialState

    return TrialState.FAIL


def _excess(trial: Any) -> Sequence[float]:
    found: Sequence[float] = trial.user_attrs.get(EXCESS, [WORST])
    return found


def _cut(journal: Path, lock: Any) -> None:
    """Remove a last line that is not whole, as a full disk leaves it: what is written behind it could not be read."""
    lock.acquire()
    try:
        text = journal.read_bytes() if journal.exists() else b""
        if not text.endswith(b"\n") and text:
            os.truncate(journal, text.rfind(b"\n") + 1)
    finally:
        lock.release()


def study_of(search: Search) -> tuple["optuna.Study", Callable[[], int]]:
    """Optuna's study of a search, in its folder, where others find it; and how many it has tried, or is at.

    Raises:
        ValueError: Optuna is missing.
    """
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
        from optuna.trial import TrialState
    except ImportError as error:
        raise ValueError(MISSING) from error
    import warnings

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = search.folder / JOURNAL
    _cut(journal, JournalFileSymlinkLock(str(journal)))
    name = "; ".join([*(goal.text for goal in search.goals), *(each.text for each in search.constraints)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        storage = JournalStorage(JournalFileBackend(str(journal)))
        study = optuna.create_study(
            storage=storage, study_name=name, directions=["minimize"] * len(search.goals), load_if_exists=True
        )
        begun = len(study.get_trials(deepcopy=False))
        told: dict[str, Any] = {} if hasattr(optuna.Trial, "set_constraint") else {"constraints_func": _excess}
        study.sampler = optuna.samplers.TPESampler(
            seed=(search.seed + begun + search.salt) % 2**32, multivariate=True, group=True, constant_liar=True, **told
        )

    def number_of() -> int:
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        told = [trial.user_attrs["id"] for trial in trials if trial.state == TrialState.COMPLETE]
        return len(set(told)) + len(trials) - len(told)

    return study, number_of
