"""States that are kept: where steps of prompts end, and who goes on from which."""

from kvbench.compiled import part, plain
from kvbench.engine.prefixes import cut_to_checkpoint, most_hit_blocks
from kvbench.fleet.prefix.cache import find
from kvbench.fleet.prefix.segments import first_run, run_at, turn_at
from kvbench.fleet.state import Machine

_cut_to_checkpoint, _most_hit_blocks = plain(cut_to_checkpoint), plain(most_hit_blocks)
MOST_RUNS = 1 << 31


@part
def junction_of(m: Machine, request: int, num_tokens: int, num_found: int) -> int:
    """Tokens of a request that others have begun with, too, where not all that it needs of them to go on is there; 0.

    Args:
        m: the replica.
        request: one that is to compute so many tokens, with those that were found.
        num_tokens: those.
        num_found: blocks that were found.
    """
    longest = find(m, request, _most_hit_blocks(num_tokens, m.fixed.unit))
    return longest * m.fixed.unit if longest > num_found else 0


@part
def next_stop(m: Machine, place: int, num_tokens: int, goal: int) -> int:
    """How many of so many tokens of a prompt, or of what was lost, a step computes; 0: it does not reach a stop.

    Args:
        m: the replica.
        place: the request's.
        num_tokens: that the iteration has for it.
        goal: tokens until its next answer.
    """
    own, fixed = m.live[place], m.fixed
    return _cut_to_checkpoint(own.held, num_tokens, own.prompt, goal, own.junction, fixed.tokens, fixed.unit)


@part
def may_begin(m: Machine, request: int, num_tokens: int) -> bool:
    """Whether the head of the queue, whose blocks were looked for, would compute something in the iteration, and not
    go on from a state that came in it.

    Args:
        m: the replica.
        request: the head of the queue.
        num_tokens: that it is to compute, with those that were found.
    """
    now, fixed = m.now, m.fixed
    if now.num_found > 0 and _is_named_now(m, request, now.num_found - 1):
        return False
    start, prompt, junction = now.num_found * fixed.unit, m.requests[request].prompt, 0
    if fixed.shares:
        junction = junction_of(m, request, num_tokens, now.num_found)
    num_now = min(now.budget_tokens, num_tokens - start)
    return _cut_to_checkpoint(start, num_now, prompt, num_tokens, junction, fixed.tokens, fixed.unit) > 0


@part
def note_named(m: Machine, run: int, block: int) -> None:
    """A state of a block of a run has got its name in the iteration."""
    m.live[m.now.num_named].named = run * MOST_RUNS + block
    m.now.num_named += 1


@part
def _is_named_now(m: Machine, request: int, block: int) -> bool:
    """Whether a state of one of a request's blocks has got its name in the iteration, from whomever."""
    place = turn_at(m.fixed.turns_at, request).leaf
    run = run_at(m.fixed.runs_at, place)
    while run.first > block:
        place = run.parent
        run = run_at(m.fixed.runs_at, place)
    name = (first_run(m, request, m.fixed.num_groups - 1) + place) * MOST_RUNS + block - run.first
    i = 0
    while i < m.now.num_named and m.live[i].named != name:
        i += 1
    return i < m.now.num_named
