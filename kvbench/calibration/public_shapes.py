"""Shapes of public models, by a part of their names: of a printed line's model, where no configuration is given.

Each is what the model's published config.json says (num_hidden_layers, num_attention_heads, num_key_value_heads,
head_dim, sliding_window, layer_types, linear_*), or of Gemma and gpt-oss what its class adds.
"""

import re
from dataclasses import replace
from functools import cache

from kvbench.model.groups import CONVOLUTION, FULL, LATENT, RECURRENT, STATE, WINDOW, LayerGroup, StateTensor
from kvbench.model.model import Model

Heads = tuple[int, ...]
"""Heads of queries, of K and V, their width, and that of V where it is another."""

PLAIN: dict[str, tuple[int, Heads]] = {
    "llama-2-7b": (32, (32, 32, 128)),
    "llama-2-13b": (40, (40, 40, 128)),
    "llama-2-70b": (80, (64, 8, 128)),
    "llama-3-8b": (32, (32, 8, 128)),
    "llama-3.1-8b": (32, (32, 8, 128)),
    "llama-3-70b": (80, (64, 8, 128)),
    "llama-3.1-70b": (80, (64, 8, 128)),
    "llama-3.1-405b": (126, (128, 8, 128)),
    "llama-3.2-1b": (16, (32, 8, 64)),
    "llama-3.2-3b": (28, (24, 8, 128)),
    "llama-3.3-70b": (80, (64, 8, 128)),
    "deepseek-r1-distill-llama-8b": (32, (32, 8, 128)),
    "deepseek-r1-distill-llama-70b": (80, (64, 8, 128)),
    "deepseek-r1-distill-qwen-1.5b": (28, (12, 2, 128)),
    "deepseek-r1-distill-qwen-7b": (28, (28, 4, 128)),
    "deepseek-r1-distill-qwen-14b": (48, (40, 8, 128)),
    "deepseek-r1-distill-qwen-32b": (64, (40, 8, 128)),
    "mistral-7b": (32, (32, 8, 128)),
    "mistral-nemo": (40, (32, 8, 128)),
    "mistral-small": (40, (32, 8, 128)),
    "mistral-large": (88, (96, 8, 128)),
    "devstral-small": (40, (32, 8, 128)),
    "magistral-small": (40, (32, 8, 128)),
    "ministral-3-3b": (26, (32, 8, 128)),
    "ministral-3-8b": (34, (32, 8, 128)),
    "ministral-3-14b": (40, (32, 8, 128)),
    "codestral-22b": (56, (48, 8, 128)),
    "tinyllama-1.1b": (22, (32, 4, 64)),
    "opt-125m": (12, (12, 12, 64)),
    "yi-34b": (60, (56, 8, 128)),
    "seed-oss-36b": (64, (80, 8, 128)),
    "granite-3.3-8b": (40, (32, 8, 128)),
    "llama-3.1-nemotron-70b": (80, (64, 8, 128)),
    "codellama-34b": (48, (64, 8, 128)),
    "glm-4-9b": (40, (32, 2, 128)),
    "mixtral-8x7b": (32, (32, 8, 128)),
    "mixtral-8x22b": (56, (48, 8, 128)),
    "phi-4": (40, (40, 10, 128)),
    "phi-4-mini": (32, (24, 8, 128)),
    "qwq-32b": (64, (40, 8, 128)),
    "qwen2.5-0.5b": (24, (14, 2, 64)),
    "qwen2.5-1.5b": (28, (12, 2, 128)),
    "qwen2.5-3b": (36, (16, 2, 128)),
    "qwen2.5-7b": (28, (28, 4, 128)),
    "qwen2.5-14b": (48, (40, 8, 128)),
    "qwen2.5-32b": (64, (40, 8, 128)),
    "qwen2.5-72b": (80, (64, 8, 128)),
    "qwen3-0.6b": (28, (16, 8, 128)),
    "qwen3-reranker-0.6b": (28, (16, 8, 128)),
    "qwen3-1.7b": (28, (16, 8, 128)),
    "qwen3-4b": (36, (32, 8, 128)),
    "qwen3-8b": (36, (32, 8, 128)),
    "qwen3-vl-8b": (36, (32, 8, 128)),
    "qwen3-14b": (40, (40, 8, 128)),
    "qwen3-32b": (64, (64, 8, 128)),
    "qwen3-vl-32b": (64, (64, 8, 128)),
    "qwen3-30b-a3b": (48, (32, 4, 128)),
    "qwen3-coder-30b-a3b": (48, (32, 4, 128)),
    "qwen3-omni-30b-a3b": (48, (32, 4, 128)),
    "qwen3-vl-30b-a3b": (48, (32, 4, 128)),
    "qwen3-235b-a22b": (94, (64, 4, 128)),
    "qwen3-vl-235b-a22b": (94, (64, 4, 128)),
    "qwen3-coder-480b-a35b": (62, (96, 8, 128)),
    "glm-4.5-air": (46, (96, 8, 128)),
    "glm-4.5": (92, (96, 8, 128)),
    "glm-4.6": (92, (96, 8, 128)),
    "glm-4.7": (92, (96, 8, 128)),
    "minimax-m2": (62, (48, 8, 128)),
    "minimax-m2.1": (62, (48, 8, 128)),
    "minimax-m2.5": (62, (48, 8, 128)),
}
"""Layers, all of full attention, and their heads."""

