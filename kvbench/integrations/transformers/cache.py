"""Any strategy as a cache of a Hugging Face model."""

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache

from kvbench.integrations.figures import Figures
from kvbench.integrations.layerwise import Layerwise, check_fits
from kvbench.integrations.shape import geometry_of
from kvbench.integrations.transformers.attention import ATTENTION
from kvbench.integrations.transformers.layer import KVBenchLayer
from kvbench.integrations.transformers.rotation import frequencies
from kvbench.integrations.transformers.sight import behind_the_first, is_padding
from kvbench.ledger import Ledger
from kvbench.naming import unknown
from kvbench.ops import NOTHING, Plan
from kvbench.strategy.base import Strategy

ORIGINAL, COMPACTED = POSITIONS = ("original", "compacted")


class KVBenchCache(Cache):
    """Hold a model's K and V as a strategy says; to be given to `model.generate` or `model` as `past_key_values`.

    It is the measured backend's storage and ledger, a batch a cache. Strategies that evict, or rank by attention mass,
    need `use_attention(model)` first; the others work with any attention too. Layers with a sliding window hold all
    tokens, and see their window.

    Args:
        strategy: what decides; it is copied.
        config: the model's.
        budget_bytes: the most that may be held on the device; None: no limit.
        num_output_tokens: tokens that will follow the prompt, for strategies that ask for a request's length.
        positions: "original", or "compacted", StreamingLLM's: what is kept lies side by side, without gaps.
    Raises:
        ValueError: the model has layers of another kind, the strategy holds nothing between steps or has no room for
            such heads, or positions cannot be compacted.
    """

    def __init__(
        self,
        strategy: Strategy,
        config: PreTrainedConfig,
        *,
        budget_bytes: int | None = None,
        num_output_tokens: int = 0,
        positions: str = ORIGINAL,
    ) -> None:
        self._config = config.get_text_config(decoder=True)
        self._geometry = geometry_of(config, "float32")
        check_fits(strategy, self._geometry)
        self._given = strategy
        self._budget_bytes = budget_bytes
        self._num_output_tokens = num_output_tokens
        if positions not in POSITIONS:
            raise ValueError(unknown("positions", positions, POSITIONS))
        self._is_compacted = positions == COMPACTED
        if self._is_compacted:
            _check_in_place(strategy)
        self.angles: Tensor | None = None
        self.batch: Layerwise | None = None
        self.places: Tensor | None = None
        self.truncation: Plan = NOTHING
        self._order: Tensor | None = None
        self._padding: Tensor | None = None
        super().__init__(layers=[KVBenchLayer(self, number) for number in range(self._config.num_hidden_layers)])

    @property
    def strategy(self) -> Strategy:
        """The strategy; this batch's copy, once there is one."""
        return self._given if self.batch is None else self.batch.strategy

    @property
    def ledger(self) -> Ledger | None:
        """What is booked; None before the first token."""
        return None if self.batch is None else self.batch.ledger

    def figures(self) -> Figures:
        """Bytes and counts up to now; zeros before the first token."""
        return Figures(0, 0, 0, 0, 0) if self.batch is None else self.batch.figures()

    @property
    def uses_own_attention(self) -> bool:
        """Whether the model attends by kvbench's attention."""
        return self._config._attn_implementation == ATTENTION

    def initialize(self, keys: Tensor, values: Tensor) -> None:
        """Make the batch from its first tokens, unless there is one of that kind from before a reset."""
        if self.batch is not None and (self.batch.sequences or self._is_of_its_kind(keys)):
            return
        if keys.shape != values.shape:
            raise ValueError(f"keys and values have one shape, got {tuple(keys.shape)} and {tuple(values.shape)}")
        geometry = replace(self._geometry, dtype=str(keys.dtype).removeprefix("torch."))
        if self._is_compacted:
            self.angles = frequencies(self._config, geometry.head_dim, keys.device)
        if self.batch is not None:
            self.batch.close()
        self.batch = Layerwise(
            self._given, geometry, keys.shape[0], keys.device, self._budget_bytes, self._num_output_tokens
        )

    def check(self, keys: Tensor, values: Tensor) -> None:
        """Refuse new tokens that do not go with those that are held.

        Raises:
            ValueError: they are of other rows, heads or sizes, of another dtype, or on another device, or gradients are
                asked for.
        """
        if keys.requires_grad and torch.is_grad_enabled():
            raise ValueError(
                "a KVBenchCache is for inference, no gradients go through it: call the model under torch.no_grad()"
            )
        for tensor in (keys, values):
            if not self._is_of_its_kind(tensor):
                batch = self.batch
                raise ValueError(
                    f"the cache holds {batch.num_rows} rows, {batch.geometry.num_kv_heads} KV heads of "
                    f"{batch.geometry.head_dim}, {batch.geometry.dtype} on {batch.device}; got {tuple(tensor.shape)}, "
                    f"{tensor.dtype} on {tensor.device}; reset() begins with another batch, and all layers are on one "
                    "device"
                )

    def _is_of_its_kind(self, tensor: Tensor) -> bool:
        batch = self.batch
        rows, heads, _, size = tensor.shape
        wanted = (batch.num_rows, batch.geometry.num_kv_heads, batch.geometry.head_dim)
        is_alike = str(tensor.dtype) == f"torch.{batch.geometry.dtype}" and tensor.device == batch.device
        return (rows, heads, size) == wanted and is_alike

    def check_whole(self) -> None:
        """Refuse a strategy that needs kvbench's attention where the model attends otherwise.

        Raises:
            RuntimeError: it needs it.
        """
        strategy = self.strategy
        if strategy.attends_all and not strategy.signals and not self._is_compacted:
            return
        name = type(strategy).__name__
        if strategy.signals:
            reason = f"is told of attention ({', '.join(strategy.signals)}), which a cache does not see"
        elif self._is_compacted:
            reason = "is read with positions of its own"
        else:
            reason = "evicts tokens, and one mask for all rows cannot say which"
        raise RuntimeError(
            f"{name} {reason}; call kvbench.integrations.transformers.use_attention(model) first "
            f"(the model attends by {self._config._attn_implementation!r})"
        )

    def arrange(self, mask: Tensor | None, num_tokens: int) -> None:
        """See to padding, before a lossy strategy takes new tokens.

        Padding's K and V become zeros, so that nothing ranks it high; what is padded on the left is held behind the
        first tokens, where the strategy keeps those.
        """
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"kvbench's attention takes a mask of bools, got {mask.dtype}")
        self._order = self._padding = None
        if not self.batch.num_seen:
            self.places = None
        if mask is None or self.strategy.lossless:
            return
        padding = is_padding(mask, num_tokens)
        if not padding.any():
            return
        if self._is_compacted:
            raise ValueError("positions='compacted' takes rows without padding")
        self._padding = padding
        num_first = self.strategy.num_first
        if num_first and self.batch.num_seen < num_first and padding[:, 0].any():
            if self.batch.num_seen:
                raise ValueError(
                    f"{type(self.strategy).__name__} keeps the first {num_first} tokens of each row, and padding comes "
                    "before them in several appends; append the prompt at once"
                )
            self.places = self._order = behind_the_first(padding, num_first)
            self._padding = padding.gather(1, self._order)

    def arranged(self, tensor: Tensor) -> Tensor:
        """A step's tokens (the third axis) in the order in which they are held; padding's K and V are zeros."""
        if self._order is not None:
            index = self._order.view(self._order.shape[0], 1, -1, 1)
            tensor = tensor.gather(2, index.expand(-1, tensor.shape[1], -1, tensor.shape[3]))
        if self._padding is not None and tensor.dtype != torch.bool:
            tensor = tensor.masked_fill(self._padding[:, None, :, None], 0)
        return tensor

    def as_they_came(self, output: Tensor) -> Tensor:
        """Attention's output, [num_rows, num_tokens, …], in the order in which the tokens came."""
        if self._order is None:
            return output
        index = self._order.argsort(dim=1).view(*self._order.shape, 1, 1)
        return output.gather(1, index.expand_as(output))

    def book_rows(self, index: Tensor) -> None:
        """Book other rows for all layers, and order what is known of each row."""
        self.batch.book_rows(len(index))
        if self.places is not None:
            self.places = self.places.index_select(0, index.to(self.places.device))

    def book_truncation(self, num_tokens: int) -> None:
        """Book for all layers that the newest tokens go."""
        self.truncation = self.batch.book_truncation(num_tokens)

    def close(self) -> None:
        """Let go of all that is held, and end background workers."""
        if self.batch is not None:
            self.batch.close()
            self.batch = None


def _check_in_place(strategy: Strategy) -> None:
    """Refuse positions of its own for what is read through staging buffers.

    Raises:
        ValueError: it is.
    """
    staged = [area.name for area in strategy.areas if area.is_staged]
    if staged:
        raise ValueError(
            f"positions='compacted' is for caches that attention reads in place; {type(strategy).__name__} stages "
            f"{', '.join(staged)}"
        )
