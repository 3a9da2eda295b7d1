"""What the host takes for a step besides carrying it out: planning, booking, recording."""

from kvbench.backend.clock import HostClock
from kvbench.calibration.bench import CalibrationBench
from kvbench.calibration.samples import Samples
from kvbench.ledger import LedgerView
from kvbench.plan.ops import Append, Plan, Reserve, append_plan
from kvbench.runner.recorder import DECODE, STEP_FIELDS
from kvbench.runner.run import run
from kvbench.strategy.base import Strategy
from kvbench.workload.request import NS_PER_S, Request, Session

PLAN_LENGTHS = (0, 2, 4)
NUM_PROMPT_TOKENS, NUM_DECODED_TOKENS = 512, 24
_STRATEGY, _PHASE, _HOST = (STEP_FIELDS.index(name) for name in ("strategy", "phase", "host_ns"))
_SPENT = slice(STEP_FIELDS.index("reserve_ns"), _HOST)


class OneByOne(Strategy):
    """Plan steps of so many operations that are booked one by one.

    Args:
        num_booked: 0 reserves all at admission and only appends; otherwise as many operations a step, the last of them
            the append.
    """

    def __init__(self, *, num_booked: int) -> None:
        self._num_booked = num_booked

    def on_append(self, seq: int, num_tokens: int, view: LedgerView) -> Plan:
        """Reserve a slot more and a slot less in turn, then append."""
        required = view.num_used(seq) + num_tokens
        if not self._num_booked:
            room = view.capacity(seq)
            plan = append_plan(seq, num_tokens)
            return plan if required <= room else (Reserve(seq, required + NUM_DECODED_TOKENS), *plan)
        reserves = [Reserve(seq, required + number % 2) for number in range(self._num_booked - 1)]
        return (*reserves, Append(seq, num_tokens))


def host_steps(bench: CalibrationBench, samples: Samples) -> None:
    """Decode steps through the runner, with plans of several lengths."""
    strategies = {str(length): OneByOne(num_booked=length) for length in PLAN_LENGTHS}
    session = Session(0, (Request(NUM_PROMPT_TOKENS, NUM_DECODED_TOKENS + 1),))
    backend = bench.new_backend(bench.backend.device.type)
    backend.use(HostClock())  # giving an accelerator its work is no part of it
    recorder = run(
        strategies, [session], backend, num_repetitions=1, num_warmup=0, max_concurrency=1, budget_bytes=None
    )
    rows = recorder.steps()
    for row in rows[rows[:, _PHASE] == DECODE]:
        spent_ns = max(int(row[_HOST]) - int(row[_SPENT].sum()), 0)
        samples.add("host", PLAN_LENGTHS[row[_STRATEGY]], spent_ns / NS_PER_S)
