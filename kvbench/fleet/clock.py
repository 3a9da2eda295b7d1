"""The clock: whole nanoseconds, and the picoseconds that are left over."""

from kvbench.compiled import part
from kvbench.fleet.state import Machine
from kvbench.model.cost import PS_PER_NS


@part
def pass_time(m: Machine, spent_ps: int) -> None:
    """Let picoseconds pass."""
    total_ps = m.now.rest_ps + spent_ps
    m.now.clock_ns += total_ps // PS_PER_NS
    m.now.rest_ps = total_ps % PS_PER_NS
