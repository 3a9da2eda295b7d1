"""A family of models: its layers' parts, and what its class takes where a configuration is silent."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kvbench.model.published.attention import Part, Switch, is_on
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import Weights, vector
from kvbench.model.weights import EMBEDDING, HEAD


def nothing_else(_: Fields) -> Iterable[Weights]:
    """No parameters but those of embedding, layers, last norm and head."""
    return ()


@dataclass(frozen=True, kw_only=True)
class Family:
    """How a model_type's configuration is read.

    Args:
        parts: of its layers: each gives blocks and groups of layers.
        defaults: what its class takes for keys that are absent. A number of layers is not among them.
        aliases: other names of its keys.
        norm_bias: whether the last norm has a bias.
        outside: other parameters outside the layers.
        max_tokens: the key of the longest context.
        listing: keys with an item a layer, whose length is the number of layers where that is absent.
        assumed: what a reader should know was taken for granted.
    """

    parts: tuple[Part, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    norm_bias: Switch = False
    outside: Callable[[Fields], Iterable[Weights]] = nothing_else
    max_tokens: str = "max_position_embeddings"
    listing: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    def around(self, fields: Fields) -> Iterator[Weights]:
        """What lies outside the layers: embedding, last norm, head where it is not the embedding again."""
        vocabulary, hidden = fields.number("vocab_size"), fields.hidden
        table = Weights(
            part="embedding", module="embed_tokens", num_parameters=vocabulary * hidden, inputs=hidden, kind=EMBEDDING
        )
        yield table
        yield vector("norms", hidden * (2 if is_on(fields, self.norm_bias) else 1))
        if not fields.flag("tie_word_embeddings"):
            yield replace(table, part="head", module="lm_head", kind=HEAD)
        yield from self.outside(fields)
