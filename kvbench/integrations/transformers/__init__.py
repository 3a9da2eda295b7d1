"""Strategies as caches of Hugging Face models; the extra `hf` brings the library."""

from kvbench.integrations.transformers.attention import ATTENTION, use_attention
from kvbench.integrations.transformers.cache import KVBenchCache

__all__ = ["ATTENTION", "KVBenchCache", "use_attention"]
