"""Padding in the batches of lossy strategies: held where it is the first to be evicted, and ranked last."""

import torch
from torch import Tensor

from kvbench.strategy.base import Strategy


class Arrangement:
    """In which order a batch's tokens are held, and which of a step's are padding.

    Of a left-padded row the first tokens are held before its padding where a strategy keeps those, so that it keeps the
    row's own. Padding's K and V become zeros, so that nothing ranks it high.

    Args:
        strategy: whose batch.
        num_rows: rows.
        takes_padding: whether rows may be padded at all.
    """

    def __init__(self, strategy: Strategy, num_rows: int, takes_padding: bool) -> None:
        self._strategy = strategy
        self._has_begun = [False] * num_rows
        self._takes_padding = takes_padding
        self.places: Tensor | None = None
        self._order: Tensor | None = None
        self._padding: Tensor | None = None

    def begin(self, mask: Tensor | None, num_tokens: int, num_seen: int) -> None:
        """See to a step's padding, before its tokens are taken.

        Args:
            mask: bool, [num_rows, 1 or num_heads, num_tokens, positions]; None: no padding.
            num_tokens: new tokens.
            num_seen: tokens before them.
        Raises:
            ValueError: padding that the strategy would take for tokens.
        """
        self._order = self._padding = None
        if not num_seen:
            self.places, self._has_begun = None, [False] * len(self._has_begun)
        if self._strategy.lossless:
            return
        if mask is None:
            self._has_begun = [True] * len(self._has_begun)
            return
        padding = is_padding(mask, num_tokens)
        before = torch.tensor(self._has_begun, device=padding.device)
        self._has_begun = (before | ~padding.all(dim=1)).tolist()
        if not padding.any():
            return
        self._check(padding, before)
        self._padding = padding
        num_first = self._strategy.num_first
        if num_first and num_seen < num_first and padding[:, 0].any():
            if num_seen:
                raise ValueError(
                    f"{self._name} keeps the first {num_first} tokens of each row, and padding comes before them in "
                    "several appends; append the prompt at once"
                )
            self.places = self._order = behind_the_first(padding, num_first)
            self._padding = padding.gather(1, self._order)

    @property
    def _name(self) -> str:
        return type(self._strategy).__name__

    def _check(self, padding: Tensor, has_begun: Tensor) -> None:
        if not self._takes_padding:
            raise ValueError("positions='compacted' takes rows without padding")
        leading = padding.long().cumprod(dim=1).bool() & ~has_begun.unsqueeze(1)
        if not self._strategy.attends_all and (padding & ~leading).any():
            raise ValueError(
                f"{self._name} would keep padding in place of tokens where it stands behind a row's own; pad the first "
                "prompt on its left, and append later turns without padding"
            )

    def tokens(self, tensor: Tensor) -> Tensor:
        """A step's tokens (the third axis) in the order in which they are held; padding's K and V are zeros."""
        if self._order is not None:
            index = self._order.view(self._order.shape[0], 1, -1, 1)
            tensor = tensor.gather(2, index.expand(-1, tensor.shape[1], -1, tensor.shape[3]))
        if self._padding is not None and tensor.dtype != torch.bool:
            tensor = tensor.masked_fill(self._padding[:, None, :, None], 0)
        return tensor

    def output(self, output: Tensor) -> Tensor:
        """Attention's output, [num_rows, num_tokens, …], in the order in which the tokens came."""
        if self._order is None:
            return output
        index = self._order.argsort(dim=1).view(*self._order.shape, 1, 1)
        return output.gather(1, index.expand_as(output))

    def select_rows(self, index: Tensor) -> None:
        """Go on with chosen rows."""
        if self.places is not None:
            self.places = self.places.index_select(0, index.to(self.places.device))
        self._has_begun = [self._has_begun[row] for row in index.tolist()]


def is_padding(mask: Tensor, num_tokens: int) -> Tensor:
    """Which new tokens are padding: those that may not look at themselves.

    Args:
        mask: as in `PositionMask`; its last positions are the new tokens'.
        num_tokens: how many are new.
    Returns:
        bool, [num_rows, num_tokens].
    """
    return ~mask[:, 0, :, -num_tokens:].diagonal(dim1=1, dim2=2)


def behind_the_first(padding: Tensor, num_first: int) -> Tensor:
    """An order of a left-padded append in which each row's first tokens come before its padding.

    A strategy that keeps the first tokens so keeps a row's own, and padding is the first of what it evicts.

    Args:
        padding: bool, [num_rows, num_tokens].
        num_first: tokens that it keeps, > 0.
    Returns:
        Where each stood, int64 [num_rows, num_tokens].
    Raises:
        ValueError: a row has fewer tokens.
    """
    num_padding = padding.long().cumprod(dim=1).sum(dim=1, keepdim=True)
    num_tokens = padding.shape[1]
    fewest = num_tokens - int(num_padding.max())
    if fewest < num_first:
        raise ValueError(
            f"the strategy keeps the first {num_first} tokens of each row, and the first append has a row of {fewest} "
            "beside its padding; append longer prompts at once"
        )
    slots = torch.arange(num_tokens, device=padding.device).expand_as(padding)
    early = torch.where(slots < num_first, slots + num_padding, slots - num_first)
    return torch.where(slots < num_first + num_padding, early, slots)
