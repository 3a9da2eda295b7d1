"""The catalogue of strategies: a list, one in full, a table."""

from dataclasses import replace

import pytest

from kvbench.cli.strategies import in_full, listing, main, markdown_table
from kvbench.configuration.catalogue import default_strategies, names
from kvbench.configuration.docstring import parse
from kvbench.configuration.entry import Entry, entries
from kvbench.configuration.errors import UsageError

DOC = """Forget the middle.

Some tokens are a | b.

Args:
    window: tokens kept at the end, > 0.
Source: Someone et al. 2023, arXiv:2309.17453, section 3.
Departs: none.
"""
LOSSY = Entry(
    "forgetful",
    is_default=False,
    what="Forget the middle | all.",
    is_lossless=False,
    is_reference=False,
    signals=("mass", "votes"),
    target="kvbench.strategy.forgetful.Forgetful",
    doc=parse(DOC),
    parameters={"window": None, "rule": "all"},
)


def test_every_strategy_is_there_and_the_defaults_come_first():
    catalogue = entries()
    assert sorted(entry.name for entry in catalogue) == names("strategy")
    assert [entry.name for entry in catalogue if entry.is_default] == default_strategies()
    assert [entry.name for entry in catalogue][: len(default_strategies())] == default_strategies()
    told = [entry.what for entry in catalogue]
    assert len(set(told)) == len(told), "two strategies cannot be told apart"


def test_strategies_of_one_class_are_told_apart_by_their_files():
    by_name = {entry.name: entry for entry in entries()}
    assert by_name["predictive"].what.startswith("Grow by a factor, and far enough")
    assert by_name["predictive_article"].what.startswith("The article's own rule")
    assert by_name["static"].what == "Allocate the maximum when a sequence is admitted; never resize."


def test_the_list_fits_a_terminal_and_says_what_each_is(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 120
    for words in (
        "dynamic (default): lossless",
        "exact (default, reference): lossless",
        "\nchunked: lossless",
        "growth_factor=1.5",
        "the article, StaticKVCache",
    ):
        assert words in out


def test_a_lossy_strategy_says_so_and_what_it_needs():
    shown = listing([LOSSY])
    for words in ("forgetful: lossy\n", "needs       mass, votes\n", "parameters  window=null, rule=all\n"):
        assert words in shown


def test_one_in_full(capsys):
    assert main(["predictive"]) == 0
    out = capsys.readouterr().out
    assert "    history_window=10\n        appends remembered a sequence, > 0.\n" in out
    assert 'departs\n    rule "total" predicts the total' in out
    assert in_full(LOSSY).split("\n\n") == [
        "forgetful: lossy, kvbench.strategy.forgetful.Forgetful",
        "Forget the middle | all.",
        "Forget the middle.",
        "Some tokens are a | b.",
        "needs of the backend\n    mass, votes",
        "parameters, with their defaults\n    window=null\n        tokens kept at the end, > 0.\n    rule=all",
        "source\n    Someone et al. 2023, arXiv:2309.17453, section 3.",
        "departs\n    none.",
    ]


def test_nested_strategies_are_shown_as_calls():
    nested = {"_target_": "kvbench.strategy.sinks.Sinks", "num_sinks": 4}
    shown = listing([replace(LOSSY, parameters={"parts": [nested, nested], "deep": nested | {"own": nested}})])
    assert "parts=[Sinks(num_sinks=4), Sinks(num_sinks=4)], deep=Sinks(num_sinks=4," in shown
    assert " ".join(shown.split()).endswith("runs it.")
    assert "own=Sinks(num_sinks=4))" in " ".join(shown.split())


def test_the_table_is_markdown():
    assert markdown_table([LOSSY]).splitlines()[2] == (
        "| `forgetful` | Forget the middle \\| all | no | "
        "Someone et al. 2023, [arXiv:2309.17453](https://arxiv.org/abs/2309.17453), section 3 |"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dinamic"], "unknown strategy 'dinamic'. Did you mean 'dynamic'"),
        (["static", "dynamic"], "got static dynamic"),
        (["--markdwon"], "got --markdwon"),
    ],
)
def test_what_it_does_not_take(arguments, words):
    with pytest.raises(UsageError, match=words):
        main(arguments)
