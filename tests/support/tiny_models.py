"""A tiny random Llama, and a tokenizer of letters, for tests that need no real model."""

from types import SimpleNamespace

import torch

VOCABULARY = 128


def tiny_llama(seed=0, **changed):
    """Two layers of four heads on two KV heads of 8; random, so that it predicts nothing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        # Weights as large as this make attention pick some tokens, and not average over all.
        "initializer_range": 0.4,
    }
    return LlamaForCausalLM(LlamaConfig(**(shape | changed))).eval().requires_grad_(False)


class Letters:
    """A token a letter, by its number; optionally a beginning-of-sequence token before a text."""

    def __init__(self, bos_token_id=None):
        self.bos_token_id = bos_token_id

    def __call__(self, text, add_special_tokens=True):
        ids = [ord(letter) % VOCABULARY for letter in text]
        is_begun = add_special_tokens and self.bos_token_id is not None
        return SimpleNamespace(input_ids=[self.bos_token_id, *ids] if is_begun else ids)