WINDOWED: dict[str, tuple[int, int, int, Heads, Heads]] = {
    "gemma-2-2b": (26, 2, 4_096, (8, 4, 256), (8, 4, 256)),
    "gemma-2-9b": (42, 2, 4_096, (16, 8, 256), (16, 8, 256)),
    "gemma-2-27b": (46, 2, 4_096, (32, 16, 128), (32, 16, 128)),
    "gemma-3-1b": (26, 6, 512, (4, 1, 256), (4, 1, 256)),
    "gemma-3-4b": (34, 6, 1_024, (8, 4, 256), (8, 4, 256)),
    "gemma-3-12b": (48, 6, 1_024, (16, 8, 256), (16, 8, 256)),
    "gemma-3-27b": (62, 6, 1_024, (32, 16, 128), (32, 16, 128)),
    "gemma-4-31b": (60, 6, 1_024, (32, 4, 512), (32, 16, 256)),
    "gemma-4-26b-a4b": (30, 6, 1_024, (16, 2, 512), (16, 8, 256)),
    "mimo-v2-flash": (48, 0, 128, (64, 4, 192, 128), (64, 8, 192, 128)),
    "mimo-v2.6-flash": (48, 0, 128, (64, 4, 192, 128), (64, 8, 192, 128)),
    "gpt-oss-20b": (24, 2, 128, (64, 8, 64), (64, 8, 64)),
    "gpt-oss-120b": (36, 2, 128, (64, 8, 64), (64, 8, 64)),
}
"""Layers, every how many there is full attention, the others' window, and heads of both; MiMo has 9 full ones."""

LATENTS: dict[str, tuple[int, int]] = {
    "deepseek-v2-lite": (27, 0),
    "deepseek-v2": (60, 0),
    "deepseek-v3": (61, 0),
    "deepseek-v3.1": (61, 0),
    "deepseek-r1": (61, 0),
    "deepseek-v3.2": (61, 132),
    "kimi-k2": (61, 0),
    "kimi-k2.5": (61, 0),
    "glm-4.7-flash": (47, 0),
    "glm-5": (78, 132),
    "bailingmoev3forcausallm": (7, 0),  # and states, which SGLang keeps apart
}
"""Layers of 512 values and a rotary part of 64, and bytes of an indexer."""

GATED: dict[str, tuple[int, Heads, int, str]] = {
    "qwen3-next-80b-a3b": (48, (16, 2, 256), 32, "bfloat16"),
    "qwen3.5-0.8b": (24, (8, 2, 256), 16, "float32"),
    "qwen3.5-2b": (24, (8, 2, 256), 16, "float32"),
    "qwen3.5-4b": (32, (16, 4, 256), 32, "float32"),
    "qwen3.5-9b": (32, (16, 4, 256), 32, "float32"),
    "qwen3.5-27b": (64, (24, 4, 256), 48, "float32"),
    "qwen3.5-35b-a3b": (40, (16, 2, 256), 32, "float32"),
    "qwen3.5-122b-a10b": (48, (32, 2, 256), 64, "float32"),
    "qwen3.8-flash-next": (48, (16, 2, 256), 32, "float32"),
    "qwen3.5-397b-a17b": (60, (32, 2, 256), 64, "float32"),
}
"""Layers, of which every fourth attends; its heads; of the others' states the heads of value, beside 16 of keys, all of
128 wide, and the dtype.
"""

DRAFTERS: dict[str, tuple[int, Heads, int | None, int]] = {
    "dflash2": (5, (32, 8, 128), 2_048, 7),
    "dflash": (5, (32, 8, 128), None, 5),
}
"""Of Qwen3.8-27B and Qwen3.6-27B: layers, heads, window, and tokens proposed: of DFlash2 a block of 8 less the first,
of DFlash those of public recipes that serve it.
"""

