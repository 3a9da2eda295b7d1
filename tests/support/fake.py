"""A backend whose every step takes a given time, so that a run's clock can be computed by hand."""

from kvbench.backend.base import Backend, Times
from kvbench.plan.ops import Append
from tests.support.catalogue import TINY

MS = 1_000_000


class Fake(Backend):
    """Appends of one token take decode_ms, larger ones prefill_ms, all else nothing, by a clock of its own."""

    source = "measured"
    signals = ("mass", "votes", "accesses")

    def __init__(self, geometry=TINY, prefill_ms=50, decode_ms=10):
        self.geometry = geometry
        self._ms = prefill_ms, decode_ms
        self.plans = []
        self._now_ns = 0

    def now_ns(self):
        return self._now_ns

    def memory_bytes(self):
        return 1 << 40

    def prepare(self, max_append_tokens, max_context_tokens):
        self.prepared = max_append_tokens, max_context_tokens

    def step(self, booking, num_queries, continued=False):
        seq, plan, *_ = booking
        self.plans.append((seq, plan))
        written = sum(op.num_tokens for op in plan if isinstance(op, Append))
        ms = 0 if written == 0 else self._ms[written == 1]
        self._now_ns += ms * MS
        return Times(0, ms * MS, 0, 0)

    def describe(self):
        return {"device": "none", "device_name": "fake"}
