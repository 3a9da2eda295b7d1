"""Gemma: windows in most layers, wide heads, four norms."""

from kvbench.model.published.attention import attention
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import dense, norms
from kvbench.model.published.windows import every

TIED = {"tie_word_embeddings": True}

GEMMA = Family(
    parts=(attention(bias="attention_bias"), dense(), norms()),
    defaults=TIED | {"vocab_size": 256000, "intermediate_size": 24576, "head_dim": 256},
)
GEMMA2 = Family(
    parts=(attention(bias="attention_bias", kinds=every(2)), dense(), norms(4)),
    aliases={"sliding_window_size": "sliding_window"},
    defaults=TIED
    | {
        "vocab_size": 256000,
        "intermediate_size": 9216,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "sliding_window": 4096,
        "max_position_embeddings": 8192,
    },
)
GEMMA3 = Family(
    parts=(attention(bias="attention_bias", qk_norm="head", kinds=every(6)), dense(), norms(4)),
    defaults={**GEMMA2.defaults, "vocab_size": 262208, "max_position_embeddings": 131072},
    aliases={"_sliding_window_pattern": "sliding_window_pattern"},
)
