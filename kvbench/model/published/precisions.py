"""In which precision each of a model's modules is held."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvbench.model.published.module_names import ModuleNames
from kvbench.model.published.pieces import Weights
from kvbench.model.weights import BODY, EXPERTS


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Modules, and the precision that they are held in.

    Args:
        dtype: theirs.
        targets: which; None: all that are products in layers.
        only_experts: whether only experts are.
    """

    dtype: str
    targets: ModuleNames | None = None
    only_experts: bool = False


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How a model's weights are held, and its cache.

    Args:
        precisions: the first that names a module holds.
        ignored: modules that stay as they are.
        kv_dtype: of the cache, where the configuration says so.
    """

    precisions: tuple[Precision, ...] = ()
    ignored: ModuleNames | None = None
    kv_dtype: str | None = None

    def dtypes(self, block: Weights, layers: tuple[int, ...], dtype: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The precisions of a module, with the layers in which it is held so.

        Args:
            block: the module's parameters.
            layers: that have it; () outside them.
            dtype: of what stays as it is.
        """
        if not block.module or block.is_kept or not self.precisions:
            yield dtype, layers
        elif not layers:
            yield self._outside(block, dtype), layers
        else:
            yield from self._inside(block, layers, dtype)

    def _outside(self, block: Weights, dtype: str) -> str:
        """Embedding and head stay as they are, but where they are named."""
        named = (rule.dtype for rule in self.precisions if rule.targets and rule.targets.has(block.module))
        return next(named, dtype)

    def _inside(self, block: Weights, layers: tuple[int, ...], dtype: str) -> Iterator[tuple[str, tuple[int, ...]]]:
        kept = set(self.ignored.layers_of(block.module, layers)) if self.ignored else set()
        left = tuple(layer for layer in layers if layer not in kept)
        for rule in self.precisions:
            if block.kind not in (BODY, EXPERTS) or (rule.only_experts and block.kind != EXPERTS):
                continue
            here = left if rule.targets is None else rule.targets.layers_of(block.module, left)
            if here:
                yield rule.dtype, here
                left = tuple(layer for layer in left if layer not in set(here))
        rest = tuple(layer for layer in layers if layer in kept or layer in set(left))
        if rest:
            yield dtype, rest
