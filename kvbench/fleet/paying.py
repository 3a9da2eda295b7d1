"""What the step of a request that does not decode costs: a prompt's, or one that fetches what was swapped."""

from kvbench.compiled import part, plain
from kvbench.engine.scheduling import chunk_tokens
from kvbench.fleet.aside import link_ps
from kvbench.fleet.holds import bytes_of, lost_tokens, used_slots
from kvbench.fleet.state import NONE, Machine
from kvbench.timing.prices import attention_ps, moved_ps, num_scoring, scoring_ps

_attention_ps, _moved_ps, _chunk_tokens = plain(attention_ps), plain(moved_ps), plain(chunk_tokens)
_num_scoring, _scoring_ps = plain(num_scoring), plain(scoring_ps)


@part
def pay(m: Machine, place: int, held: int, num_tokens: int, is_fetch: bool) -> None:
    """What such a step costs, and counts as."""
    now, own = m.now, m.live[place]
    asked = m.requests[own.request]
    own.has_stepped = 1
    if asked.admitted_ns == NONE:
        asked.admitted_ns = now.clock_ns
    if is_fetch:
        num_bytes = bytes_of(held + num_tokens, m.fixed) - bytes_of(held, m.fixed)
        now.spent_ps += m.fixed.transfer_ps + _moved_ps(num_bytes, m.fixed.swap_ps, m.fixed)
        now.moved_bytes += num_bytes
        return
    num_before, num_beside = held, 0
    if m.fixed.is_turning:
        num_before = used_slots(own, held + num_tokens) - num_tokens
        num_beside = (own.aside + own.far) * m.fixed.aside_seen
    own_ps = _attention_ps(num_tokens, num_before + num_beside, m.fixed, m.tables)
    if m.fixed.voters > 0:
        num_queries = _num_scoring(num_tokens, m.fixed.voters, m.fixed.is_each)
        own_ps += _scoring_ps(num_queries, num_before + num_tokens, m.fixed)
    if now.num_computed == 0:
        own_ps += m.fixed.prompt_ps
    own_ps = max(own_ps, link_ps(own, m.fixed))
    chunk = _chunk_tokens(num_tokens, m.fixed.tokens, m.fixed.chunks, m.fixed.num_stages)
    now.spent_ps += num_tokens * m.fixed.write_ps
    now.prompts_ps += own_ps
    now.longest_ps = max(now.longest_ps, own_ps if chunk == num_tokens else own_ps // num_tokens * chunk)
    now.most_tokens = max(now.most_tokens, chunk)
    now.num_computed += 1
    now.tokens += num_tokens
    now.budget_tokens = max(now.budget_tokens - num_tokens, 0)
    num_again = min(max(lost_tokens(own, m.fixed) - held, 0), num_tokens)
    now.num_recomputed_tokens += num_again
    if own.saved > own.prompt:
        now.num_decoded_tokens += num_tokens - num_again
    else:
        now.num_prompt_tokens += num_tokens - num_again
