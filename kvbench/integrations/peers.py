"""Peers: transformers' own caches, counted as kvbench's are, so that one table holds both."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from transformers import Cache, DynamicCache, PreTrainedConfig, QuantizedCache, StaticCache
from transformers.cache_utils import CacheLayerMixin, DynamicLayer, StaticLayer

from kvbench.integrations.figures import Figures
from kvbench.integrations.peak_memory import PeakMemory, sizes_of
from kvbench.messages import unknown
from kvbench.strategy.base import CapacityExceeded

BACKENDS: dict[str, dict[str, Any]] = {
    "fp8": {"backend": "fp8"},
    "quanto_4bit": {"backend": "quanto", "nbits": 4},
    "quanto_2bit": {"backend": "quanto", "nbits": 2},
}
"""QuantizedCache's arguments; the rest are its own defaults. HQQ is none of them: it packs whole bytes only, so that
lengths which do not fill one fail."""
PEERS = ("dynamic", "static", *BACKENDS)
PACKAGES = {"quanto": "optimum-quanto", "fp8": "transformers>=5.14"}
GROUP = 64
PLAIN = (DynamicLayer, StaticLayer)
"""Layers whose updates replace K, then V, or write into both, and take no other memory worth counting."""


class Peer(NamedTuple):
    """A cache of transformers' and what it holds.

    Args:
        cache: pass it to a model as past_key_values.
        figures: what it holds and has held since it was made or reset.
    """

    cache: Cache
    figures: Callable[[], Figures]


def peer_of(name: str, config: PreTrainedConfig, max_tokens: int) -> Peer:
    """An empty cache of transformers' that counts what it holds.

    Held bytes are those of its storages, each once and whole: of K and V, packed bits, scales, zero points and the
    window that is not yet rounded; a sliding layer's view of the last tokens holds the whole tensor behind it. Peak
    bytes add what an update holds in passing: the old tensor beside its concatenation, K and V made whole again out of
    few bits, scratch of rounding (not that inside one operation). A resize is a step (one pass over the layers) that
    replaced a storage of tokens by another: every step but the first of a cache that concatenates, none of a static
    one. Attended tokens are those that the last token's attention read in the layer where it read most.

    Args:
        name: one of PEERS.
        config: the model's.
        max_tokens: what a static cache has room for, > 0; the others grow.
    Raises:
        ValueError: no such peer, or it is not to be had here.
        CapacityExceeded: from an update, where a static cache is full.
    """
    reason = why_not(name, config)
    if reason is not None:
        raise ValueError(reason)
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be > 0, got {max_tokens}")
    if name == "dynamic":
        cache: _Counted = _Dynamic(config=config)
    elif name == "static":
        cache = _Static(config=config, max_cache_len=max_tokens)
    else:
        cache = _Quantized(config=config, **_arguments(name, config))
    return Peer(cache, cache.figures)


def why_not(name: str, config: PreTrainedConfig | None = None) -> str | None:
    """Why a peer is not to be had here; None where it is.

    A backend is tried out once a process. Quanto's compiles its kernel when it runs for the first time on a machine,
    which takes a C++ compiler and about a minute.

    Args:
        name: one of PEERS.
        config: a model's, whose layers are judged too.
    Raises:
        ValueError: no such peer.
    """
    if name not in PEERS:
        raise ValueError(unknown("peer", name, PEERS))
    if name not in BACKENDS:
        return None
    if config is not None:
        try:
            QuantizedCache(config=config, **_arguments(name, config))
        except ValueError as error:
            return f"transformers {name}: {error}"
        except ImportError:
            pass  # told below, with what to install
    return _backend_fault(name)


@functools.cache
def _backend_fault(name: str) -> str | None:
    """What goes wrong when a backend rounds a few tokens; None if nothing does."""
    sizes: dict[str, Any] = {"num_hidden_layers": 1, "hidden_size": GROUP, "num_attention_heads": 1}
    config = PreTrainedConfig(**sizes)
    tokens = torch.ones(1, 1, 2, GROUP)
    try:
        cache = QuantizedCache(config=config, **_arguments(name, config))
        for _ in range(2):
            cache.update(tokens, tokens, 0)
    except ImportError as error:
        package = PACKAGES[BACKENDS[name]["backend"]]
        return f"transformers {name} needs {package}: {error}\n  install it: python -m pip install {package}"
    except Exception as error:  # a backend of others' compiles and loads code: whatever fails is the reason
        return f"transformers {name} does not work here: {type(error).__name__}: {error}"
    return None


def _arguments(name: str, config: PreTrainedConfig) -> dict[str, Any]:
    """QuantizedCache's arguments: groups of its default size where heads divide into them, smaller ones elsewhere."""
    arguments = BACKENDS[name]
    if arguments["backend"] == "fp8":
        return arguments
    text = config.get_text_config(decoder=True)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return {**arguments, "q_group_size": math.gcd(GROUP, head_dim)}


