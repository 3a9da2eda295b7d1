"""Tiny random models with a tokenizer of bytes, as folders of safetensors and as GGUF files."""

import gguf
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGE = tuple(BYTES[:2])
TOKENS = [*BYTES, "".join(MERGE), "<s>", "</s>"]
SIZE = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": len(TOKENS) - 2,
    "eos_token_id": len(TOKENS) - 1,
}


def tokenizer():
    made = Tokenizer(models.BPE({token: number for number, token in enumerate(TOKENS)}, [MERGE]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def llama(seed=0, **changed):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SIZE | changed)).eval()


def saved(folder, seed=0, **changed):
    """A folder of safetensors, and the model in it."""
    model = llama(seed, **changed)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def gguf_file(path, model):
    """A Llama as a GGUF file in float32."""
    config, weights = model.config, model.state_dict()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([1] * (len(TOKENS) - 2) + [3, 3])
    writer.add_token_merges([" ".join(MERGE)])
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in weights.items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        rows = next((count for part, count in heads.items() if part in name), None)
        if rows is not None:  # GGUF rotates neighbouring elements of a head, transformers its halves
            weight = weight.view(rows, 2, -1, weight.shape[-1]).transpose(1, 2).reshape(weight.shape)
        stem, _, kind = name.rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{kind}", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
