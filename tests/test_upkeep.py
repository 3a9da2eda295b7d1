"""What a million tokens cost, by hand and in a fleet's summary."""

import pytest

from kvbench.fleet.frames import fleet_frames
from kvbench.fleet.upkeep import Upkeep
from tests.support.fleet_columns import OBJECTIVE, SPLITS, columns


def test_a_million_tokens_by_hand():
    two = Upkeep(price_per_hour=2 * 2.69, power_w=2 * 700.0)
    found = two.of(1000.0)  # a million tokens take 1,000 s
    assert found["cost_per_million_tokens"] == pytest.approx(5.38 * 1000 / 3600)
    assert found["energy_per_million_tokens"] == pytest.approx(1400 * 1000 / 3600)
    assert Upkeep(None, 700.0).of(1000.0).keys() == {"energy_per_million_tokens"}
    assert Upkeep(2.69).of(0.0) == {}


def test_a_summary_has_what_its_tokens_cost():
    run = columns(SPLITS["paged"])._replace(upkeep=Upkeep(price_per_hour=3.6))
    (row,) = fleet_frames({"paged": run}, "chat", OBJECTIVE).summary.to_dict("records")
    assert row["cost_per_million_tokens"] == pytest.approx(1000 / row["tokens_per_s"])
    assert row["energy_per_million_tokens"] != row["energy_per_million_tokens"], "power is not known"
