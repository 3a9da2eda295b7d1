"""Nemotron whose blocks were searched one by one: each with its own heads and width, or with nothing in a place."""

from collections.abc import Iterator, Mapping
from typing import Any

from kvbench.messages import cut
from kvbench.model.published.attention import Heads, products
from kvbench.model.published.family import Family
from kvbench.model.published.feed_forward import dense_blocks
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, matrix, vector
from kvbench.model.published.windows import FULL_ATTENTION

WIDTH_STEP = 256
NOT_READ = ("window_length", "num_sink_tokens", "sparsify", "unshifted_sink", "use_prefill_window_in_sink_attention")
NO_OP, LINEAR, HEADS, WIDTH = "no_op", "replace_with_linear", "n_heads_in_group", "ffn_mult"


def _blocks(fields: Fields, place: str) -> list[Mapping[str, Any]]:
    """What each block has in a place: "attention" or "ffn"."""
    found = fields.value("block_configs")
    if not isinstance(found, list) or len(found) != fields.num_layers:
        raise fields.refused("block_configs", f"a list of {fields.num_layers} mappings, one a layer", found)
    places: list[Any] = [block.get(place) if isinstance(block, Mapping) else None for block in found]
    if not all(isinstance(each, Mapping) for each in places):
        raise fields.refused("block_configs", f"a list of mappings with a mapping {place} each", found)
    return places


def _by_form(places: list[Mapping[str, Any]], size: str) -> dict[tuple[str, Any], tuple[int, ...]]:
    """Layers alike: by what is in the place, and its size."""
    found: dict[tuple[str, Any], list[int]] = {}
    for number, each in enumerate(places):
        form = NO_OP if each.get(NO_OP) else LINEAR if each.get(LINEAR) else size
        value = each.get(size) if form == size else None
        found.setdefault((form, value if isinstance(value, int | float) else str(value)), []).append(number)
    return {form: tuple(numbers) for form, numbers in found.items()}


def _linear(hidden: int, module: str) -> tuple[Weights, ...]:
    return (*matrix("feed_forward", module, hidden, hidden), vector("norms", hidden))


def _attention(fields: Fields) -> Iterator[AlikeLayers]:
    places = _blocks(fields, "attention")
    for each in places:
        for key in NOT_READ:
            if each.get(key):
                raise ValueError(
                    f"{fields.where}: attention.{key} of a block may change its cache, and is not understood, got "
                    f"{cut(repr(each[key]))}"
                )
    num_heads = fields.number("num_attention_heads")
    fields.value("num_key_value_heads")
    head_dim = fields.number("head_dim", max(fields.hidden // num_heads, 1))
    for (form, size), numbers in _by_form(places, HEADS).items():
        if form == LINEAR:
            yield AlikeLayers(numbers=numbers, blocks=_linear(fields.hidden, "self_attn.linear_attn"))
        elif form == HEADS:
            if type(size) is not int or size < 1 or num_heads % size:
                raise fields.refused(f"attention.{HEADS} of a block", f"a divisor of {num_heads} heads", size)
            own = Heads(num_heads, num_heads // size, head_dim, head_dim)
            blocks = (
                *products(fields.hidden, own, "self_attn", fields.flag("attention_bias")),
                *matrix("attention", "self_attn.o_proj", num_heads * head_dim, fields.hidden),
                vector("norms", fields.hidden),
            )
            yield AlikeLayers(numbers=numbers, blocks=blocks, group=own.group(fields, FULL_ATTENTION, numbers))


def _feed_forward(fields: Fields) -> Iterator[AlikeLayers]:
    fields.value("intermediate_size")
    for (form, size), numbers in _by_form(_blocks(fields, "ffn"), WIDTH).items():
        if form == LINEAR:
            yield AlikeLayers(numbers=numbers, blocks=_linear(fields.hidden, "mlp.linear_mlp"))
        elif form == WIDTH:
            if type(size) not in (int, float) or not 0 < size < fields.hidden:
                raise fields.refused(f"ffn.{WIDTH} of a block", "a number above 0", size)
            exact = int(2 * size * fields.hidden / 3)
            width = fields.wide(-(-exact // WIDTH_STEP) * WIDTH_STEP)
            blocks = (*dense_blocks(fields.hidden, width, fields.flag("mlp_bias")), vector("norms", fields.hidden))
            yield AlikeLayers(numbers=numbers, blocks=blocks)


NEMOTRON_NAS = Family(parts=(_attention, _feed_forward), listing=("block_configs",))
