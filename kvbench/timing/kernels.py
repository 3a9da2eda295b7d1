"""How long kernels take on an accelerator, in seconds: by fits to measured ones, or from a data sheet."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from numpy.typing import ArrayLike

from kvbench.messages import unknown
from kvbench.model.hardware import Hardware
from kvbench.timing import experts, memory, products
from kvbench.timing.attention import attention_of
from kvbench.timing.corrections import Corrections
from kvbench.timing.exchanges import curves_from, exchange_s
from kvbench.timing.experts import ExpertFigures
from kvbench.timing.figures import check_kinds, figures_from, grid_from, mapping_from
from kvbench.timing.memory import TrafficFigures
from kvbench.timing.operands import OPERANDS, flops_of
from kvbench.timing.products import ProductFigures
from kvbench.timing.rooflines import Peaks, Seconds
from kvbench.timing.shapes import AttentionShape, ExpertShape

Figures = TypeVar("Figures", ProductFigures, ExpertFigures)
Fit = tuple[Figures, Corrections | None]


class Kernels:
    """What kernels take on one accelerator of a kind. All but names broadcasts, as NumPy's arrays do.

    Args:
        hardware: its figures.
    """

    def __init__(self, hardware: Hardware) -> None:
        self._hardware = hardware
        self._fits = hardware.kernels or {}
        check_kinds(self._fits)
        self._attention = attention_of(hardware)
        sheet = {"floor_s": hardware.launch_s, "share": hardware.memory_efficiency}
        self._products = self._by_dtype("products", ProductFigures, products.KNOTS)
        self._typical_product = ProductFigures(**sheet, compute_share=hardware.compute_efficiency)
        self._experts = self._by_dtype("experts", ExpertFigures, experts.KNOTS)
        self._typical_experts = ExpertFigures(share=hardware.memory_efficiency)
        told = self._fits.get("traffic")
        names = TrafficFigures._fields
        self._traffic = TrafficFigures(**(figures_from("hardware.kernels.traffic", told, names) if told else sheet))
        self._exchanges = curves_from("hardware.kernels.all_reduce", self._fits.get("all_reduce") or {})

    @property
    def is_fitted(self) -> bool:
        """Whether they were fitted to measured kernels of this accelerator; else they are a data sheet's."""
        return bool(self._fits)

    def product_s(self, m: ArrayLike, n: ArrayLike, k: ArrayLike, dtype: str, *, converts: bool = True) -> Seconds:
        """A matrix product of (m, k) by (k, n).

        Args:
            m: tokens.
            n: outputs.
            k: inputs.
            dtype: of the weights, one of OPERANDS.
            converts: tokens' numbers to fewer bits, as tables of kernels do; in a model the kernel before has done so.
        """
        figures, grid = _nearest(self._products, dtype, (self._typical_product, None))
        return products.product_s(m, n, k, OPERANDS[dtype], self._peaks(dtype), figures, grid, converts)

    def experts_s(self, num_tokens: ArrayLike, shape: ExpertShape) -> Seconds:
        """A layer's routed experts, for so many tokens: those that are touched are read."""
        return self.touched_experts_s(num_tokens, experts.touched(num_tokens, shape), shape)

    def touched_experts_s(self, num_tokens: ArrayLike, num_touched: ArrayLike, shape: ExpertShape) -> Seconds:
        """The same where it is known how many are touched."""
        figures, grid = _nearest(self._experts, shape.dtype, (self._typical_experts, None))
        operand, peaks = OPERANDS[shape.dtype], self._peaks(shape.dtype)
        return experts.experts_s(num_tokens, num_touched, shape, operand, peaks, figures, grid)

    def prefill_s(
        self, new_tokens: ArrayLike, context_tokens: ArrayLike, shape: AttentionShape, prompts: ArrayLike = 1
    ) -> Seconds:
        """Attention of prompts' new tokens over those before them and each other, in one layer; see `Attention`."""
        return self._attention.prefill_s(new_tokens, context_tokens, shape, prompts)

    def decode_s(self, seen_tokens: ArrayLike, batch: ArrayLike, shape: AttentionShape) -> Seconds:
        """Attention of a decode step in one layer, as tables of kernels have it: called again and again, so that what
        fits the accelerator's cache stays there."""
        return self._attention.decode_s(seen_tokens, batch, shape)

    def decode_terms(self, batch: ArrayLike, shape: AttentionShape) -> tuple[Seconds, Seconds]:
        """Attention of a model's decode step in one layer: seconds that hang on how many sequences there are, and
        seconds for each token that they see, all of them together."""
        return self._attention.decode_terms(batch, shape)

    def mixed_terms(self, batch: ArrayLike, shape: AttentionShape) -> tuple[Seconds, Seconds]:
        """The same of decode steps that share an iteration with prompts' new tokens, beside what those take."""
        return self._attention.mixed_terms(batch, shape)

    def traffic_s(self, num_bytes: ArrayLike) -> Seconds:
        """What only moves bytes: norms, activation functions, rotary embeddings, additions."""
        return memory.traffic_s(num_bytes, self._hardware.memory_bytes_per_s, self._traffic)

    def exchange_s(self, kind: str, num_bytes: ArrayLike, ranks: int) -> Seconds:
        """An exchange between accelerators: all_reduce, all_gather, all_to_all or send.

        Args:
            kind: of these.
            num_bytes: of the tensor, whole.
            ranks: accelerators, > 1.
        Raises:
            ValueError: the machine's file says nothing of links.
        """
        return exchange_s(kind, num_bytes, ranks, self._hardware, self._exchanges)

    def _by_dtype(self, work: str, made: type[Figures], knots: Sequence[Sequence[float]]) -> dict[str, Fit[Figures]]:
        found = {}
        for dtype, told in mapping_from(where := f"hardware.kernels.{work}", self._fits.get(work) or {}).items():
            if dtype not in OPERANDS:
                raise ValueError(f"{where}: {unknown('dtype', dtype, OPERANDS)}")
            figures = made(**figures_from(f"{where}.{dtype}", told, made._fields))
            found[dtype] = figures, grid_from(f"{where}.{dtype}", told, knots)
        return found

    def _peaks(self, dtype: str) -> Peaks:
        return Peaks(self._hardware.memory_bytes_per_s, flops_of(self._hardware, dtype))


def kernels_of(hardware: Hardware) -> Kernels:
    """What kernels take on an accelerator."""
    return Kernels(hardware)


def _nearest(fits: Mapping[str, Fit[Figures]], dtype: str, typical: Fit[Figures]) -> Fit[Figures]:
    """The fit of a dtype, or of the nearest that was measured."""
    return next((fits[name] for name in (dtype, *OPERANDS[dtype].nearest) if name in fits), typical)
