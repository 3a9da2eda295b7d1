"""Tiny random models of several families, and ways to generate with them."""

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GptOssConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.cache_utils import Cache

VOCABULARY = 97
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "bos_token_id": 1,
    "eos_token_id": None,
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES),
    "qwen3": lambda: Qwen3Config(**SIZES, head_dim=16),
    "mistral, window of 12": lambda: MistralConfig(**SIZES, sliding_window=12),
    "gemma": lambda: GemmaConfig(**SIZES, head_dim=16),
    "gemma3, one layer of two with a window of 12": lambda: Gemma3TextConfig(
        **SIZES,
        head_dim=16,
        sliding_window=12,
        query_pre_attn_scalar=20,
        layer_types=["sliding_attention", "full_attention"],
    ),
}


WINDOWED = {
    "mistral, window of 12": CONFIGS["mistral, window of 12"],
    "gemma2, one layer of two with a window of 12": lambda: Gemma2Config(**SIZES, head_dim=16, sliding_window=12),
    "gemma3, one layer of two with a window of 12": CONFIGS["gemma3, one layer of two with a window of 12"],
    "gpt-oss, one layer of two with a window of 12": lambda: GptOssConfig(
        **SIZES, head_dim=16, sliding_window=12, num_local_experts=4, num_experts_per_tok=2
    ),
    "llama4, one layer of two in chunks of 12": lambda: Llama4TextConfig(
        **SIZES, head_dim=16, attention_chunk_size=12, intermediate_size_mlp=64, no_rope_layers=[1, 0], moe_layers=[]
    ),
}
"""Models with layers that look at the last tokens only."""
EAGER = ("gemma2", "gpt-oss")
"""Those of them whose attention takes more than a mask and a scale, so that no other implementation has it."""


def model_of(name: str) -> PreTrainedModel:
    return from_config((CONFIGS | WINDOWED)[name]())


def from_config(config: PreTrainedConfig, seed: int = 0) -> PreTrainedModel:
    """A model with weights from a seed, larger than usual, so that tokens differ and attention matters."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6.0)
    return model


def softcapped() -> PreTrainedModel:
    """A model whose attention takes more than a mask and a scale."""
    return from_config(Gemma2Config(**SIZES, head_dim=16))


NUM_OUTPUT = 24
"""Tokens that are generated: with a prompt of 30, beyond windows and blocks, and the buffers that must grow."""


def prompt(num_rows: int, num_tokens: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(2, VOCABULARY, (num_rows, num_tokens), generator=torch.Generator().manual_seed(seed))


def padded(num_tokens: int, *paddings: int) -> dict[str, torch.Tensor]:
    """A left-padded batch: a row a number of padding tokens."""
    ids = prompt(len(paddings), num_tokens)
    mask = torch.ones_like(ids)
    for row, count in enumerate(paddings):
        ids[row, :count], mask[row, :count] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def generated(model: PreTrainedModel, cache: Cache, num_tokens: int, **inputs: object) -> torch.Tensor:
    return model.generate(
        **{"past_key_values": cache, "min_new_tokens": num_tokens, "max_new_tokens": num_tokens, "do_sample": False}
        | inputs
    )


def greedy(model, cache):
    return generated(model, cache, NUM_OUTPUT, input_ids=prompt(1, 30))


def sampled(model, cache):
    torch.manual_seed(7)
    return generated(model, cache, NUM_OUTPUT, input_ids=prompt(2, 30), do_sample=True)


def beams(model, cache):
    return generated(model, cache, 20, input_ids=prompt(2, 20), num_beams=3)


def left_padded(model, cache):
    return generated(model, cache, NUM_OUTPUT, **padded(30, 0, 11, 25))


def in_chunks(model, cache):
    return generated(model, cache, 20, input_ids=prompt(1, 61), prefill_chunk_size=16)


def several_turns(model, cache):
    tokens = prompt(2, 25)
    for turn in range(3):
        tokens = generated(model, cache, 12, input_ids=tokens)
        tokens = torch.cat((tokens, prompt(2, 9, seed=10 + turn)), dim=1)
    return tokens


def assisted(model, cache):
    """With a model nearly alike, so that tokens of its are often taken, and often not."""
    helper = from_config(type(model.config)(**SIZES))
    with torch.no_grad():
        helper.model.layers[-1].mlp.down_proj.weight.mul_(1.2)
    return generated(model, cache, NUM_OUTPUT, input_ids=prompt(1, 30), assistant_model=helper)


def cropped(model, cache):
    tokens = prompt(1, 40)
    with torch.no_grad():
        model(input_ids=tokens, past_key_values=cache)
        cache.crop(-7)
        model(input_ids=prompt(1, 5, seed=3), past_key_values=cache)
        cache.crop(torch.tensor(-1))  # as assisted generation of transformers 5.14 to 5.17 says it
    again = torch.cat((tokens[:, :33], prompt(1, 5, seed=3)[:, :4], prompt(1, 2, seed=4)), dim=1)
    return generated(model, cache, 20, input_ids=again)


def repeated(model, cache):
    """A prompt that is read once and gone on with three times; then three rows of these."""
    with torch.no_grad():
        model(input_ids=prompt(2, 30), past_key_values=cache)
        cache.batch_repeat_interleave(3)
        model(input_ids=prompt(6, 4, seed=5), past_key_values=cache)
        cache.batch_select_indices(torch.tensor([4, 1, 5]))
        return model(input_ids=prompt(3, 1, seed=6), past_key_values=cache).logits.argmax(dim=-1)


WAYS = {
    way.__name__: way
    for way in (greedy, sampled, beams, left_padded, in_chunks, several_turns, assisted, cropped, repeated)
}
