"""What is compared and where it runs, when nobody says so."""

import pytest

from kvbench.charts.limits import LIMITS
from kvbench.charts.report import report_markdown
from kvbench.charts.table import table_text
from kvbench.cli.command_line import read
from kvbench.cli.keys import compose_config
from kvbench.cli.run import leave_out
from kvbench.configuration.errors import UsageError
from tests.support.frames import make_frames

FLEET = ["+scenario=chat_poisson", "backend=fleet"]


def compared(*overrides):
    config = compose_config(list(overrides))
    leave_out(config)
    return list(config["strategy"])


def test_each_backend_has_a_set_of_its_own():
    of_steps = ["concat", "static", "dynamic", "predictive", "paged", "exact"]
    assert compared("+scenario=chat_poisson") == compared("+scenario=chat_poisson", "backend=modelled") == of_steps
    assert set(compared(*FLEET)) == {"paged", "dynamic", "static", "exact"}
    assert set(compared(*FLEET, "+strategy.mine={_target_: mypackage.Mine}")) == {*compared(*FLEET), "mine"}
    assert compared(*FLEET, "fleet_strategies=[static]") == ["static"]
    with pytest.raises(UsageError, match="fleet_strategies is a list of strategies, got 5"):
        compared(*FLEET, "fleet_strategies=5")


@pytest.mark.parametrize(
    ("given", "backend"),
    [
        (["hardware=h100"], ["modelled"]),
        (["+hardware=h100"], ["modelled"]),
        (["hardware=h100,h200", "-m"], ["modelled"]),
        (["hardware=h100", "backend=fleet"], ["fleet"]),
        (["hardware=h100", "backend=measured"], ["measured"]),
        (["hardware=null"], []),
        ([], []),
    ],
)
def test_a_machine_that_is_named_is_there_to_be_modelled(given, backend):
    with read(["+scenario=short_chat", *given]) as command:
        assert command.choices("backend") == backend


@pytest.mark.parametrize(
    ("pool", "changed", "is_told"),
    [
        (2**31, {"num_preemptions": 330}, True),
        (2**31, {"outcome": "out_of_memory"}, True),
        (2**31, dict.fromkeys(LIMITS, 0.0) | {"pool_share": 0.2}, True),
        (2**31, {}, False),  # smaller, and nobody noticed
        (52 * 2**30 - 2**22, {"num_preemptions": 330}, False),  # all of the budget: memory is what binds
        (0, {"num_preemptions": 330}, False),
    ],
)
def test_a_pool_that_binds_below_the_budget_is_told_before_all_else(pool, changed, is_told):
    row = {"pool_bytes": pool, "available_bytes": 52 * 2**30, "workspace_bytes": 2**22} | changed
    summary = make_frames().summary.assign(**row)
    words = "static is bound by its pool of 2,048 MiB, not by the 53,248 MiB caches may have"
    assert table_text(summary, []).startswith(words) == is_told
    assert (
        report_markdown("title", ["a header"], summary, [], []).startswith(
            f"# title\n\n- **What limits this run:** {words}"
        )
    ) == is_told
