"""Bytes of one group of layers in an area."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GroupCost:
    """A group's bytes in an area, for a batch of so many rows.

    Layers with a window or chunks hold the slots of the last tokens only, and reuse them from the oldest on. Once there
    are as many as they hold at most, they neither grow nor move.

    Args:
        name: the group's, by its kind.
        num_layers: of the group.
        unit_bytes: bytes of the area's unit of slots, over all layers, rows and tracks.
        tensor_bytes: those of them in the largest tensor, as the model gives it.
        most_tokens: slots that a layer holds at most; None: as many as there are.
        is_chunked: whether it begins anew with every so many tokens, rather than letting go of them one by one.
        is_state: whether a unit is a state, of as many bytes whatever tokens are behind it.
    """

    name: str
    num_layers: int
    unit_bytes: int
    tensor_bytes: int
    most_tokens: int | None = None
    is_chunked: bool = False
    is_state: bool = False

    def held_tokens(self, num_tokens: int) -> int:
        """Slots that a layer holds, of so many."""
        return num_tokens if self.most_tokens is None else min(num_tokens, self.most_tokens)

    def passing_bytes(self, num_used: int, num_tokens: int) -> int:
        """Bytes that an append holds beside: one layer's old tokens and new ones, where some of them are not to stay.

        The first of the new tokens looks at what the last of them takes the place of: at all but one of a window.
        """
        if self.most_tokens is None or num_tokens == 1 or self.is_state:
            return 0
        num_old = num_used % self.most_tokens if self.is_chunked else min(num_used, self.most_tokens - 1)
        if num_old + num_tokens <= self.most_tokens:
            return 0
        return (num_old + num_tokens) * self.unit_bytes // self.num_layers

    def block_bytes(self, num_used: int, block_tokens: int) -> int:
        """Bytes of the blocks that tokens of a window, or of the newest chunk, are in; 0 where all tokens are held."""
        if self.most_tokens is None or not num_used:
            return 0
        chunk = (num_used - 1) // self.most_tokens * self.most_tokens
        first = chunk if self.is_chunked else max(num_used - self.most_tokens, 0)
        return (-(-num_used // block_tokens) - first // block_tokens) * block_tokens * self.unit_bytes

    def most_block_bytes(self, num_tokens: int, block_tokens: int) -> int:
        """The most of `block_bytes`, of so many tokens and fewer."""
        if self.most_tokens is None:
            return 0
        most = (self.most_tokens + block_tokens - 2) // block_tokens + 1  # a window that begins within a block
        return min(most, -(-num_tokens // block_tokens)) * block_tokens * self.unit_bytes

    def is_replaced(self, capacity: int) -> bool:
        """Whether a resize from or to so many slots, and as many or more, replaces its tensors."""
        return self.most_tokens is None or capacity < self.most_tokens
