"""What a cache costs a model's predictions of a text: perplexity, and the distance from the full cache."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kvbench.integrations.figures import Figures
from kvbench.quality.model.steps import CacheCounts, timed_step

CHUNK = 256
"""Tokens of the reference's forward passes."""
PARTS = 8
"""Stretches of the predictions, in order, whose means say how far KL can be trusted: neighbours are alike."""


@dataclass(frozen=True)
class Reference:
    """What the full cache predicts on a text.

    Args:
        ids: the text's tokens.
        log_probs: of each token after the first, as each one before predicts it, [len(ids) - 1, vocabulary], float32.
    """

    ids: Sequence[int]
    log_probs: Tensor

    def perplexity(self, first: int = 0) -> float:
        """exp of the mean negative log-likelihood of the tokens after the one at `first`."""
        targets = torch.tensor(self.ids[first + 1 :], device=self.log_probs.device).unsqueeze(1)
        return math.exp(-self.log_probs[first:].gather(1, targets).double().mean().item())


@torch.no_grad()
def reference_of(model: PreTrainedModel, ids: Sequence[int]) -> Reference:
    """The reference: transformers' DynamicCache, in forward passes of 256 tokens, which compute what single steps do.

    Args:
        model: in evaluation mode.
        ids: at least two tokens.
    """
    cache, parts = DynamicCache(config=model.config), []
    fed = torch.tensor([list(ids[:-1])], device=model.device)
    for chunk in fed.split(CHUNK, dim=1):
        logits = model(input_ids=chunk, past_key_values=cache, use_cache=True).logits[0]
        parts.append(logits.float().log_softmax(-1))
    return Reference(tuple(ids), torch.cat(parts))


@dataclass(frozen=True)
class Prediction:
    """What one cache made of a text.

    Args:
        perplexity: exp of the mean negative log-likelihood of the predicted tokens.
        kl_nats: KL divergence of the cache's distribution from the full cache's, KL(full || cache), mean over
            predictions, in nats.
        kl_parts: the same of each eighth of the predictions.
        agreement: share of predictions in which both give one token the highest probability.
        num_predicted: tokens predicted.
        tokens_per_s: 1 over the median time of a step of one token, of the model and the cache.
        figures: of the cache, after the last token.
    """

    perplexity: float
    kl_nats: float
    kl_parts: tuple[float, ...]
    agreement: float
    num_predicted: int
    tokens_per_s: float
    figures: Figures


def predict(
    model: PreTrainedModel,
    counted: CacheCounts,
    reference: Reference,
    *,
    prefill_tokens: int,
    on_tokens: Callable[[int], None],
    counts_prefill: bool = False,
) -> Prediction:
    """Feed a text to an empty cache, all but its last token, and compare what each single step predicts.

    Args:
        model: in evaluation mode.
        counted: the cache.
        reference: of the same model and text.
        prefill_tokens: fed at once at the start, whose own predictions do not count; 0: all tokens come one by one.
        on_tokens: told how many tokens were fed, now and then.
        counts_prefill: whether the full cache's own predictions stand for those of the prefill, whose attention reads
            tokens that no cache has rounded yet.
    Raises:
        OutOfMemory: the cache's budget does not last.
        CapacityExceeded: the cache cannot hold so many tokens.
    """
    ids = reference.ids
    losses, distances, seconds, agreed = [], [], [], 0
    if prefill_tokens:
        timed_step(model, counted.cache, ids[:prefill_tokens])
        on_tokens(prefill_tokens)
    if counts_prefill:
        losses = [-reference.log_probs[at][ids[at + 1]].item() for at in range(prefill_tokens)]
        distances, agreed = [0.0] * prefill_tokens, prefill_tokens
    for at in range(prefill_tokens, len(ids) - 1):
        logits, time_s = timed_step(model, counted.cache, ids[at : at + 1])
        log_probs, full = logits.log_softmax(-1), reference.log_probs[at]
        losses.append(-log_probs[ids[at + 1]].item())
        distances.append((full.exp() * (full - log_probs)).sum().item())
        agreed += int(log_probs.argmax() == full.argmax())
        seconds.append(time_s)
        on_tokens(1)
    return Prediction(
        perplexity=math.exp(math.fsum(losses) / len(losses)),
        kl_nats=math.fsum(distances) / len(distances),
        kl_parts=tuple(float(part.mean()) for part in np.array_split(distances, PARTS) if part.size),
        agreement=agreed / len(losses),
        num_predicted=len(losses),
        tokens_per_s=1 / median(seconds),
        figures=counted.figures(),
    )
