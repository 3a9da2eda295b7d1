"""kvbench: benchmark KV-cache strategies for LLM inference."""

__version__ = "0.1.0"
