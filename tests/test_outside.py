"""Strategies from outside kvbench, in experiments and in the catalogue."""

import pytest
from hydra import compose
from omegaconf import OmegaConf

from kvbench.api.study import experiment_of
from kvbench.cli.source import initialized
from kvbench.cli.strategies import main
from kvbench.configuration.errors import UsageError
from kvbench.configuration.targets import class_of
from kvbench.studies.quality.cells import STREAMING, Cell, CellFolder, Contender
from tests.support.catalogue import strategy

MODULE = '''
from kvbench.strategy.base import Strategy


class Mine(Strategy):
    """Grow as it likes.

    Args:
        step_tokens: slots of a step, > 0.
    Source: mine.
    """

    lossless = False

    def __init__(self, *, step_tokens, factor=2):
        if step_tokens < 1:
            raise ValueError("step_tokens is positive")


class Terse(Strategy):
    pass


class Other:
    pass
'''
ADDED = "+strategy.mine={_target_: outsiders.Mine, step_tokens: 8}"


@pytest.fixture(autouse=True)
def outsiders(tmp_path, monkeypatch):
    (tmp_path / "outsiders.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)


def experiment(*overrides, trusted=("outsiders",)):
    with initialized():
        config = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return experiment_of(config | {"trusted": trusted})


@pytest.mark.parametrize("name", ["comprehensive", "quality"])
def test_an_added_strategy_takes_part_where_strategies_are_named(name):
    found = experiment(f"+experiment={name}", ADDED)
    for key in ("strategies", "raised_strategies"):
        taken = getattr(found, key, {"mine": None})
        assert list(taken)[-1] == "mine"
    assert type(found.strategies["mine"]).__name__ == "Mine"


def test_one_may_stand_in_the_experiments_own_list():
    found = experiment("+experiment=quality", "+experiment.strategies.mine={_target_: outsiders.Mine, step_tokens: 8}")
    assert type(found.strategies["mine"]).__name__ == "Mine"


@pytest.mark.parametrize(
    "name", ["claims", "growth_factors", "kept_fractions", "recompute", "prefix_reuse", "reproduce"]
)
def test_an_experiment_that_has_its_own_refuses_it_and_says_which_do_not(name):
    with pytest.raises(UsageError, match=r"\+strategy.mine: .* takes no others.*comprehensive, launches, quality"):
        experiment(f"+experiment={name}", ADDED)


@pytest.mark.parametrize(
    ("overrides", "trusted", "words"),
    [
        ([ADDED], (), r"strategy.mine: unknown target .*trusted=\[outsiders\]"),
        (["+experiment.strategies.mine={_target_: outsiders.Mine, step_tokens: 8}"], (), "unknown target"),
        ([ADDED.replace("mine=", "int8=")], ("outsiders",), "strategy.int8: .*has a int8 already"),
        ([ADDED.replace("8}", "0}")], ("outsiders",), "strategy.mine: step_tokens is positive"),
    ],
)
def test_what_is_wrong_with_one_is_said(overrides, trusted, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        experiment("+experiment=quality", *overrides, trusted=trusted)


def test_the_catalogue_shows_one(capsys):
    assert main(["trusted=[outsiders]", "outsiders.Mine", "step_tokens=8"]) == 0
    out = capsys.readouterr().out
    for words in (
        "outsiders.Mine: lossy",
        "Grow as it likes.",
        "step_tokens=8\n        slots of a step",
        "factor=2",
        "mine.",
    ):
        assert words in out
    main(["outsiders.Mine", "trusted=[other, outsiders]"])
    assert "step_tokens=(to be given)" in capsys.readouterr().out
    main(["trusted=[outsiders]", "outsiders.Terse"])
    assert "lossless, outsiders.Terse\n\nIt says nothing of itself" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["outsiders.Mine"], r"to admit a package of yours, name it: trusted=\[outsiders\]"),
        (["trusted=[other]", "outsiders.Mine"], r"trusted=\[outsiders\]"),
        (["trusted=[outsiders]"], "expected trusted="),
        (["trusted=[outsiders]", "outsiders.Other"], "outsiders.Other is no strategy"),
        (["trusted=[outsiders]", "outsiders.None_"], "cannot be imported"),
        (["trusted=[outsiders]", "outsiders.Mine", "step=8"], "unknown parameter 'step'. Did you mean 'step_tokens'"),
        (["trusted=[outsiders]", "outsiders.Mine", "step_tokens=0"], "step_tokens is positive"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, words):
    with pytest.raises(UsageError, match=words):
        main(arguments)


def test_what_was_measured_of_one_is_not_taken_for_what_its_code_is_now(tmp_path):
    mine = experiment("+experiment=quality", ADDED).strategies["mine"]
    kept = CellFolder(tmp_path, {}, reads=True)
    for holder, is_taken in ((mine, False), (strategy("dynamic"), True)):
        cell = Cell(Contender("it", holder, None), STREAMING, 8, 8)
        kept.write(cell, {"outcome": "completed"})
        assert (kept.read(cell) is not None) == is_taken


@pytest.mark.parametrize(
    ("body", "why"), [("1 / 0", "ZeroDivisionError: division"), ("raise SystemExit(0)", "SystemExit")]
)
def test_a_package_that_fails_when_it_is_imported_is_told(body, why, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"failing_{why[0].lower()}.py").write_text(body)
    with pytest.raises(UsageError, match=f"cannot be imported: {why}"):
        class_of(f"failing_{why[0].lower()}.X", "strategy.x", ["failing"])