class _Counted(Cache):
    """Counts what a cache's layers hold, and what they hold in passing."""

    _held: list[int]
    _peak_bytes: int

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._start_counting()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As the cache's own. Nothing is counted in a compiled forward, where only a static cache can be."""
        if torch.compiler.is_compiling():
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        layer = self.layers[layer_idx]
        append = functools.partial(super().update, key_states, value_states, layer_idx, *args, **kwargs)
        before = sizes_of(vars(layer))
        if isinstance(layer, CacheLayerMixin) and type(layer) in PLAIN:
            old_values = sizes_of(layer.values)
            states = append()
            replaced = sum(old_values.values()) if sizes_of(layer.values) != old_values else 0
            passing_bytes = sum(sizes_of(vars(layer)).values()) + replaced
        else:
            with PeakMemory(vars(layer), (key_states, value_states)) as passing:
                states = append()
            passing_bytes = passing.peak_bytes
        after = sizes_of(vars(layer))
        self._peak_bytes = max(self._peak_bytes, sum(self._held) - self._held[layer_idx] + passing_bytes)
        self._held[layer_idx] = sum(after.values())
        self._count_resize(layer_idx, any(size and storage not in after for storage, size in before.items()))
        return states

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """As the cache's own."""
        self._pass_over(super().reorder_cache, beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        """As the cache's own."""
        self._pass_over(super().crop, tokens_to_remove)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """As the cache's own."""
        self._pass_over(super().batch_repeat_interleave, repeats)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """As the cache's own."""
        self._pass_over(super().batch_select_indices, indices)

    def reset(self) -> None:
        """As the cache's own; counting starts anew."""
        super().reset()
        self._start_counting()

    def figures(self) -> Figures:
        """What it holds and has held."""
        num_seen = int(self.get_seq_length())
        windows = [
            getattr(layer, "sliding_window", layer.max_cache_len if isinstance(layer, StaticLayer) else num_seen)
            for layer in self.layers
            if getattr(layer, "keys", None) is not None
        ]
        return Figures(
            sum(self._held), self._peak_bytes, self._num_resizes, num_seen, min(num_seen, max(windows, default=0))
        )

    def _pass_over(self, change: Callable[[Any], None], argument: Any) -> None:
        """Do something to all layers, and count what is held in passing."""
        with PeakMemory([vars(layer) for layer in self.layers], argument) as passing:
            change(argument)
        self._peak_bytes = max(self._peak_bytes, passing.peak_bytes)
        self._held = self._held_bytes()

    def _held_bytes(self) -> list[int]:
        return [sum(sizes_of(vars(layer)).values()) for layer in self.layers]

    def _start_counting(self) -> None:
        self._held = self._held_bytes()
        self._peak_bytes = sum(self._held)
        self._num_resizes = 0
        self._last_layer = len(self.layers)
        self._is_counted = False

    def _count_resize(self, layer_idx: int, replaced: bool) -> None:
        """Count a step once, whichever of its layers replaced a storage."""
        if layer_idx <= self._last_layer:
            self._is_counted = False
        self._last_layer = layer_idx
        if replaced and not self._is_counted:
            self._num_resizes += 1
            self._is_counted = True


class _Dynamic(_Counted, DynamicCache):
    """A DynamicCache that counts."""


class _Static(_Counted, StaticCache):
    """A StaticCache that counts, and says so when it is full."""

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As the cache's own.

        Raises:
            CapacityExceeded: the tokens do not fit.
        """
        if torch.compiler.is_compiling():
            return super().update(key_states, value_states, layer_idx, *args, **kwargs)
        layer = self.layers[layer_idx]
        if isinstance(layer, StaticLayer) and not layer.is_sliding:
            num_tokens = int(layer.get_seq_length()) + key_states.shape[-2]
            if num_tokens > layer.max_cache_len:
                raise CapacityExceeded(num_tokens, layer.max_cache_len)
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


class _Quantized(_Counted, QuantizedCache):
    """A QuantizedCache that counts."""
