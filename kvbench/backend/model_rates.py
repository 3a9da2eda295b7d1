"""What the modelled backend asks of a machine where a whole model is priced: the kernels that an iteration runs."""

from kvbench.backend.rates import NO_DECODING, CacheRates, Decoding, Read
from kvbench.backend.shares import parts_in
from kvbench.ledger import AreaCost
from kvbench.plan.area import DEVICE
from kvbench.timing.prices import LINEAR, SEQUENCES, STEP_ROWS, attention_ps, sized_ps, unit_ps, units_seen


class ModelRates(CacheRates):
    """Rates of a whole model: of each iteration its products, experts, exchanges, attention and host time.

    What only moves the cache costs what it does by itself.
    """

    def iteration_ps(self) -> int:
        """See `Prices.step_ps`."""
        return self._prices.step_ps

    def linear_ps(self, num_tokens: int, num_sequences: int) -> int:
        """What hangs on tokens, and on sequences that get logits: see `Prices.tables`."""
        tables = self._prices.tables
        return sized_ps(LINEAR, num_tokens, tables) + sized_ps(SEQUENCES, num_sequences, tables)

    def append_ps(self, cost: AreaCost, num_tokens: int) -> int:
        """Bytes written."""
        return num_tokens * self._as_held(cost.area)[1].write_ps if cost.groups else 0

    def _chain_ps(self, reads: list[Read], num_queries: int, decoding: Decoding = NO_DECODING) -> int:
        """A prompt's by pairs of query and key; a decode step's by slots, with what all have together in the first."""
        num_slots = sum(read.num_slots for read in reads)
        prices = self._as_held(reads[0].cost.area)[1]
        if not decoding.num_rows:
            num_new = min(num_queries, num_slots)
            shared_ps = prices.prompt_ps if decoding.is_first else 0
            return shared_ps + attention_ps(num_new, num_slots - num_new, prices, prices.tables)
        fixed, unit = STEP_ROWS[decoding.is_mixed]
        spent_ps = sized_ps(fixed, decoding.num_rows, prices.tables) if decoding.is_first else 0
        for read in reads:
            if read.cost.area.tier == DEVICE:
                own = self._as_held(read.cost.area)[1]
                parts = parts_in(read.cost, self._geometry, decoding.parts, self._num_rows)
                num_units = units_seen(num_slots, own) * parts * read.num_slots // num_slots
                spent_ps += num_units * unit_ps(unit, decoding.num_rows, own.tables, decoding.parts)
        return spent_ps + prices.state_ps
