"""Which replica a request goes to: decisions of whole numbers, each by what a router knows when the request is sent."""

from kvbench.compiled import inlined, part, plain, referred
from kvbench.fleet.prefix.cache import covered, evict, find
from kvbench.fleet.prefix.groups import find_in_groups
from kvbench.fleet.prefix.known import find_known, known_at
from kvbench.fleet.prefix.segments import cell_at, is_growing, run_at
from kvbench.fleet.replica import load_of
from kvbench.fleet.state import (
    FOREVER,
    LEAST_LOADED,
    LOAD_PARTS,
    NONE,
    POWER_OF_TWO,
    ROUND_ROBIN,
    SESSION,
    Machine,
    Rule,
    Tables,
    TurnRule,
)

MIXED = 0x1E3779B97F4A7C15
"""An odd factor whose products have their bits mixed."""


def drawn(number: int, seed: int, num_choices: int) -> int:
    """A choice that looks random, and is the same for a number and a seed.

    Args:
        number: of what chooses.
        seed: of all choices.
        num_choices: how many there are, > 0.
    """
    mixed = (number * MIXED + seed) & 0x7FFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 29)) * MIXED) & 0x7FFFFFFFFFFFFFFF
    return (mixed >> 31) % num_choices


def prefix_cost(num_missing: int, num_active: int, num_waiting: int, num_prompt: int, load: int) -> int:
    """What speaks against a replica: blocks that it would compute, and part of those that others hold, in LOAD_PARTS.

    Args:
        num_missing: blocks of the prompt that are not there.
        num_active: blocks that requests hold.
        num_waiting: requests that wait; each counts as one whose prompt is as long, and not there.
        num_prompt: blocks of the prompt.
        load: parts in LOAD_PARTS that a block which others hold counts.
    """
    return (num_missing + num_waiting * num_prompt) * LOAD_PARTS + num_active * load


_drawn, _prefix_cost = plain(drawn), plain(prefix_cost)


@inlined
def machine_of(tables: Tables, replica: int, admitted: Rule, grown: Rule, turned: TurnRule) -> Machine:
    """One replica, and what it sees."""
    now, live, sums, space = tables.replicas[replica], tables.live[replica], tables.sums[replica], tables.space[replica]
    own = Machine(tables.requests, now, live, sums, space, tables.fixed[0], tables.prices, admitted, grown, turned)
    made: Machine = referred(own)
    return made


@part
def _least_loaded(tables: Tables, last: int, moment_ns: int) -> int:
    """The replica with the least to do, of several the next in turn."""
    num_replicas, best, least = tables.replicas.size, NONE, FOREVER
    for j in range(num_replicas):
        i = (last + 1 + j) % num_replicas
        load = load_of(tables.replicas[i], moment_ns)
        if load < least:
            best, least = i, load
    return best


@part
def _of_two(tables: Tables, place: int, moment_ns: int) -> int:
    """Of two replicas that are drawn the one with less to do, of equal ones the first drawn."""
    num_replicas, number = tables.replicas.size, tables.turns[place].number
    one = _drawn(2 * number, tables.fixed[0].routing_seed, num_replicas)
    if num_replicas == 1:
        return one
    other = (one + 1 + _drawn(2 * number + 1, tables.fixed[0].routing_seed, num_replicas - 1)) % num_replicas
    is_less = load_of(tables.replicas[other], moment_ns) < load_of(tables.replicas[one], moment_ns)
    return other if is_less else one


@part
def _cheapest(tables: Tables, place: int, last: int, admitted: Rule, grown: Rule, turned: TurnRule) -> int:
    """The replica with the least cost of a request, of several the next in turn."""
    fixed, num_replicas, best, least = tables.fixed[0], tables.replicas.size, NONE, FOREVER
    num_prompt = tables.requests[place].prompt // fixed.unit
    for j in range(num_replicas):
        i = (last + 1 + j) % num_replicas
        m, now = machine_of(tables, i, admitted, grown, turned), tables.replicas[i]
        num_found = 0
        if fixed.known_at > 0:
            num_found = find_known(m, place, num_prompt)
        elif fixed.shares:
            num_found = find_in_groups(m, place, num_prompt) if fixed.num_groups > 0 else find(m, place, num_prompt)
        num_active = now.allocated // (fixed.unit * fixed.slot_bytes)
        num_waiting = now.num_routed - now.num_finished - now.num_live
        cost = _prefix_cost(num_prompt - num_found, num_active, num_waiting, num_prompt, fixed.routing_load)
        if cost < least:
            best, least = i, cost
    return best


@part
def looks_ns(tables: Tables, moment_ns: int) -> int:
    """When the router last looks at all replicas before a moment; that moment, if it has done so, or sees them."""
    if tables.fixed[0].known_at == 0:
        return moment_ns
    known = known_at(tables.fixed[0].known_at, 0)
    last_ns = moment_ns - moment_ns % known.delay_ns
    return last_ns if last_ns > known.looked_ns else moment_ns


@part
def look(tables: Tables, moment_ns: int, admitted: Rule, grown: Rule, turned: TurnRule) -> int:
    """Look at what all replicas hold, which have gone on to a moment, if it is time to; when it is the next time."""
    if tables.fixed[0].known_at == 0 or moment_ns == FOREVER:
        return FOREVER
    known = known_at(tables.fixed[0].known_at, 0)
    if moment_ns - known.looked_ns >= known.delay_ns:
        known.looked_ns = moment_ns - moment_ns % known.delay_ns
        for i in range(tables.replicas.size):
            _look_at(machine_of(tables, i, admitted, grown, turned))
    return int(known.looked_ns + known.delay_ns)


@part
def _look_at(m: Machine) -> None:
    """Know of a replica's runs that have changed how many of their first blocks are there."""
    evict(m)
    known, first = known_at(m.fixed.known_at, 0), m.now.number * (m.fixed.num_runs + 1)
    size, num_growing = cell_at(known.lists_at, first), 0
    for i in range(size.value):
        run = cell_at(known.lists_at, first + 1 + i).value
        cell = cell_at(known.cells_at, run * m.fixed.num_replicas + m.now.number)
        cell.value = 2 * covered(m, run, run_at(m.fixed.runs_at, run % known.num_runs))
        if is_growing(m, run):
            cell.value += 1
            num_growing += 1
            cell_at(known.lists_at, first + num_growing).value = run
    size.value = num_growing


@part
def chosen(tables: Tables, place: int, last: int, moment_ns: int, admitted: Rule, grown: Rule, turned: TurnRule) -> int:
    """The replica that a request is sent to; all have gone on to that moment.

    Args:
        tables: of the kernel, as the rules.
        place: the request's row.
        last: the replica that the one before it was sent to.
        moment_ns: when it is sent.
        admitted: the strategy's rule.
        grown: and that of growth.
        turned: and that of slots that are too many.
    """
    routing = tables.fixed[0].routing
    if routing == ROUND_ROBIN:
        return (last + 1) % tables.replicas.size
    if routing == LEAST_LOADED:
        return _least_loaded(tables, last, moment_ns)
    if routing == POWER_OF_TWO:
        return _of_two(tables, place, moment_ns)
    if routing == SESSION:
        session = tables.turns[place].session
        if tables.homes[session] == NONE:
            tables.homes[session] = _least_loaded(tables, last, moment_ns)
        return int(tables.homes[session])
    return _cheapest(tables, place, last, admitted, grown, turned)
