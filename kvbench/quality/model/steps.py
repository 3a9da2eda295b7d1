"""A model's steps over a cache, timed and counted."""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from kvbench.backend.device import wait_for
from kvbench.integrations.figures import Figures
from kvbench.integrations.peers import peer_of
from kvbench.integrations.transformers import KVBenchCache
from kvbench.ledger import OutOfMemory
from kvbench.strategy.base import Strategy

MEMORY_ERRORS = (OutOfMemory, torch.OutOfMemoryError)
"""What a step raises where memory does not last: a strategy's budget, or the device's own."""


class CacheCounts(NamedTuple):
    """An empty cache and what it holds.

    Args:
        cache: to be given to a model.
        figures: what it holds and has held.
        close: lets go of all that it holds.
    """

    cache: Cache
    figures: Callable[[], Figures]
    close: Callable[[], None]


def cache_of(
    model: PreTrainedModel, holder: Strategy | str, num_tokens: int, budget_bytes: int | None, num_prompt_tokens: int
) -> CacheCounts:
    """An empty cache for a sequence.

    Args:
        model: whose it will be; its attention is kvbench's where the holder is a strategy.
        holder: a strategy, or the name of one of transformers' caches.
        num_tokens: that will come, > 0.
        budget_bytes: the most that a strategy may hold on the device; None: no limit. transformers' have none.
        num_prompt_tokens: of the tokens, those that come at once at the start.
    """
    if isinstance(holder, str):
        peer = peer_of(holder, model.config, num_tokens)
        return CacheCounts(peer.cache, peer.figures, peer.cache.reset)
    cache = KVBenchCache(
        holder, model.config, budget_bytes=budget_bytes, num_output_tokens=max(num_tokens - num_prompt_tokens, 0)
    )
    return CacheCounts(cache, cache.figures, cache.close)


@torch.no_grad()
def step(model: PreTrainedModel, cache: Cache, ids: Sequence[int]) -> Tensor:
    """Append tokens.

    Args:
        model: in evaluation mode.
        cache: what holds the tokens before.
        ids: of the new ones, at least one.
    Returns:
        Logits of what follows the last one, [vocabulary], float32.
    """
    given = torch.tensor([list(ids)], device=model.device)
    made = model(input_ids=given, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = made.logits[0, -1].float()
    return logits


def timed_step(model: PreTrainedModel, cache: Cache, ids: Sequence[int]) -> tuple[Tensor, float]:
    """`step`, and its seconds."""
    start = perf_counter()
    logits = step(model, cache, ids)
    wait_for(model.device)
    return logits, perf_counter() - start
