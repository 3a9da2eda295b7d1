"""Strategies as caches of Hugging Face models."""
