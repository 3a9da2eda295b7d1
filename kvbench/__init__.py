"""kvbench: benchmark and simulate KV-cache strategies for LLM inference."""

__version__ = "0.1.0"
