"""A search of a space by a function whose best is known: all of it, by suggestions, beside others, and stopped."""

import contextlib
import json
import os
import signal

import pytest

from kvbench.decide.claims import Claims
from kvbench.decide.constraints import constraints_of
from kvbench.decide.kept import Became, KeptRows, identity
from kvbench.decide.objectives import goals_of
from kvbench.decide.searching import JOURNAL, SEARCHED, Search, study_of
from kvbench.decide.space import Dimension, Space
from kvbench.tried import Tried

GRID = Space(
    (
        Dimension(key="hardware", tried=Tried(choices=("small", "large"))),
        Dimension(key="strategy", tried=Tried(choices=("paged", "dynamic"))),
        Dimension(key="strategy.dynamic.growth", tried=Tried(choices=(1.5, 2.0, 3.0)), of="strategy", at=("dynamic",)),
        Dimension(key="replicas", tried=Tried(1, 8)),
    )
)
GOALS = goals_of(["cost_per_million_tokens"], [])
CONSTRAINTS = constraints_of(["ttft_p99_s<=1"])


class Fleet:
    """Serves by formulas: a large machine costs three times as much, and each replica halves what requests wait."""

    def __init__(self, stops_after=None):
        self.served = []
        self.stops_after = stops_after

    def __call__(self, deployment):
        if self.stops_after is not None and len(self.served) >= self.stops_after:
            raise KeyboardInterrupt
        self.served.append(dict(deployment))
        if deployment["hardware"] == "small" and deployment["replicas"] == 8:
            return Became(deployment, {}, error="no room")
        size = 3 if deployment["hardware"] == "large" else 1
        growth = abs(deployment.get("strategy.dynamic.growth", 1.0) - 2.0) / 4
        cost = size * deployment["replicas"] * (0.9 + growth)
        return Became(deployment, {"cost_per_million_tokens": cost, "ttft_p99_s": 8 / deployment["replicas"] / size})


def search(folder, fleet, trials, **given):
    (folder / "rows").mkdir(exist_ok=True)
    kept = KeptRows(folder / "rows")
    given |= {"carry_out": fleet, "kept": kept, "folder": folder, "trials": trials}
    found = Search(space=GRID, goals=GOALS, constraints=CONSTRAINTS, **given)
    return found, kept


def best(kept):
    held = [each for each in kept.of(SEARCHED) if not each.error and each.row["ttft_p99_s"] <= 1]
    return min(held, key=lambda each: each.row["cost_per_million_tokens"])


def test_all_of_a_small_space_is_tried_once_each(tmp_path):
    fleet = Fleet()
    found, kept = search(tmp_path, fleet, GRID.size)
    found.run()
    assert found.is_exhaustive
    assert len(fleet.served) == GRID.size == 2 * (1 + 3) * 8
    assert best(kept).deployment == {
        "hardware": "large",
        "strategy": "dynamic",
        "strategy.dynamic.growth": 2.0,
        "replicas": 3,
    }
    assert [each.error for each in kept.of(SEARCHED) if each.error] == ["no room"] * 4


def test_suggestions_find_what_all_of_the_space_has(tmp_path):
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    fleet = Fleet()
    found, kept = search(tmp_path, fleet, 60, seed=3)
    found.run()
    assert not found.is_exhaustive
    assert len(fleet.served) == 60 == len(kept.of(SEARCHED))
    assert len({json.dumps(each) for each in fleet.served}) == 60
    assert best(kept).row["cost_per_million_tokens"] == pytest.approx(3 * 3 * 0.9)


@pytest.mark.parametrize("trials", [64, 40])
def test_a_stopped_search_goes_on(tmp_path, trials):
    if trials < GRID.size:
        pytest.importorskip("optuna", reason="the extra tune is not installed")
    found, _ = search(tmp_path, first := Fleet(stops_after=21), trials)
    with pytest.raises(KeyboardInterrupt):
        found.run()
    if trials < GRID.size:  # who suggests next takes nothing for under way
        from optuna.trial import TrialState

        study, _ = study_of(found)
        assert [each.state for each in study.trials if not each.state.is_finished()] == []
        assert study.trials[-1].state == TrialState.FAIL
    again, kept = search(tmp_path, second := Fleet(), trials)
    again.run()
    assert len(first.served) == 21
    assert len(second.served) == trials - 21
    assert not any(each in first.served for each in second.served)
    assert len(kept.of(SEARCHED)) == trials
    third, _ = search(tmp_path, idle := Fleet(), trials)
    third.run()
    assert idle.served == []


