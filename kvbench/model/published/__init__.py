"""Published configurations of models (Hugging Face's config.json), read without weights and without transformers."""

from kvbench.model.published.read import read_model

__all__ = ["read_model"]
