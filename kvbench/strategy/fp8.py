"""Eight bits a number: all K and V in a dtype of half the size."""

from dataclasses import dataclass

from kvbench.checks import check_one_of
from kvbench.plan.area import FP8_DTYPES, Area, Cast
from kvbench.strategy.base import derived
from kvbench.strategy.dynamic import Dynamic


@dataclass(frozen=True, kw_only=True)
class Fp8(Dynamic):
    """Hold all K and V in eight bits, cast to a floating-point dtype as they come; grow as dynamic does.

    Half the memory of a 16-bit cache. Attention reads a copy that is cast back, part by part; a prompt's own tokens,
    too, are read as they are held.

    Args:
        dtype: fp8_e4m3, of three bits for the fraction and up to 448, or fp8_e5m2, of two bits and up to 57,344.
        scale: what K and V are divided by before, > 0; or "tensor" or "head": calibrated by the run's first append, so
            that the largest K, or V, of a layer or of each KV head of it becomes the dtype's largest number.
        initial_capacity: slots reserved when a sequence is admitted, > 0.
        growth_factor: new capacity over old, > 1.
        max_capacity: slots at most, >= initial_capacity; None: the model's context, where it is known, and no
            less than the run's longest request.
        round_to: capacities are multiples of this, > 0.
    Raises:
        ValueError: a parameter is out of its range.
    Source: Micikevicius et al. 2022, arXiv:2209.05433, for the dtypes; vLLM's `--kv-cache-dtype fp8` with scales of 1,
        given, or calculated from the first step.
    Departs: what is too large becomes the largest number of either dtype, as the paper asks; engines hold blocks of a
        pool (paged does with a format), and their kernels cast where they read.
    """

    dtype: str = "fp8_e4m3"
    scale: float | str = 1.0

    lossless = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_one_of("dtype", self.dtype, FP8_DTYPES)
        Cast(self.dtype, self.scale)

    @derived
    def areas(self) -> tuple[Area, ...]:
        """Slots in order, cast."""
        return (Area(format=Cast(self.dtype, self.scale)),)

    @property
    def attends_all(self) -> bool:
        """It rounds, and evicts nothing."""
        return True