def killed(search):
    """Run a search in a process that is killed, without a chance to say so."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            search.run()
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


class Killed(Fleet):
    """Its process is killed once it was to serve so many, or where the row of the last of them is kept."""

    def __init__(self, at, is_kept):
        super().__init__()
        self.at, self.is_kept = at, is_kept

    def __call__(self, deployment):
        if not self.is_kept and len(self.served) + 1 == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(deployment)

    def look(self, tried):
        if tried == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def states_of(found):
    return [trial.state.name for trial in study_of(found)[0].trials]


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_a_killed_search_was_at_is_asked_for_again(tmp_path, is_kept):
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    fleet = Killed(6, is_kept)
    found, kept = search(tmp_path, fleet, 14, on_look=fleet.look)
    killed(found)
    kept.look()
    assert len(kept.of(SEARCHED)) == (6 if is_kept else 5)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"op_code":')  # as a full disk leaves it
    assert states_of(found).count("RUNNING") == 1
    again, kept = search(tmp_path, second := Fleet(), 14)
    again.run()
    _, number_of = study_of(again)
    assert len(second.served) == (8 if is_kept else 9)
    assert len(kept.of(SEARCHED)) == number_of() == 14
    states = states_of(again)
    assert (states.count("RUNNING"), states.count("FAIL")) == (0, 1)


def test_what_a_living_search_is_at_is_left_to_it(tmp_path):
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    found, _ = search(tmp_path, Fleet(), 4)
    study, _ = study_of(found)
    GRID.suggested(study.ask())
    with Claims(found._place("searchers")).claimed("another"):
        found.run()
    assert states_of(found)[0] == "RUNNING"
    found, _ = search(tmp_path, Fleet(), 5)
    found.run()
    assert states_of(found)[0] == "FAIL"


def test_those_who_search_beside_each_other_try_no_more_than_all_and_none_twice(tmp_path):
    """One serves its third while the other searches to the end, to whom some other deployments are taken."""
    pytest.importorskip("optuna", reason="the extra tune is not installed")
    fleet, taken = Fleet(), [each for each in GRID if each["replicas"] > 3]

    def serve(deployment):
        if len(fleet.served) == 2:
            beside, _ = search(tmp_path, fleet, 9, salt=1)
            with contextlib.ExitStack() as claims:
                for each in taken:
                    claims.enter_context(Claims(beside._place("claims")).claimed(identity(each)))
                beside.run()
            assert len(fleet.served) == 8
            assert not any(each in taken for each in fleet.served[2:])
        return fleet(deployment)

    found, kept = search(tmp_path, serve, 9)
    found.run()
    assert len(kept.of(SEARCHED)) == len({json.dumps(each) for each in fleet.served}) == len(fleet.served) == 9


def test_what_another_is_at_is_left_to_it(tmp_path):
    fleet, waited = Fleet(), []
    found, kept = search(tmp_path, fleet, GRID.size)
    with Claims(found._place("claims")).claimed(f"{0:08d}"):

        def wait(seconds):
            waited.append(len(fleet.served))
            other = KeptRows(tmp_path / "rows")
            other.look()
            for each in list(GRID)[:16]:
                other.add(SEARCHED, Fleet()(each))

        found.wait = wait
        found.run()
    assert waited == [GRID.size - 16]
    assert len(fleet.served) == GRID.size - 16
    assert len(kept.of(SEARCHED)) == GRID.size


def test_a_line_that_is_not_whole_is_no_row(tmp_path):
    kept = KeptRows(tmp_path)
    row = kept.add("searched", Became({"a": 1}, {"x": 1.5, "y": float("nan"), "z": None}))
    assert row.row == {"x": 1.5}
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_text()
    path.write_text(whole + whole[: len(whole) // 2])
    again = KeptRows(tmp_path)
    again.look()
    assert again.of("searched") == [row]
    assert again.get("searched", {"a": 1}) == row
    assert again.get("searched", {"a": 1.0}) is None
    assert again.add("searched", Became({"a": 1}, {"x": 2.0})) == row  # what is there stands
    again.look()
    assert len(again.of("searched")) == 1


def test_without_optuna_a_large_space_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    found, _ = search(tmp_path, Fleet(), 5)
    with pytest.raises(ValueError, match="needs Optuna: python -m pip install"):
        found.run()


@pytest.mark.parametrize(
    ("minimise", "maximise", "why"),
    [
        (["ttfp99"], [], "Did you mean 'ttft_p99_s'"),
        (["tokens_per_s"], [], "more of it is better, so it goes into maximise"),
        ([], ["ttft_p99"], "less of it is better, so it goes into minimise"),
        (["ttft_p99", "ttft_p99_s"], [], "stands twice"),
        (["num_sessions"], [], "no side that is better"),
    ],
)
def test_goals_that_are_none_are_refused(minimise, maximise, why):
    with pytest.raises(ValueError, match=why):
        goals_of(minimise, maximise)
