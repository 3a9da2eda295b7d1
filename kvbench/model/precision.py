"""A model in other precisions than its own: of what it holds of tokens, and of its weights."""

from dataclasses import replace

from kvbench.model.dtypes import DTYPE_BYTES, kv_dtype, weights_dtype
from kvbench.model.model import Model
from kvbench.model.weights import BODY, EXPERTS, WeightPart

IN_FULL = ("norms", "router", "biases", "sinks")
"""Parts that quantisation leaves as they are, beside embeddings and head."""


def in_precision(model: Model, weights: str | None = None, kv: str | None = None) -> Model:
    """The model with another dtype of weights, of what layers hold of tokens, or of both; states keep their own.

    Args:
        model: as it is.
        weights: of all parts, where it is one to compute in; else of those that engines quantise, which norms, router,
            biases, embeddings and head are not. None: as they are.
        kv: of K, V and latents; None: as they are.
    Raises:
        ValueError: there is no such dtype.
    """
    if kv is not None:
        named = kv_dtype(kv)
        groups = tuple(replace(group, dtype=named) if group.holds_tokens else group for group in model.groups)
        model = replace(model, groups=groups)
    if weights is not None:
        named = weights_dtype(weights)
        model = replace(model, weights=tuple(_converted(part, named, model.dtype) for part in model.weights))
    return model


def _converted(part: WeightPart, dtype: str, computed: str) -> WeightPart:
    if dtype in DTYPE_BYTES:
        return replace(part, dtype=dtype)
    is_quantised = part.kind in (BODY, EXPERTS) and part.name not in IN_FULL
    return replace(part, dtype=dtype if is_quantised else part.dtype if part.dtype in DTYPE_BYTES else computed)
