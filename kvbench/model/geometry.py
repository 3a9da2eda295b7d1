"""What a model's layers hold of a sequence, group by group."""

from dataclasses import dataclass, replace

from kvbench.checks import check_int
from kvbench.messages import unknown
from kvbench.model.dtypes import DTYPE_BYTES
from kvbench.model.groups import FULL, LATENT, MOST_SIZE, WINDOW, LayerGroup, LayerGroups
from kvbench.model.model import Model

MOST_LAYERS = 2**16
MOST_TOKEN_BYTES = 2**40
"""Of one token over all layers; the largest models have some megabytes."""


@dataclass(frozen=True, kw_only=True)
class KVGeometry(LayerGroups):
    """A model's layers, as what they hold of a sequence.

    Args:
        groups: layers of a kind each; at least one.
        dtype: what the model computes in: float32, float16 or bfloat16.
        name: the model's name, for people.
    Raises:
        ValueError: there is no group, a layer is in two, the dtype is not one of those, or a token has more than 2^40
            bytes.
    """

    groups: tuple[LayerGroup, ...]
    dtype: str
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.dtype, str) or self.dtype not in DTYPE_BYTES:
            raise ValueError(unknown("dtype", self.dtype, DTYPE_BYTES))
        if not self.groups:
            raise ValueError(f"{self.called}: a cache is one group of layers or more, got none")
        self._check_groups(self.called)
        _check_token_bytes(self.bytes_per_token)

    @staticmethod
    def uniform(
        *,
        num_layers: int,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: str,
        name: str = "",
        latent_dim: int | None = None,
        num_window_layers: int = 0,
        window_tokens: int | None = None,
    ) -> "KVGeometry":
        """A model whose layers are alike, but for the window that some may have.

        Args:
            num_layers: layers that hold K and V, > 0.
            num_heads: query heads, a multiple of num_kv_heads.
            num_kv_heads: heads of K and V, > 0; 1 with latent attention.
            head_dim: elements of one head's K (and of its V), > 0; with latent attention those of the latent alone.
            dtype: of what is held, and computed in: float32, float16 or bfloat16.
            name: the model's name, for people.
            latent_dim: elements of a token in a layer's one tensor, at least head_dim: a latent that K and V of all
                heads are made from, and the rotary part of K; None where K and V are two.
            num_window_layers: layers with a sliding window, which hold the last tokens only; fewer than num_layers. The
                others are spread evenly, each behind as many of these.
            window_tokens: tokens of that window, > 0; None where no layer has one.
        Raises:
            ValueError: a number is out of its range, or the dtype is not one of those.
        Source: latent attention, DeepSeek-V2, arXiv:2405.04434, section 2.1; sliding windows, Gemma 3,
            arXiv:2503.19786, section 2.
        """
        sizes = {"num_layers": num_layers, "num_heads": num_heads, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
        _check_uniform(sizes, dtype, latent_dim, num_window_layers, window_tokens)
        alike = LayerGroup(
            kind=FULL if latent_dim is None else LATENT,
            layers=(0,),
            num_heads=num_heads,
            num_kv_heads=num_kv_heads,
            key_dim=head_dim if latent_dim is None else latent_dim,
            value_dim=head_dim,
            dtype=dtype,
        )
        _check_token_bytes(num_layers * alike.token_bytes)
        if not num_window_layers:
            return KVGeometry(groups=(replace(alike, layers=tuple(range(num_layers))),), dtype=dtype, name=name)
        stretch = num_layers // (num_layers - num_window_layers)
        full = tuple(range(stretch - 1, num_layers, stretch))[: num_layers - num_window_layers]
        others = tuple(sorted(set(range(num_layers)) - set(full)))
        windows = replace(alike, kind=WINDOW, layers=others, tokens=window_tokens)
        return KVGeometry(groups=(replace(alike, layers=full), windows), dtype=dtype, name=name)

    @property
    def called(self) -> str:
        """What messages call it."""
        return self.name or "the model"

    @property
    def num_layers(self) -> int:
        """Layers of all groups."""
        return sum(group.num_layers for group in self.groups)

    @property
    def is_plain(self) -> bool:
        """Whether every layer holds K and V of all tokens, alike, in whichever dtype."""
        return len(self.groups) == 1 and self.computed.groups[0].is_plain

    @property
    def plain(self) -> LayerGroup:
        """The one group of a plain model, as it is computed.

        Raises:
            ValueError: it is not plain.
        """
        if not self.is_plain:
            raise ValueError(f"layers that all hold K and V of all tokens, alike; {self.called} has {self.kinds}")
        return self.computed.groups[0]

    @property
    def computed(self) -> "KVGeometry":
        """The same model, held in what it computes in."""
        if self.held_dtypes <= {self.dtype}:
            return self
        groups = (replace(group, dtype=self.dtype) if group.holds_tokens else group for group in self.groups)
        return replace(self, groups=tuple(groups))

    @property
    def held_dtypes(self) -> frozenset[str]:
        """What it holds tokens in."""
        return frozenset(group.dtype for group in self.groups if group.holds_tokens)

    @property
    def group_names(self) -> tuple[str, ...]:
        """A name a group, for accounts: its kind, numbered where several are of one: full, window, window_2."""
        seen: dict[str, int] = {}
        names = []
        for group in self.groups:
            seen[group.kind] = number = seen.get(group.kind, 0) + 1
            names.append(group.kind if number == 1 else f"{group.kind}_{number}")
        return tuple(names)

    @property
    def kinds(self) -> str:
        """Its groups, for people: "10 full layers, 52 window layers"."""
        return ", ".join(group.where for group in self.groups)

    def reshaped(self, *, num_layers: int | None = None, num_kv_heads: int | None = None) -> "KVGeometry":
        """A plain model with other numbers of layers and KV heads, as many query heads on each.

        Raises:
            ValueError: it is not plain, or a number is out of its range.
        """
        plain = self.plain
        heads = plain.num_kv_heads if num_kv_heads is None else num_kv_heads
        return KVGeometry.uniform(
            num_layers=plain.num_layers if num_layers is None else num_layers,
            num_heads=plain.heads_per_kv_head * heads,
            num_kv_heads=heads,
            head_dim=plain.head_dim,
            dtype=self.dtype,
            name=self.name,
        ).held_in(self.groups[0].dtype)

    def held_in(self, dtype: str) -> "KVGeometry":
        """The same model, held in another dtype where it was held in what it computes in."""
        groups = (replace(group, dtype=dtype) if group.dtype == self.dtype else group for group in self.groups)
        return replace(self, groups=tuple(groups))

    def in_dtype(self, dtype: str) -> "KVGeometry":
        """The same model computed in another dtype, and held in it where it was held in what it was computed in."""
        return replace(self.held_in(dtype), dtype=dtype)

    @property
    def num_tensors(self) -> int:
        """Tensors of a contiguous cache: those of every layer."""
        return sum(group.num_tensors for group in self.groups)

    @property
    def about(self) -> str:
        """Name, layers, dtypes and bytes a token, for people."""
        layers = f"{self.num_layers} layer{'s' if self.num_layers > 1 else ''}"
        dtypes = [self.dtype, *(f"held in {dtype}" for dtype in sorted(self.held_dtypes - {self.dtype}))]
        return f"{self.name or 'model'}, {layers}, {', '.join(dtypes)}, {self.bytes_per_token:,} bytes a token"

    @property
    def layer_bytes_per_token(self) -> int:
        """Those of the layer that holds most of it."""
        return max(group.layer_token_bytes for group in self.groups)

    @property
    def tensor_bytes_per_token(self) -> int:
        """Those in the largest tensor."""
        return max(group.tensor_bytes_per_token for group in self.groups)

    @property
    def pair_flops(self) -> int:
        """Floating-point operations of one query with one key, all layers and heads; see `LayerGroup.pair_flops`."""
        return sum(group.pair_flops for group in self.groups)

    @property
    def track_bytes_per_token(self) -> int:
        """Bytes of one figure beside each slot of each layer and KV head."""
        return sum(group.track_bytes_per_token for group in self.groups)


def geometry_in(model: Model) -> KVGeometry:
    """What the layers of a model, or of a rank of one, hold of a sequence.

    Raises:
        ValueError: no layer holds anything.
    """
    return KVGeometry(groups=model.groups, dtype=model.dtype, name=model.name)


def _check_uniform(
    sizes: dict[str, int], dtype: object, latent_dim: int | None, num_window_layers: int, window_tokens: int | None
) -> None:
    """Refuse numbers of a uniform model that are out of range, or do not go together."""
    for field, size in sizes.items():
        check_int(f"model.{field}", size, 1)
        most = MOST_LAYERS if field == "num_layers" else MOST_SIZE
        if size > most:
            raise ValueError(f"model.{field} is at most {most:,}, got {size:,}")
    num_heads, num_kv_heads = sizes["num_heads"], sizes["num_kv_heads"]
    if num_heads % num_kv_heads:
        raise ValueError(f"model.num_heads is a multiple of num_kv_heads, got {num_heads} heads on {num_kv_heads}")
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise ValueError(unknown("dtype", dtype, DTYPE_BYTES))
    if latent_dim is not None:
        check_int("model.latent_dim (head_dim or more)", latent_dim, sizes["head_dim"])
        if num_kv_heads != 1:
            raise ValueError(f"model.num_kv_heads is 1 where latent_dim is given, got {num_kv_heads}")
    check_int("model.num_window_layers (fewer than num_layers)", num_window_layers, 0, sizes["num_layers"] - 1)
    if num_window_layers:
        check_int("model.window_tokens, where num_window_layers is not 0,", window_tokens, 1)
    elif window_tokens is not None:
        raise ValueError(f"model.window_tokens is null where num_window_layers is 0, got {window_tokens!r}")
    if num_window_layers and latent_dim is not None:
        raise ValueError(f"model.num_window_layers is 0 where latent_dim is given, got {num_window_layers}")


def _check_token_bytes(num_bytes: int) -> None:
    if num_bytes > MOST_TOKEN_BYTES:
        raise ValueError(
            f"model: a token's K and V have at most {MOST_TOKEN_BYTES:,} bytes over all layers, got {num_bytes:,}"
        )
