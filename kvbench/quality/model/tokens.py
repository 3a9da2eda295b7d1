"""A text as a model's tokens."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

Encode = Callable[[str], Sequence[int]]

CHARACTERS_A_TOKEN = 16
"""More than a token of any common text has, so that no more of a long text is read than is needed."""


class Tokens(NamedTuple):
    """A text's tokens.

    Args:
        prefix: what the tokenizer puts before every text: its beginning-of-sequence token, or nothing.
        ids: the text's own.
    """

    prefix: tuple[int, ...]
    ids: tuple[int, ...]


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    """What turns pieces of text into tokens, without special ones."""
    return lambda text: tuple(tokenizer(text, add_special_tokens=False).input_ids)


def tokens_of(tokenizer: PreTrainedTokenizerBase, text: str, num_tokens: int) -> Tokens:
    """The beginning of a text.

    Args:
        tokenizer: the model's.
        text: any.
        num_tokens: that are needed; more may be given.
    """
    ids = encoder(tokenizer)(text[: CHARACTERS_A_TOKEN * num_tokens])
    beginning = tokenizer.bos_token_id
    with_special = tokenizer("a").input_ids
    return Tokens((beginning,) if beginning is not None and with_special[0] == beginning else (), tuple(ids))
