"""K, V and queries of a real model on a text, in one forward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvbench.backend.attention import chosen_kernels
from kvbench.integrations.transformers.attention import UNSUPPORTED

ATTENTION = "kvbench_recording"
"""The attention function that notes queries, as transformers knows it."""

_noted: ContextVar[dict[int, Tensor] | None] = ContextVar("noted", default=None)


class CannotRecord(ValueError):
    """A model whose K, V and queries are not to be had, or cannot be used elsewhere: says why."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """K, V and queries of some of a model's layers, for `kvbench.quality.recorded.write`.

    Args:
        keys: [layers, num_kv_heads, tokens, head_dim], as attention reads them: rotated.
        values: as keys.
        queries: [layers, num_heads, tokens, head_dim], rotated, and scaled so that attention divides their products
            with keys by the root of head_dim, whatever the model divides by.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor


def record(model: PreTrainedModel, tokens: Sequence[int], layers: Sequence[int]) -> Recorded:
    """Run a model over tokens, and keep what attention was given. The model is left as it was.

    Args:
        model: a decoder whose attention transformers can replace.
        tokens: numbers of the vocabulary, 1 or more.
        layers: which, in this order.
    Raises:
        CannotRecord: a layer holds no K and V of all tokens, or its attention is another than of softmax and scale.
    """
    cache = DynamicCache(config=model.config)
    with _noting(model) as queries, torch.no_grad():
        # Without the head: logits of all tokens over the vocabulary would be larger than all that is kept.
        given = torch.as_tensor(tokens, device=model.device).unsqueeze(0)
        model.base_model(input_ids=given, past_key_values=cache, use_cache=True)
    missing = [layer for layer in layers if layer not in queries]
    if missing:
        raise CannotRecord(
            f"the attention of layers {missing} did not go through transformers' AttentionInterface: no queries"
        )
    found = [(*_pair(cache, layer, len(tokens)), queries[layer]) for layer in layers]
    if len({tuple(tensor.shape for tensor in each) for each in found}) > 1:
        raise CannotRecord("layers have heads of several kinds: name some of one kind with layers=…")
    return Recorded(*(torch.cat(tensors).cpu() for tensors in zip(*found, strict=True)))


def _pair(cache: DynamicCache, layer: int, num_tokens: int) -> tuple[Tensor, Tensor]:
    """A layer's K and V, [1, num_kv_heads, num_tokens, head_dim]."""
    held = cache.layers[layer]
    keys, values = getattr(held, "keys", None), getattr(held, "values", None)
    if keys is None or values is None or keys.shape[2] != num_tokens or values.shape != keys.shape:
        held_tokens = 0 if keys is None else keys.shape[2]
        raise CannotRecord(
            f"layer {layer} ({type(held).__name__}) holds K and V of {held_tokens} of {num_tokens} tokens: record "
            "fewer with tokens=…, or other layers with layers=…"
        )
    return keys, values


@contextmanager
def _noting(model: PreTrainedModel) -> Iterator[dict[int, Tensor]]:
    """Have a model's attention note its queries, by layer, as long as the context lasts."""
    AttentionInterface.register(ATTENTION, _attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    before = model.config._attn_implementation
    queries: dict[int, Tensor] = {}
    token = _noted.set(queries)
    model.set_attn_implementation(ATTENTION)
    try:
        yield queries
    finally:
        model.set_attn_implementation(before)
        _noted.reset(token)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
) -> tuple[Tensor, None]:
    """Note the query, and attend as sdpa does."""
    for setting in UNSUPPORTED:
        if settings.get(setting) is not None:
            raise CannotRecord(f"its attention has a {setting}, which K, V and queries alone do not tell of")
    queries = _noted.get()
    if queries is not None:
        own, scaling = query.shape[-1] ** -0.5, settings.get("scaling")
        layer: Any = module.layer_idx
        queries[layer] = query if scaling in (None, own) else query * (scaling / own)
    with chosen_kernels(query.device):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **settings)[0], None
