"""Layers that hold K and V of tokens, by heads in groups."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kvbench.model.groups import LayerGroup
from kvbench.model.published.fields import Fields
from kvbench.model.published.pieces import AlikeLayers, Weights, matrix, vector
from kvbench.model.published.windows import FULL_ATTENTION, KIND_OF, Kinds, all_full, tokens_of
from kvbench.model.weights import COLUMNS, KV_HEADS, REPLICATED

Part = Callable[[Fields], Iterable[AlikeLayers]]
"""One part of all layers: what attends, what feeds forward, what normalises."""

Switch = str | bool
"""Whether a model has something: always, never, or where a key of its configuration says so."""


def is_on(fields: Fields, switch: Switch, default: bool = False) -> bool:
    """What a switch says of a model."""
    return switch if isinstance(switch, bool) else fields.flag(switch, default)


@dataclass(frozen=True)
class Heads:
    """Heads of a layer and their widths.

    Args:
        num_heads: of queries.
        num_kv_heads: of K and V.
        key_dim: of a head's query and key.
        value_dim: of a head's value.
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int

    def group(self, fields: Fields, kind: str, layers: tuple[int, ...]) -> LayerGroup:
        """What such layers hold."""
        return LayerGroup(
            kind=KIND_OF[kind],
            layers=layers,
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
            tokens=tokens_of(fields, kind),
        )


def heads_of(fields: Fields, kind: str = FULL_ATTENTION) -> Heads:
    """Heads by the keys that most families have.

    Raises:
        ValueError: they contradict each other.
    """
    num_heads = fields.number("num_attention_heads")
    num_kv_heads = fields.number("num_key_value_heads", num_heads)
    if num_heads % num_kv_heads:
        raise ValueError(
            f"{fields.where}: num_attention_heads is a multiple of num_key_value_heads, got {num_heads} and "
            f"{num_kv_heads}"
        )
    head_dim = fields.value("head_dim")
    if head_dim is None and fields.hidden % num_heads:
        raise ValueError(
            f"{fields.where}: without head_dim hidden_size is a multiple of num_attention_heads, got {fields.hidden} "
            f"and {num_heads}"
        )
    head_dim = fields.number("head_dim", fields.hidden // num_heads)
    return Heads(num_heads, num_kv_heads, head_dim, fields.number("v_head_dim", head_dim))


def numbers_by_kind(kinds: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The numbers of the layers of each kind."""
    return {kind: tuple(n for n, own in enumerate(kinds) if own == kind) for kind in dict.fromkeys(kinds)}


def attention(
    *,
    bias: Switch = False,
    out_bias: Switch | None = None,
    qk_norm: str = "",
    has_qk_norm: Switch = True,
    kinds: Kinds = all_full,
    heads: Callable[[Fields, str], Heads] = heads_of,
    sinks: Switch | Mapping[str, Switch] = False,
    has_gate: bool = False,
    names: str = "self_attn",
) -> Part:
    """Attention with heads in groups.

    Args:
        bias: whether queries, keys and values have one; a key that is absent says no, unless the class says yes.
        out_bias: whether the product after attention has one; None is as bias.
        qk_norm: of queries and keys: "head" is one of a head's width for all, "heads" one a head, "width" one of all
            heads' width, "norm" one of a head's width with a bias; "" is none.
        has_qk_norm: whether that is there.
        kinds: which layers have a window, and which a chunk; those of other kinds do not attend so.
        heads: by kind of layer.
        sinks: whether each head has one; a mapping says it by kind of layer.
        has_gate: whether queries come with a gate as wide as they are.
        names: the module's path.
    """

    def part(fields: Fields) -> Iterator[AlikeLayers]:
        for kind, numbers in numbers_by_kind(kinds(fields)).items():
            if kind not in KIND_OF:
                continue
            own = heads(fields, kind)
            blocks = [
                *products(fields.hidden, own, names, is_on(fields, bias), 2 if has_gate else 1),
                *matrix(
                    "attention",
                    f"{names}.o_proj",
                    own.num_heads * own.value_dim,
                    fields.hidden,
                    bias=is_on(fields, bias if out_bias is None else out_bias),
                    bias_split=REPLICATED,
                ),
            ]
            if qk_norm and is_on(fields, has_qk_norm):
                blocks += norms_of_heads(own, qk_norm)
            if is_on(fields, sinks.get(kind, False) if isinstance(sinks, Mapping) else sinks):
                blocks.append(vector("sinks", own.num_heads, COLUMNS))
            yield AlikeLayers(numbers=numbers, blocks=tuple(blocks), group=own.group(fields, kind, numbers))

    return part


def products(hidden: int, own: Heads, names: str, bias: bool, times: int = 1) -> Iterator[Weights]:
    """Those that give queries (with a gate as wide where `times` is 2), keys and values."""
    query, key, value = (
        own.num_heads * own.key_dim * times,
        own.num_kv_heads * own.key_dim,
        own.num_kv_heads * own.value_dim,
    )
    yield from matrix("attention", f"{names}.q_proj", hidden, query, bias=bias)
    yield from matrix("attention", f"{names}.k_proj", hidden, key, bias=bias, split=KV_HEADS)
    yield from matrix("attention", f"{names}.v_proj", hidden, value, bias=bias, split=KV_HEADS)


def norms_of_heads(own: Heads, form: str) -> Iterator[Weights]:
    """Norms of queries and keys, as `attention` names their forms."""
    if form in ("head", "norm"):
        yield vector("norms", own.key_dim * (4 if form == "norm" else 2))
    else:
        yield vector("norms", own.num_heads * own.key_dim, COLUMNS)
        yield vector("norms", own.num_kv_heads * own.key_dim, KV_HEADS)
