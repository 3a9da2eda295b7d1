"""Any strategy as a cache of a Hugging Face model."""

from copy import deepcopy

from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from kvbench.backend.storage.casting import check_held
from kvbench.integrations.figures import Figures
from kvbench.integrations.fitting import check_fits, holds_windows
from kvbench.integrations.hybrids import hybrid_of
from kvbench.integrations.latents import check_stores, latents_of
from kvbench.integrations.layerwise import Layerwise
from kvbench.integrations.shape import context_of, geometry_of, windowed
from kvbench.integrations.transformers.layer import KVBenchLayer
from kvbench.integrations.transformers.shared import Shared
from kvbench.integrations.transformers.state_layer import KVBenchStates
from kvbench.ledger import Ledger
from kvbench.ledger.costs import as_held
from kvbench.messages import unknown
from kvbench.model.dtypes import kv_dtype as named
from kvbench.model.geometry import KVGeometry
from kvbench.strategy.base import Strategy

ORIGINAL, COMPACTED = POSITIONS = ("original", "compacted")


class KVBenchCache(Cache):
    """Hold a model's K and V as a strategy says; to be given to `model.generate` or `model` as `past_key_values`.

    It is the measured backend's storage and ledger, a batch a cache. Strategies that evict, or rank by attention mass,
    need `use_attention(model)` first; the others work with any attention too. Layers with a window or in chunks hold no
    more tokens than that has: a strategy that packs, evicts or moves slots, or takes blocks, decides over the layers
    that see all tokens, and its budget is theirs. Of models with latent attention (DeepSeek V2 and V3, Kimi K2) the
    latent and its rotary part are held, under strategies that store all tokens. Of hybrid models (Qwen3-Next and 3.5,
    Jamba, Bamba, Granite 4, Nemotron-H) the strategy has the layers with K and V; states are held beside, a constant a
    row that is booked with the first step. What a strategy leaves to a run (its longest sequence, a pool's size) is the
    model's context; a pool is within the budget.

    Args:
        strategy: what decides; it is copied.
        config: the model's.
        budget_bytes: the most that may be held on the device; None: no limit.
        num_output_tokens: tokens that will follow the prompt, for strategies that ask for a request's length.
        kv_dtype: fp8_e4m3, fp8_e5m2 or int8, which what is held as the model gives it is cast to; None: not at all.
        positions: "original", or "compacted", StreamingLLM's: what is kept lies side by side, without gaps.
    Raises:
        ValueError: the model has layers of another kind, the strategy holds nothing between steps, has no room for
            such heads or does more than store latents, nothing is cast to that dtype, or positions cannot be compacted.
    """

    def __init__(
        self,
        strategy: Strategy,
        config: PreTrainedConfig,
        *,
        budget_bytes: int | None = None,
        num_output_tokens: int = 0,
        kv_dtype: str | None = None,
        positions: str = ORIGINAL,
    ) -> None:
        text_config = config.get_text_config(decoder=True)
        latents = latents_of(config, "float32")
        if latents is not None:
            check_stores(strategy, latents)
        geometry = latents or hybrid_of(config, "float32") or geometry_of(config, "float32")
        if latents is None and not geometry.state_bytes and holds_windows(strategy):
            geometry = windowed(geometry, text_config)
        if kv_dtype is not None:
            geometry = geometry.held_in(named(kv_dtype))
            check_held(geometry)
        check_fits(strategy, geometry, budget_bytes, context_of(text_config))
        if positions not in POSITIONS:
            raise ValueError(unknown("positions", positions, POSITIONS))
        is_compacted = positions == COMPACTED
        if is_compacted:
            if latents is not None:
                raise ValueError("positions='compacted' is for K and V as attention reads them, not for latents")
            _check_in_place(strategy, geometry)
        shared = Shared(deepcopy(strategy), text_config, geometry, budget_bytes, num_output_tokens, is_compacted)
        self._shared = shared
        holding = {layer for group in geometry.groups if group.holds_tokens for layer in group.layers}
        numbers = range(text_config.num_hidden_layers)
        super().__init__(
            layers=[KVBenchLayer(shared, each) if each in holding else KVBenchStates(shared, each) for each in numbers]
        )

    @property
    def strategy(self) -> Strategy:
        """The strategy; this batch's copy, once there is one."""
        return self._shared.strategy

    @property
    def batch(self) -> Layerwise | None:
        """The batch: its ledger, and a store a layer; None before the first token."""
        return self._shared.batch

    @property
    def ledger(self) -> Ledger | None:
        """What is booked; None before the first token."""
        return None if self.batch is None else self.batch.ledger

    def figures(self) -> Figures:
        """Bytes and counts up to now; zeros before the first token."""
        return Figures(0, 0, 0, 0, 0) if self.batch is None else self.batch.figures()

    def close(self) -> None:
        """Let go of all that is held, and end background workers; the next tokens begin anew."""
        self._shared.close()
        for layer in self.layers:
            layer.reset()

    def __deepcopy__(self, memo: dict[int, object]) -> "KVBenchCache":
        raise TypeError("a KVBenchCache is not copied; batch_repeat_interleave() goes on with a prompt several times")


def _check_in_place(strategy: Strategy, geometry: KVGeometry) -> None:
    """Refuse positions of its own for what is read through staging buffers.

    Raises:
        ValueError: it is.
    """
    staged = [area.name for area in as_held(strategy.areas, geometry) if area.is_staged]
    if staged:
        raise ValueError(
            f"positions='compacted' is for caches that attention reads in place; {type(strategy).__name__} stages "
            f"{', '.join(staged)}"
        )
