"""Families whose layers are attention with heads in groups and a dense feed-forward part."""

from kvbench.model.published.attention import Heads, attention, heads_of
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import dense, norms
from kvbench.model.published.fields import Fields
from kvbench.model.published.windows import all_windowed, every, last_windowed

TIED = {"tie_word_embeddings": True}

LLAMA = Family(
    parts=(attention(bias="attention_bias"), dense(bias="mlp_bias"), norms()),
    defaults={"vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
)
MISTRAL = Family(
    parts=(attention(kinds=all_windowed), dense(), norms()),
    defaults={
        "vocab_size": 32000,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
        "max_position_embeddings": 131072,
    },
)
MINISTRAL3 = Family(
    parts=MISTRAL.parts,
    defaults={key: value for key, value in MISTRAL.defaults.items() if key != "sliding_window"}
    | {"vocab_size": 131072, "head_dim": 128, "max_position_embeddings": 262144},
)
QWEN2 = Family(
    parts=(attention(bias=True, out_bias=False, kinds=last_windowed), dense(), norms()),
    defaults={"vocab_size": 151936, "intermediate_size": 22016, "max_window_layers": 28},
)
QWEN3 = Family(
    parts=(attention(bias="attention_bias", qk_norm="head", kinds=last_windowed), dense(), norms()),
    defaults={"vocab_size": 151936, "intermediate_size": 22016, "head_dim": 128, "max_window_layers": 28},
)
PHI3 = Family(
    parts=(attention(kinds=all_windowed), dense(), norms()),
    defaults={
        "vocab_size": 32064,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "full_attn_mod": 1,  # of Phi-4-mini, which reads it nowhere
    },
)
STARCODER2 = Family(
    parts=(attention(bias="use_bias", kinds=all_windowed), dense(bias="use_bias", is_gated=False), norms(bias=True)),
    norm_bias=True,
    defaults=TIED | {"vocab_size": 49152, "intermediate_size": 12288, "use_bias": True, "num_key_value_heads": 2},
)
GLM = Family(
    parts=(attention(bias="attention_bias", out_bias=False), dense(), norms()),
    defaults={
        "vocab_size": 151552,
        "intermediate_size": 13696,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "attention_bias": True,
    },
)


def _chatglm_heads(fields: Fields, _: str) -> Heads:
    own = heads_of(fields)
    if fields.flag("multi_query_attention", True):
        return own
    return Heads(own.num_heads, own.num_heads, own.key_dim, own.value_dim)


CHATGLM = Family(
    parts=(
        attention(bias="add_qkv_bias", out_bias="add_bias_linear", heads=_chatglm_heads),
        dense(bias="add_bias_linear"),
        norms(),
    ),
    aliases={
        "num_layers": "num_hidden_layers",
        "padded_vocab_size": "vocab_size",
        "ffn_hidden_size": "intermediate_size",
        "kv_channels": "head_dim",
        "multi_query_group_num": "num_key_value_heads",
        "seq_length": "max_position_embeddings",
    },
)
GLM4 = Family(parts=(*GLM.parts[:2], norms(4)), defaults=GLM.defaults)
COHERE = Family(
    parts=(attention(bias="attention_bias", qk_norm="heads", has_qk_norm="use_qk_norm"), dense(), norms(1)),
    defaults=TIED | {"vocab_size": 256000, "intermediate_size": 22528, "max_position_embeddings": 8192},
)
COHERE2 = Family(
    parts=(attention(bias="attention_bias", kinds=every(4)), dense(), norms(1)),
    defaults={**COHERE.defaults, "head_dim": 128, "sliding_window": 4096},
)
OLMO2 = Family(
    parts=(attention(bias="attention_bias", qk_norm="width"), dense(), norms()),
    defaults={"vocab_size": 50304, "intermediate_size": 11008},
)
OLMO3 = Family(
    parts=(attention(bias="attention_bias", qk_norm="width", kinds=every(4)), dense(), norms()),
    defaults={**OLMO2.defaults, "sliding_window": 4096},
)
EXAONE4 = Family(
    parts=(attention(qk_norm="head", kinds=every(4)), dense(), norms()),
    defaults={"vocab_size": 102400, "intermediate_size": 16384, "sliding_window": 4096},
)
SEED_OSS = Family(
    parts=(attention(bias="attention_bias", out_bias="attention_out_bias"), dense(bias="mlp_bias"), norms()),
    defaults={"vocab_size": 155136, "head_dim": 128, "attention_bias": True, "num_key_value_heads": 8},
)
ERNIE = Family(
    parts=(attention(bias="use_bias"), dense(bias="use_bias"), norms()),
    defaults=TIED | {"vocab_size": 103424, "intermediate_size": 3072, "head_dim": 128, "num_key_value_heads": 2},
)
SMOLLM3 = Family(
    parts=(attention(bias="attention_bias", kinds=last_windowed), dense(bias="mlp_bias"), norms()),
    defaults=TIED | {"vocab_size": 128256, "num_key_value_heads": 4, "no_rope_layers": [], "no_rope_layer_interval": 4},
)
HUNYUAN = Family(
    parts=(attention(bias="attention_bias", qk_norm="head"), dense(bias="mlp_bias"), norms()),
    defaults={"vocab_size": 290943, "intermediate_size": 11008},
)
MIMO = Family(parts=QWEN2.parts, defaults={"attention_bias": True, "intermediate_size": 11008, "vocab_size": 151680})
NEMOTRON = Family(
    parts=(attention(bias="attention_bias"), dense(bias="mlp_bias", is_gated=False), norms(bias=True)),
    norm_bias=True,
    defaults={"vocab_size": 256000, "intermediate_size": 24576},
    aliases={"kv_channels": "head_dim"},
)
ARCEE = Family(
    parts=(attention(bias="attention_bias"), dense(bias="mlp_bias", is_gated=False), norms()),
    defaults={"vocab_size": 32000, "intermediate_size": 18432},
)
STABLELM = Family(
    parts=(attention(bias="use_qkv_bias", out_bias=False), dense(), norms(bias=True)),
    norm_bias=True,
    defaults={"vocab_size": 50304, "intermediate_size": 6912},
)
INTERNLM3 = Family(
    parts=(attention(bias="qkv_bias", out_bias="bias"), dense(bias="bias"), norms()),
    defaults={"vocab_size": 128512, "intermediate_size": 10240, "num_key_value_heads": 2, "head_dim": 128},
    aliases={"attention_bias": "qkv_bias", "mlp_bias": "bias"},
)
