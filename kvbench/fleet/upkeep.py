"""What machines cost, in money and energy, while they serve."""

from typing import NamedTuple

S_PER_HOUR = 3600
MILLION = 1e6


class Upkeep(NamedTuple):
    """What machines take while they serve; None: that is not known.

    Args:
        price_per_hour: of all of them.
        power_w: of all of them, at full load.
    """

    price_per_hour: float | None = None
    power_w: float | None = None

    def of(self, tokens_per_s: float) -> dict[str, float]:
        """What a million tokens take, by column of the summary."""
        named = {"cost_per_million_tokens": self.price_per_hour, "energy_per_million_tokens": self.power_w}
        each_h = MILLION / S_PER_HOUR
        return {
            column: each_h * an_hour / tokens_per_s
            for column, an_hour in named.items()
            if an_hour is not None and tokens_per_s > 0
        }
