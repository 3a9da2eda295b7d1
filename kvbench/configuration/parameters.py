"""What a model's parameters are taken to be where no more is said than how many there are."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kvbench.checks import check_int
from kvbench.model.groups import LATENT, STATE, LayerGroup
from kvbench.model.weights import BODY, COLUMNS, EMBEDDING, EXPERTS, KV_HEADS, Product, WeightPart

PARAMETERS = ("num_parameters", "num_active_parameters")
ASSUMED = (
    "its parameters' products: attention's by its heads, all others a gated feed-forward part's; say "
    "model.intermediate_size and model.vocab_size where they are known"
)
GATED = 3
"""Matrices of a feed-forward part: gate, up and down."""


def parts_of(keys: Mapping[str, Any], groups: Sequence[LayerGroup], num_layers: int) -> Iterator[WeightPart]:
    """Parameters by the products that they are likely to be; their sum is what was said.

    The vocabulary's table is the head too; attention has the matrices that its heads need; all else that a token needs
    is spread evenly over the layers, a gated feed-forward part each. What a token does not need are experts, each about
    as large as what it does need, of which it takes one. Latent attention and layers with a state have products that
    their sizes do not tell; theirs count as feed-forward's.

    Args:
        keys: of a model's file.
        groups: its layers.
        num_layers: all of them.
    Raises:
        ValueError: a number is out of its range.
    """
    total, active = (keys.get(key) for key in PARAMETERS)
    if total is None:
        return
    check_int("model.num_parameters", total, 1)
    check_int("model.hidden_size, where num_parameters is given,", keys.get("hidden_size"), 1)
    active = total if active is None else active
    check_int("model.num_active_parameters", active, 1)
    if active > total:
        raise ValueError(f"model.num_active_parameters is at most num_parameters ({total:,}), got {active:,}")
    hidden, rows = keys["hidden_size"], keys.get("vocab_size") or 0
    known = [*_table(hidden, rows), *(part for group in groups for part in _attention(group, hidden))]
    left = active - sum(part.total for part in known)
    if left < 0:  # it says less of itself than its sizes do
        known, left = [], active
    yield from known
    yield from _feed_forward(hidden, keys.get("intermediate_size") or 0, left, total - active, num_layers)


def _table(hidden: int, rows: int) -> Iterator[WeightPart]:
    if rows:
        table = Product("embed_tokens", hidden, rows)
        yield WeightPart(name="embedding", kind=EMBEDDING, num_parameters=hidden * rows, products=(table,))


def _attention(group: LayerGroup, hidden: int) -> Iterator[WeightPart]:
    if group.kind in (STATE, LATENT):
        return
    query, value = group.num_heads * group.key_dim, group.num_heads * group.value_dim
    own = (Product("self_attn.q_proj", hidden, query), Product("self_attn.o_proj", value, hidden))
    shared = (
        Product("self_attn.k_proj", hidden, group.num_kv_heads * group.key_dim),
        Product("self_attn.v_proj", hidden, group.num_kv_heads * group.value_dim),
    )
    for products, split in ((own, COLUMNS), (shared, KV_HEADS)):
        if count := sum(each.inputs * each.outputs for each in products):
            yield WeightPart(
                name="attention", kind=BODY, num_parameters=count, layers=group.layers, split=split, products=products
            )


def _feed_forward(hidden: int, width: int, needed: int, others: int, num_layers: int) -> Iterator[WeightPart]:
    """What is left of those that a token needs, and those that it does not."""
    layers = tuple(range(num_layers))
    each, rest = divmod(needed, num_layers)
    beside, odd = divmod(others, num_layers)
    if each and beside:
        num_untaken = max(1, round(beside / each))
        size = min(each, beside // num_untaken)
        each, odd = each - size, odd + (beside - num_untaken * size) * num_layers
        yield WeightPart(
            name="experts",
            kind=EXPERTS,
            num_parameters=size,
            layers=layers,
            num_experts=1 + num_untaken,
            products=_gated("mlp.experts.0", hidden, size // (GATED * hidden)),
        )
    elif beside:
        odd = others
    if each:
        fits = GATED * hidden * width <= each and width
        products = _gated("mlp", hidden, width if fits else each // (GATED * hidden))
        yield WeightPart(name="parameters", kind=BODY, num_parameters=each, layers=layers, products=products)
    if rest:
        yield WeightPart(name="parameters", kind=BODY, num_parameters=rest)
    if odd:
        yield WeightPart(name="parameters", kind=EXPERTS, num_parameters=odd, num_active=0)


def _gated(names: str, hidden: int, width: int) -> tuple[Product, ...]:
    sizes = {"gate_proj": (hidden, width), "up_proj": (hidden, width), "down_proj": (width, hidden)}
    return tuple(Product(f"{names}.{name}", *size) for name, size in sizes.items()) if width else ()
