"""One layer with a state: what transformers asks of it, answered by the batch's tensors."""

from math import prod

import transformers
from torch import Tensor
from transformers.cache_utils import LinearAttentionLayer

from kvbench.integrations.states import NOT_TAKEN_BACK
from kvbench.integrations.transformers.shared import Shared


class KVBenchStates(LinearAttentionLayer):
    """The state of one layer; of a layer that holds nothing, none.

    What concerns all layers (other rows, a truncation) is done when the first layer with K and V is asked; the first
    step of a batch begins here, so that nothing is held that was not booked.

    Args:
        shared: what all layers of its cache know.
        number: which layer of the model.
    """

    is_compileable = False
    is_croppable = False  # a property there, and it asks what is held: what went into a state cannot be taken back

    def __init__(self, shared: Shared, number: int) -> None:
        super().__init__()
        self._shared = shared
        self._number = number
        self.conv_states, self.recurrent_states = shared.states.of(number)

    def update_conv_state(
        self, conv_states: Tensor, state_idx: int = 0, conv_kernel_size: int | None = None, **kwargs: object
    ) -> Tensor:
        """Take new tokens' inputs of the convolution.

        Args:
            conv_states: [num_rows, channels, num_tokens].
            state_idx: 0.
            conv_kernel_size: inputs that are kept.
            kwargs: nothing that is read.
        Returns:
            Those that were kept, if any, and the new ones.
        Raises:
            OutOfMemory: it is the first step, and the step does not fit.
            CapacityExceeded: likewise, and the strategy cannot hold so much.
            ValueError: they are of another batch or kind than is held, or transformers is too old.
        """
        if conv_kernel_size is None:
            raise ValueError(
                f"{self._shared.called}: transformers {transformers.__version__} does not say how many new tokens come "
                "to a layer with a state; 5.17 and later do"
            )
        self._shared.begin_with_states(conv_states, self.has_previous_state[0])
        return super().update_conv_state(conv_states, state_idx, conv_kernel_size, **kwargs)

    def lazy_initialization(
        self,
        conv_states: Tensor | None = None,
        recurrent_states: Tensor | None = None,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
    ) -> None:
        """Find the batch's tensors to be what the model keeps."""
        if conv_states is not None:
            assert conv_kernel_size is not None  # or `update_conv_state` has refused it
            self.conv_kernel_size[state_idx] = conv_kernel_size
            size = (*conv_states.shape[:-1], conv_kernel_size)
            self._fit(self.conv_states, "convolution", size, conv_states)
            self.is_conv_states_initialized[state_idx] = True
        if recurrent_states is not None:
            self._fit(self.recurrent_states, "recurrent state", tuple(recurrent_states.shape), recurrent_states)
            self.is_recurrent_states_initialized[state_idx] = True

    def _fit(self, slot: dict[int, Tensor | None], what: str, size: tuple[int, ...], given: Tensor) -> None:
        """Look at what is held as the model does.

        Raises:
            ValueError: it is of another size, dtype or device.
        """
        held = slot[0]
        assert held is not None
        if (held.numel(), held.shape[0], held.dtype, held.device) != (
            prod(size),
            size[0],
            given.dtype,
            given.device,
        ):
            raise ValueError(
                f"layer {self._number}: a {what} of {tuple(held.shape)}, {held.dtype} on {held.device} is booked; the "
                f"model has {size}, {given.dtype} on {given.device}"
            )
        slot[0] = held.view(size)

    def reset(self) -> None:
        """Forget all tokens."""
        for said in (self.has_previous_state, self.is_conv_states_initialized, self.is_recurrent_states_initialized):
            said[0] = False

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Nothing: rows are chosen for all layers at once."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """Nothing: rows are chosen for all layers at once."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Nothing: rows are chosen for all layers at once."""

    def crop(self, tokens_to_remove: int | Tensor) -> None:
        """Nothing: where tokens are to be taken back, layers with K and V refuse it for all."""

    def activate_past_recording(self) -> None:
        """Refuse to keep what would be needed to take tokens back.

        Raises:
            ValueError: always.
        """
        raise ValueError(NOT_TAKEN_BACK)
