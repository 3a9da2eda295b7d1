"""How long kernels take on an accelerator, in seconds: by fits to measured ones, or from a data sheet."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.hardware import Hardware
from kvbench.timing.attention import attention_of
from kvbench.timing.shapes import AttentionShape, ExpertShape

Seconds = NDArray[np.float64]

SHARPNESS = 3.0
"""Of the knee between what memory and what operations bound, where nobody measured it."""
OPERAND_BYTES = {"bfloat16": 2.0, "float16": 2.0, "float32": 4.0, "fp8": 1.0, "fp8_block": 1.0, "w4a16_mxfp4": 0.53125}


class Kernels:
    """What kernels take on one accelerator of a kind. All but names broadcasts, as NumPy's arrays do.

    Args:
        hardware: its figures.
    """

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._bytes_per_s = hardware.memory_bytes_per_s * hardware.memory_efficiency
        self._attention = attention_of(hardware)

    @property
    def is_fitted(self) -> bool:
        """Whether they were fitted to measured kernels of this accelerator; else they are a data sheet's."""
        return False

    def product_s(self, m: ArrayLike, n: ArrayLike, k: ArrayLike, dtype: str) -> Seconds:
        """A matrix product of (m, k) by (k, n).

        Args:
            m: tokens.
            n: outputs.
            k: inputs.
            dtype: of the weights, as tables of kernels call it.
        """
        m, n, k = (np.asarray(each, np.float64) for each in (m, n, k))
        width = OPERAND_BYTES[dtype]
        return self._knee_s(m * k * min(width * 4, 2) + n * k * width + 2 * m * n, 2 * m * n * k, dtype)

    def experts_s(self, num_tokens: ArrayLike, shape: ExpertShape) -> Seconds:
        """A layer's routed experts, for so many tokens: those that are touched are read."""
        tokens = np.asarray(num_tokens, np.float64)
        touched = shape.num_experts * (1 - (1 - min(shape.top_k / shape.num_experts, 1.0)) ** tokens)
        matrices = 3.0 * shape.hidden * shape.intermediate
        moved = touched * matrices * OPERAND_BYTES[shape.dtype] + 4 * tokens * shape.top_k * shape.hidden
        return self._knee_s(moved, 2 * tokens * shape.top_k * matrices, shape.dtype)

    def prefill_s(
        self, new_tokens: ArrayLike, context_tokens: ArrayLike, shape: AttentionShape, prompts: ArrayLike = 1
    ) -> Seconds:
        """Attention of prompts' new tokens over those before them and each other, in one layer; see `Attention`."""
        return self._attention.prefill_s(new_tokens, context_tokens, shape, prompts)

    def decode_s(self, seen_tokens: ArrayLike, batch: ArrayLike, shape: AttentionShape) -> Seconds:
        """Attention of a decode step in one layer, as tables of kernels have it: called again and again, so that what
        fits the accelerator's cache stays there."""
        return self._attention.decode_s(seen_tokens, batch, shape)

    def decode_terms(self, batch: ArrayLike, shape: AttentionShape) -> tuple[Seconds, Seconds]:
        """Attention of a model's decode step in one layer: seconds that hang on how many sequences there are, and
        seconds for each token that they see, all of them together."""
        return self._attention.decode_terms(batch, shape)

    def mixed_terms(self, batch: ArrayLike, shape: AttentionShape) -> tuple[Seconds, Seconds]:
        """The same of decode steps that share an iteration with prompts' new tokens, beside what those take."""
        return self._attention.mixed_terms(batch, shape)

    def traffic_s(self, num_bytes: ArrayLike) -> Seconds:
        """What only moves bytes: norms, activation functions, rotary embeddings, additions."""
        return self._hardware.launch_s + np.asarray(num_bytes, np.float64) / self._bytes_per_s

    def exchange_s(self, kind: str, num_bytes: ArrayLike, ranks: int) -> Seconds:
        """An exchange between accelerators: all_reduce, all_gather, all_to_all or send.

        Args:
            kind: of these.
            num_bytes: of the tensor, whole.
            ranks: accelerators, > 1.
        Raises:
            ValueError: the machine's file says nothing of links.
        """
        link_s = self._hardware.needed("link_s", "what accelerators say to each other")
        per_s = self._hardware.needed("link_bytes_per_s", "what accelerators say to each other")
        share = {"all_reduce": 2 * (ranks - 1) / ranks, "send": 1.0}.get(kind, (ranks - 1) / ranks)
        return link_s + np.asarray(num_bytes, np.float64) * share / per_s

    def _knee_s(self, num_bytes: Seconds, flops: Seconds, dtype: str) -> Seconds:
        hardware = self._hardware
        rate = hardware.flops_per_s * min(1.0, 2 / DTYPE_BYTES.get(dtype, 2))
        if dtype.startswith("fp8") and hardware.flops_8bit_per_s is not None:
            rate = hardware.flops_8bit_per_s
        reading, computing = num_bytes / self._bytes_per_s, flops / (rate * hardware.compute_efficiency)
        found: Seconds = hardware.launch_s + (reading**SHARPNESS + computing**SHARPNESS) ** (1 / SHARPNESS)
        return found


def kernels_of(hardware: Hardware) -> Kernels:
    """What kernels take on an accelerator."""
    return Kernels(hardware)
