"""What all layers of a cache share: the batch, how its tokens are arranged, and what is refused."""

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig

from kvbench.integrations.hybrids import computed_in
from kvbench.integrations.layerwise import Layerwise
from kvbench.integrations.shape import context_of
from kvbench.integrations.states import States
from kvbench.integrations.transformers.arrangement import Arrangement
from kvbench.integrations.transformers.attention import ATTENTION
from kvbench.integrations.transformers.rotation import frequencies
from kvbench.ledger import LedgerError
from kvbench.model.geometry import KVGeometry
from kvbench.plan.ops import NOTHING, Plan
from kvbench.strategy.base import Strategy

USE_ATTENTION = "call kvbench.integrations.transformers.use_attention(model) first"
"""What helps where the model's own attention cannot read a cache."""


class Shared:
    """The batch of a cache; layers know it and not the cache, so that a cache that is dropped is freed at once.

    Args:
        strategy: what decides.
        config: the text model's.
        geometry: the model's, in whatever dtype.
        budget_bytes: the most that may be held on the device; None: no limit.
        num_output_tokens: tokens that will follow the first append.
        is_compacted: whether what is kept is read as if it lay side by side.
    """

    def __init__(
        self,
        strategy: Strategy,
        config: PreTrainedConfig,
        geometry: KVGeometry,
        budget_bytes: int | None,
        num_output_tokens: int,
        is_compacted: bool,
    ) -> None:
        self._given = strategy
        self._config = config
        self._geometry = geometry
        self._budget_bytes = budget_bytes
        self._num_output_tokens = num_output_tokens
        self._is_compacted = is_compacted
        self.batch: Layerwise | None = None
        self.arrangement: Arrangement | None = None
        self.unarranged: Arrangement
        self.angles: Tensor | None = None
        self.truncation: Plan = NOTHING
        self.states = States(geometry)
        self._coming: int | None = None

    @property
    def strategy(self) -> Strategy:
        """The strategy; this batch's copy, once there is one."""
        return self._given if self.batch is None else self.batch.strategy

    @property
    def called(self) -> str:
        """What messages call the model."""
        return self._geometry.called

    def place_of(self, layer: int) -> int:
        """Which layer of those that hold tokens a layer of the model is."""
        held = (number for group in self._geometry.groups if group.holds_tokens for number in group.layers)
        return sorted(held).index(layer)

    def window_of(self, layer: int) -> int | None:
        """Tokens that a layer holds at most; None: all."""
        return next(group.tokens for group in self._geometry.groups if layer in group.layers)

    @property
    def live(self) -> tuple[Layerwise, Arrangement]:
        """The batch, and how its tokens are arranged, once the first are there."""
        assert self.batch is not None
        assert self.arrangement is not None
        return self.batch, self.arrangement

    @property
    def uses_own_attention(self) -> bool:
        """Whether the model attends by kvbench's attention; latents are not what it attends over."""
        return bool(self._config._attn_implementation == ATTENTION) and not self._holds_latents

    @property
    def _holds_latents(self) -> bool:
        (group, *_) = self._geometry.groups
        return group.key_dim != group.value_dim

    def initialize(self, keys: Tensor, values: Tensor) -> None:
        """Make the batch from its first tokens, unless there is one of that kind from before a reset."""
        if self.batch is not None and (self.batch.sequences or _is_of_its_kind(self.batch, keys, values)):
            return
        if self._holds_latents:
            self._check_latents(keys, values)
        elif keys.shape != values.shape:
            raise ValueError(f"keys and values have one shape, got {tuple(keys.shape)} and {tuple(values.shape)}")
        self._make(keys)

    def _make(self, given: Tensor) -> None:
        """Make the batch for rows, dtype and device of what is given first."""
        geometry = computed_in(self._geometry, str(given.dtype).removeprefix("torch."))
        if self._is_compacted:
            self.angles = frequencies(self._config, geometry.groups[0].head_dim, given.device)
        if self.batch is not None:
            self.batch.close()
        self.batch = Layerwise(
            self._given,
            geometry,
            given.shape[0],
            given.device,
            self._budget_bytes,
            self._num_output_tokens,
            context_of(self._config),
            self.states,
        )
        self.arrangement, self.unarranged = (
            Arrangement(self.batch.strategy, given.shape[0], not self._is_compacted) for _ in range(2)
        )

    def begin_with_states(self, inputs: Tensor, has_begun: bool) -> None:
        """Begin the first step of a batch, where a layer with a state comes before those with K and V.

        Args:
            inputs: of its convolution, [num_rows, channels, num_tokens].
            has_begun: whether the layer has taken tokens before.
        Raises:
            OutOfMemory: the step does not fit; nothing is held then.
            ValueError: they are of other rows, dtype or device than what is held, or gradients are asked for.
            StepFailed: the step before was not carried out in every layer.
        """
        check_without_gradients(inputs)
        batch = self.batch
        if batch is None or not batch.sequences:
            if batch is None or not _is_of_rows(batch, inputs):
                self._make(inputs)
            if not self.uses_own_attention:
                self.check_whole()
            self.live[0].begin_early(inputs.shape[2])
        elif not _is_of_rows(batch, inputs):
            raise ValueError(
                f"the cache holds states of {batch.num_rows} rows, {batch.geometry.dtype} on {batch.device}; got "
                f"{inputs.shape[0]}, {inputs.dtype} on {inputs.device}; reset() begins with another batch"
            )
        elif has_begun:
            batch.check_arrived()

    def _check_latents(self, keys: Tensor, values: Tensor) -> None:
        """Refuse K and V of all heads where a latent is expected.

        Raises:
            ValueError: they are not a latent and its rotary part.
        """
        (group, *_) = self._geometry.groups
        got = [(each.shape[1], each.shape[3]) for each in (keys, values)]
        if got != [(1, group.key_dim), (1, group.value_dim)]:
            raise ValueError(
                f"{self._geometry.called}: expected is a latent of {group.key_dim} and a rotary part of "
                f"{group.value_dim} a token, got K of {got[0][0]} heads of {got[0][1]} and V of {got[1][0]} of "
                f"{got[1][1]}: transformers {transformers.__version__} hands K and V over that are made of the latent; "
                "5.17 and later hand over the latent itself"
            )

    def check(self, keys: Tensor, values: Tensor) -> None:
        """Refuse new tokens that do not go with those that are held.

        Raises:
            ValueError: they are of other rows, heads or sizes, of another dtype, or on another device, or gradients are
                asked for.
        """
        check_without_gradients(keys)
        batch, _ = self.live
        group = batch.geometry.groups[0]
        for tensor, width in ((keys, group.key_dim), (values, group.value_dim)):
            if not _is_of_width(batch, tensor, width):
                raise ValueError(
                    f"the cache holds {batch.num_rows} rows, {group.num_kv_heads} KV heads of "
                    f"{width}, {batch.geometry.dtype} on {batch.device}; got "
                    f"{tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}; reset() begins with another batch, and "
                    "all layers are on one device"
                )

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
            f"{name} {reason}; {USE_ATTENTION} "
            f"(the configuration that the cache was made with says {self._config._attn_implementation!r})"
        )

    def expect(self, layer: int) -> None:
        """A layer's new tokens are on their way to kvbench's attention.

        Raises:
            RuntimeError: those of another never came there.
        """
        self.check_arrived()
        self._coming = layer

    def check_arrived(self) -> None:
        """Refuse to go on where a layer's new tokens did not reach kvbench's attention.

        Raises:
            RuntimeError: they did not.
        """
        if self._coming is not None:
            raise RuntimeError(
                f"the new keys of layer {self._coming} did not reach kvbench's attention as they were: the forward was "
                "interrupted, the model changes keys behind its cache, or it does not attend by 'kvbench' although the "
                "configuration that the cache was made with says so; reset() the cache"
            )

    def begin(self, mask: Tensor | None, num_tokens: int, num_seen: int) -> None:
        """Begin a step of all layers, under kvbench's attention.

        Args:
            mask: bool, [num_rows, 1 or num_heads, num_tokens, positions]; None: no padding.
            num_tokens: new ones.
            num_seen: those before them.
        Raises:
            ValueError: the mask is of another kind, or padding is where the strategy cannot tell it from tokens.
        """
        if mask is not None and mask.dtype != torch.bool:
            raise ValueError(f"kvbench's attention takes a mask of bools, got {mask.dtype}")
        batch, arrangement = self.live
        arrangement.begin(mask, num_tokens, num_seen)
        batch.begin(num_tokens)

    def arrived(self) -> None:
        """A layer's new tokens are there."""
        self._coming = None

    def reset(self) -> None:
        """Forget all tokens."""
        self._coming = None
        if self.batch is not None:
            self.batch.finish()

    def close(self) -> None:
        """Let go of all that is held, and end background workers."""
        self._coming = None
        if self.batch is not None:
            self.batch.close()
            self.batch = self.arrangement = None

    def book_rows(self, index: Tensor) -> None:
        """Book other rows for all layers, and order what is known of each row.

        Args:
            index: rows, each 0 or more and less than there are.
        """
        batch, arrangement = self.live
        batch.select_rows(index)
        arrangement.select_rows(index)

    def book_truncation(self, num_tokens: int) -> None:
        """Book for all layers that the newest tokens go.

        Raises:
            LedgerError: they are not the last ones that are held.
        """
        batch, arrangement = self.live
        places = arrangement.places
        if places is not None and batch.num_seen - num_tokens < places.shape[1]:
            raise LedgerError(
                "the first prompt's padding is held behind its first tokens, so that its last tokens cannot be cropped"
            )
        self.truncation = batch.book_truncation(num_tokens)


def check_without_gradients(given: Tensor) -> None:
    """Refuse to be trained through.

    Raises:
        ValueError: gradients are asked for.
    """
    if given.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            "a KVBenchCache is for inference, no gradients go through it: call the model under torch.no_grad()"
        )


def _is_of_rows(batch: Layerwise, given: Tensor) -> bool:
    is_alike = str(given.dtype) == f"torch.{batch.geometry.dtype}" and given.device == batch.device
    return given.shape[0] == batch.num_rows and is_alike


def _is_of_its_kind(batch: Layerwise, keys: Tensor, values: Tensor) -> bool:
    group = batch.geometry.groups[0]  # all have the same heads
    return _is_of_width(batch, keys, group.key_dim) and _is_of_width(batch, values, group.value_dim)


def _is_of_width(batch: Layerwise, tensor: Tensor, width: int) -> bool:
    _, heads, _, size = tensor.shape
    return (heads, size) == (batch.geometry.groups[0].num_kv_heads, width) and _is_of_rows(batch, tensor)
