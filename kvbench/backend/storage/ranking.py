"""Which slots a rule evicts."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kvbench.plan.area import NORM, Accesses, Holes, Votes
from kvbench.plan.ops import Rule

if TYPE_CHECKING:
    from kvbench.backend.storage.slots import SlotStore


def ranked(store: "SlotStore", layer: int, rule: Rule, num_evicted: int) -> Tensor:
    """Slots that the rule does not keep.

    In an area with holes, the first and the most recent are told by the tokens' positions; the first must never have
    been evicted from, nor the most recent.

    Args:
        store: whose slots.
        layer: of which layer.
        rule: what is kept.
        num_evicted: how many slots go.
    Returns:
        int64, [num_rows, num_kv_heads, num_evicted], ascending.
    """
    num_used, keys = store.num_used, store.keys[layer]
    if not rule.top and not isinstance(store.area.layout, Holes):
        slots = torch.arange(rule.first, rule.first + num_evicted, device=keys.device)
        return slots.expand(keys.shape[0], keys.shape[1], num_evicted)
    scores = _scores(store, layer, rule.by)
    if isinstance(store.area.layout, Holes):
        positions = store.positions[layer].narrow(2, 0, num_used)
        protected = (positions >= store.seen - rule.recent) | (positions < rule.first)
        if not rule.top:
            scores = positions.float()
    else:
        slots = torch.arange(num_used, device=keys.device)
        protected = (slots >= num_used - rule.recent) | (slots < rule.first)
    scores = scores.masked_fill(protected, torch.inf)
    if num_evicted == 1:
        return scores.argmin(dim=2, keepdim=True)
    return scores.topk(num_evicted, dim=2, largest=False).indices.sort(dim=2).values


def _scores(store: "SlotStore", layer: int, by: str) -> Tensor:
    """A figure a live slot, float32 [num_rows, num_kv_heads, num_used]."""
    if by == NORM:
        keys, values = store.read(layer)[0]
        norms = (keys.float().norm(dim=3) + values.float().norm(dim=3)) / 2
        return norms.mean(dim=1, keepdim=True).expand(-1, keys.shape[1], -1)
    if not by:
        return torch.zeros(1, 1, store.num_used, device=store.keys[layer].device)
    scores = store.scores[layer].narrow(2, 0, store.num_used)
    if isinstance(store.area.score, Accesses):
        bits = torch.arange(store.area.score.window, device=scores.device, dtype=torch.int32)
        counts = ((scores.unsqueeze(-1) >> bits) & 1).sum(dim=3).float()
        positions = store.positions[layer].narrow(2, 0, store.num_used)
        return counts + positions.float() / (2 * store.seen)  # of equals, the oldest goes
    return scores


def accumulate(store: "SlotStore", layer: int, mass: Tensor, num_queries: int, threshold: Tensor | None) -> None:
    """Add a step's attention mass to the scores of an area's slots.

    Args:
        store: whose slots.
        layer: of which layer.
        mass: float32 [num_rows, num_kv_heads, num_used], of the step's queries; for votes, of those that vote.
        num_queries: queries of the step.
        threshold: for accesses, [num_rows, num_kv_heads, 1]: the least mass of the step's top slots, over all areas.
    """
    scores = store.scores[layer].narrow(2, 0, store.num_used)
    match store.area.score:
        case Votes(window, kernel, pooling):
            # Votes are for the slots before the observation window; its own do not spill over to its neighbours.
            before = store.num_used - window
            if num_queries > 1 and before > 0:
                pool = torch.nn.functional.max_pool1d if pooling == "max" else torch.nn.functional.avg_pool1d
                pooled = pool(mass[:, :, :before], kernel, stride=1, padding=kernel // 2)
                # What no query may look at, such as padding, gets none of its neighbours' votes; nor does what
                # got less mass than float32 can tell from none.
                scores.narrow(2, 0, before).copy_(pooled.masked_fill_(mass[:, :, :before] == 0, 0))
        case Accesses(_, window):
            if num_queries == 1:
                scores.copy_(((scores << 1) | (mass >= threshold)) & ((1 << window) - 1))
        case _:
            scores.add_(mass)
