"""Which layers of a model see all tokens, which the last ones only, and which a chunk."""

from collections.abc import Callable, Sequence

from kvbench.model.groups import CHUNKED, FULL, WINDOW
from kvbench.model.published.fields import Fields

Kinds = Callable[[Fields], Sequence[str]]
"""A layer's kind, by its number: full_attention, sliding_attention, chunked_attention, or another that it is called."""

FULL_ATTENTION, SLIDING, CHUNKS, LINEAR = "full_attention", "sliding_attention", "chunked_attention", "linear_attention"
KIND_OF = {FULL_ATTENTION: FULL, SLIDING: WINDOW, CHUNKS: CHUNKED}
TOKENS_KEY = {SLIDING: "sliding_window", CHUNKS: "attention_chunk_size"}


def all_full(fields: Fields) -> Sequence[str]:
    """Every layer sees all tokens; a list that says so is taken, one that says another thing is refused."""
    return _given(fields, (FULL_ATTENTION, "attention")) or [FULL_ATTENTION] * fields.num_layers


def all_windowed(fields: Fields) -> Sequence[str]:
    """Every layer has the window where there is one (Mistral, Phi-3, StarCoder2)."""
    is_on = fields.flag("use_sliding_window", True) and _window(fields)
    return _given(fields) or [SLIDING if is_on else FULL_ATTENTION] * fields.num_layers


def last_windowed(fields: Fields) -> Sequence[str]:
    """Layers from max_window_layers on have the window, where use_sliding_window turns it on (Qwen)."""
    if not fields.flag("use_sliding_window") or not _window(fields):
        types = _given(fields, (FULL_ATTENTION, SLIDING)) or ()
        if SLIDING in types and fields.flag("use_sliding_window"):
            raise ValueError(f"{fields.where}: layer_types has {SLIDING}, and sliding_window is not given")
        return [FULL_ATTENTION] * fields.num_layers
    first = fields.number("max_window_layers", fields.num_layers, least=0)
    return _given(fields) or [SLIDING if layer >= first else FULL_ATTENTION for layer in fields.layers]


def every(period: int, key: str = "sliding_window_pattern") -> Kinds:
    """Each period-th layer sees all tokens, and those between have the window (Gemma, gpt-oss, Command R7B)."""

    def kinds(fields: Fields) -> Sequence[str]:
        pattern = fields.value(key, period)
        if isinstance(pattern, str) and pattern and set(pattern) <= {"L", "G"}:
            local = [pattern[layer % len(pattern)] == "L" for layer in fields.layers]
        else:
            length = fields.number(key, period)
            local = [(layer + 1) % length != 0 for layer in fields.layers]
        given = _given(fields)
        if given is None and not _window(fields):
            return [FULL_ATTENTION] * fields.num_layers
        return given or [SLIDING if is_local else FULL_ATTENTION for is_local in local]

    return kinds


def without_rotary_full(fields: Fields) -> Sequence[str]:
    """Layers without rotary embeddings see all tokens, the others a chunk (Llama 4)."""
    period = fields.number("no_rope_layer_interval", 4)
    rotary = fields.value("no_rope_layers") or None
    if rotary is not None:
        rotary = fields.listed("no_rope_layers", (0, 1))
    is_rotary = rotary or [int((layer + 1) % period != 0) for layer in fields.layers]
    given = _given(fields, (FULL_ATTENTION, CHUNKS))
    if fields.optional("attention_chunk_size") is None:
        return [FULL_ATTENTION] * fields.num_layers
    return given or [CHUNKS if rotates else FULL_ATTENTION for rotates in is_rotary]


def tokens_of(fields: Fields, kind: str) -> int | None:
    """Tokens of a kind's window or chunk; None where it sees all.

    Raises:
        ValueError: it has one, and its size is not given.
    """
    key = TOKENS_KEY.get(kind)
    if key is None:
        return None
    return fields.optional(key) or fields.number(key)


def _window(fields: Fields) -> int | None:
    return fields.optional("sliding_window")


def _given(fields: Fields, allowed: Sequence[str] = (FULL_ATTENTION, SLIDING)) -> Sequence[str] | None:
    found = fields.listed("layer_types", allowed)
    return found and [FULL_ATTENTION if kind == "attention" else kind for kind in found]
