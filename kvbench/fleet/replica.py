"""One replica: what is routed to it, and how it goes on until a moment."""

from kvbench.compiled import part
from kvbench.fleet.iteration import iterate
from kvbench.fleet.jump import jump
from kvbench.fleet.queue import admit, is_waiting
from kvbench.fleet.rows import ServedRow
from kvbench.fleet.space import lay_out
from kvbench.fleet.state import NONE, Machine, Records, ReplicaRow
from kvbench.fleet.tally import widen


@part
def advance(m: Machine) -> None:
    """Run a replica until the first iteration that begins at a moment or later; who arrived before is routed.

    Where clients wait for answers, at most to the end of an iteration in which somebody ended.
    """
    now = m.now
    if not now.has_begun:
        lay_out(m)
        now.has_begun = 1
    while now.clock_ns < now.until_ns and now.first_ended == NONE:
        if now.clock_ns >= now.bin_end_ns:
            widen(m, now.clock_ns)
        admit(m)
        if now.num_live == 0 and not is_waiting(m):
            if now.unseen_ns >= now.until_ns:
                return
            now.idle_ns += now.unseen_ns - now.clock_ns
            now.clock_ns = now.unseen_ns
        elif jump(m):
            iterate(m)


@part
def starts_ns(now: ReplicaRow) -> int:
    """When a replica's next iteration begins; FOREVER where it has nothing to do."""
    if now.num_live > 0 or now.num_stacked + now.num_queued > 0:
        return now.clock_ns
    return now.unseen_ns if now.unseen == NONE else max(now.unseen_ns, now.clock_ns)


@part
def load_of(now: ReplicaRow, moment_ns: int) -> int:
    """Requests of a replica that are not finished at a moment; an iteration may still be under way."""
    num_finished = now.num_finished_before if now.clock_ns > moment_ns else now.num_finished
    return now.num_routed - num_finished


@part
def route(requests: Records[ServedRow], now: ReplicaRow, replica: int, request: int) -> None:
    """Put a request behind those of a replica's queue."""
    requests[request].replica = replica
    if now.next == NONE:
        now.next = request
    else:
        requests[now.tail].follows = request
    if now.unseen == NONE:
        now.unseen, now.unseen_ns = request, requests[request].arrival_ns
    now.tail = request
    now.num_routed += 1
