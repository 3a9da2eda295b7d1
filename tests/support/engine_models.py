"""Models that engines' pools are tried with, by their public geometry."""

from kvbench.model.groups import CHUNKED, FULL, LATENT, STATE, WINDOW, LayerGroup, StateTensor
from kvbench.model.model import Model


def every(num_layers, step, *, but=False):
    """Numbers of the last layer of each `step`; or of all others."""
    return tuple(i for i in range(num_layers) if (i % step == step - 1) != but)


def model(*groups, num_layers=None, max_tokens=None, name="tried"):
    num_layers = num_layers or 1 + max(layer for group in groups for layer in group.layers)
    return Model(name=name, groups=groups, num_layers=num_layers, max_tokens=max_tokens)


def attention(layers, heads, kv_heads, dim, *, dtype="bfloat16", window=None, chunk=None):
    kind = WINDOW if window else CHUNKED if chunk else FULL
    return LayerGroup(
        kind=kind,
        layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        key_dim=dim,
        value_dim=dim,
        dtype=dtype,
        tokens=window or chunk,
    )


def plain(num_layers, heads, kv_heads, dim, max_tokens=None):
    return model(attention(tuple(range(num_layers)), heads, kv_heads, dim), max_tokens=max_tokens)


def gemma3_27b():
    """62 layers, every sixth of full attention, the others with a window of 1,024 (google/gemma-3-27b-it)."""
    return model(attention(every(62, 6), 32, 16, 128), attention(every(62, 6, but=True), 32, 16, 128, window=1024))


def gemma4_31b():
    """60 layers, every sixth of full attention with 4 KV heads of 512, the others 16 of 256 (google/gemma-4-31b-it)."""
    return model(attention(every(60, 6), 32, 4, 512), attention(every(60, 6, but=True), 32, 16, 256, window=1024))


def gpt_oss(num_layers):
    """Half the layers with a window of 128 (openai/gpt-oss-20b: 24 layers, -120b: 36)."""
    return model(
        attention(every(num_layers, 2), 64, 8, 64), attention(every(num_layers, 2, but=True), 64, 8, 64, window=128)
    )


def gated_delta(num_layers, *, kv_heads, value_heads, ranks=1, dtype="bfloat16"):
    """Every fourth layer of full attention, the others a gated delta net with a float32 state (Qwen3.5)."""
    channels = (2 * 16 * 128 + value_heads * 128) // ranks
    convolution = StateTensor(name="convolution", rows=channels, columns=3, dtype="bfloat16")
    recurrent = StateTensor(name="recurrent", rows=value_heads // ranks, columns=128 * 128, dtype="float32")
    states = LayerGroup(kind=STATE, layers=every(num_layers, 4, but=True), state=(convolution, recurrent))
    kv_heads = max(1, kv_heads // ranks)
    return model(attention(every(num_layers, 4), 8 * kv_heads, kv_heads, 256, dtype=dtype), states)


def qwen3_5_27b(**more):
    """64 layers: 16 of full attention with 4 KV heads, 48 states of 48 value heads."""
    return gated_delta(64, kv_heads=4, value_heads=48, **more)


def latent(num_layers, *, index_bytes=0, dtype="bfloat16"):
    """Latents of 512 and a rotary part of 64 (DeepSeek V3's family)."""
    return model(
        LayerGroup(
            kind=LATENT,
            layers=tuple(range(num_layers)),
            num_heads=128,
            num_kv_heads=1,
            key_dim=576,
            value_dim=512,
            index_bytes=index_bytes,
            dtype=dtype,
        )
    )