SAME = (
    (re.compile(r"[\s_]+"), "-"),
    (re.compile(r"\b(llama|gemma)(?=[234])"), r"\1-"),
    (re.compile(r"\bqwen-(?=\d)"), "qwen"),
    (re.compile(r"qwen3\.(?:6|8|x)-(?=27b|35b)"), "qwen3.5-"),
    (re.compile(r"(qwen[\d.]+)-(?:coder|vl|math|embedding|reranker)-(?=\d+(?:\.\d+)?b(?!-a\d))"), r"\1-"),
    (re.compile(r"qwen2-(?=\d)"), "qwen2.5-"),
    (re.compile(r"qwen3-coder-next"), "qwen3-next-80b-a3b"),
    (re.compile(r"gpt-oss-safeguard"), "gpt-oss"),
    (re.compile(r"(?:vicuna|codellama)-(?=7b|13b)"), "llama-2-"),
)
"""Other names of the same shapes."""
STATED = re.compile(r"(\d+) layers(?: x |, )(\d+) kv heads(?: x (\d+))?")
STATED_DIM = 128


def public_shape(text: str) -> Model | None:
    """The model that a text names, or whose layers and heads it states; None where neither is so.

    Args:
        text: such as "RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic" or "48 layers x 8 KV heads x 128".
    """
    folded = text.casefold()
    for other, name in SAME:
        folded = other.sub(name, folded)
    found = [name for called, name in _names().items() if re.search(rf"(?<![\w.]){re.escape(called)}(?![\w.])", folded)]
    if stated := STATED.search(text.casefold()):
        num_layers, kv_heads, dim = (int(each or STATED_DIM) for each in stated.groups())
        return _model("stated", _attention(range(num_layers), (kv_heads, kv_heads, dim)))
    return _known(max(found, key=len)) if found else None


@cache
def _names() -> dict[str, str]:
    """Each shape's name, and the same without the active parameters of a mixture of experts."""
    names = {**PLAIN, **WINDOWED, **LATENTS, **GATED}
    return {re.sub(r"-a\d+b$", "", name): name for name in names} | {name: name for name in names}


def with_drafter_of(text: str, model: Model) -> tuple[Model, int]:
    """The model with the layers of a drafter of another shape that a text names, and the tokens that it proposes."""
    name = next((name for name in DRAFTERS if name in text.casefold()), None)
    if name is None:
        return model, 0
    num_layers, heads, window, drafts = DRAFTERS[name]
    layers = range(model.num_layers, model.num_layers + num_layers)
    return _model(model.name, *model.groups, _attention(layers, heads, window)), drafts


def _known(name: str) -> Model:
    if name in PLAIN:
        num_layers, heads = PLAIN[name]
        return _model(name, _attention(range(num_layers), heads))
    if name in WINDOWED:
        num_layers, step, window, heads, window_heads = WINDOWED[name]
        full, others = _every(num_layers, step) if step else (list(range(9)), list(range(9, num_layers)))
        return _model(name, _attention(full, heads), _attention(others, window_heads, window))
    if name in LATENTS:
        num_layers, index_bytes = LATENTS[name]
        layers = tuple(range(num_layers))
        held = LayerGroup(kind=LATENT, layers=layers, num_heads=128, num_kv_heads=1, key_dim=576, value_dim=512)
        return _model(name, replace(held, index_bytes=index_bytes))
    num_layers, heads, value_heads, dtype = GATED[name]
    full, others = _every(num_layers, 4)
    state = (
        StateTensor(name=CONVOLUTION, rows=(2 * 16 + value_heads) * 128, columns=3, dtype="bfloat16"),
        StateTensor(name=RECURRENT, rows=value_heads, columns=128 * 128, dtype=dtype),
    )
    return _model(name, _attention(full, heads), LayerGroup(kind=STATE, layers=tuple(others), state=state))


def _every(num_layers: int, step: int) -> tuple[list[int], list[int]]:
    """The last layer of each step, and the others."""
    full = list(range(step - 1, num_layers, step))
    return full, [layer for layer in range(num_layers) if layer not in full]


def _attention(layers: range | list[int], heads: Heads, window: int | None = None) -> LayerGroup:
    num_heads, num_kv_heads, key_dim, *value_dim = heads
    return LayerGroup(
        kind=WINDOW if window else FULL,
        layers=tuple(layers),
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        key_dim=key_dim,
        value_dim=value_dim[0] if value_dim else key_dim,
        tokens=window,
    )


def _model(name: str, *groups: LayerGroup) -> Model:
    num_layers = 1 + max(layer for group in groups for layer in group.layers)
    return Model(name=name, groups=groups, num_layers=num_layers)
