"""A model's parameters: what a step of the whole model reads besides its cache."""

import math
from dataclasses import dataclass
from fractions import Fraction

from kvbench.checks import check_int
from kvbench.model.model import Model


@dataclass(frozen=True, kw_only=True)
class ModelParameters:
    """How many parameters a model has, and what they take.

    Args:
        num_parameters: all of them, > 0.
        num_active_parameters: those that one token needs (of a mixture of experts, fewer than all), > 0.
        hidden_size: width of the hidden state, > 0.
        bytes_per_parameter: bytes of each on average, > 0.
        bytes_per_active_parameter: the same of those that one token needs; None: as much.
        active_by_dtype: those that one token needs, by how they are held; empty: as what is computed in.
    Raises:
        ValueError: a number is out of its range.
    """

    num_parameters: int
    num_active_parameters: int
    hidden_size: int
    bytes_per_parameter: int | Fraction
    bytes_per_active_parameter: int | Fraction | None = None
    active_by_dtype: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for field in ("num_parameters", "num_active_parameters", "hidden_size"):
            check_int(f"model.{field}", getattr(self, field), 1)
        if isinstance(self.bytes_per_parameter, bool) or self.bytes_per_parameter <= 0:
            raise ValueError(f"model.bytes_per_parameter is a number above 0, got {self.bytes_per_parameter}")
        if self.num_active_parameters > self.num_parameters:
            raise ValueError(
                f"model.num_active_parameters is at most num_parameters ({self.num_parameters:,}), got "
                f"{self.num_active_parameters:,}"
            )

    @property
    def num_bytes(self) -> int:
        """Bytes of all parameters."""
        return math.ceil(self.num_parameters * self.bytes_per_parameter)

    @property
    def active_bytes(self) -> int:
        """Bytes of the parameters that one token needs."""
        each = self.bytes_per_active_parameter or self.bytes_per_parameter
        return math.ceil(self.num_active_parameters * each)


def parameters_of(model: Model) -> ModelParameters | None:
    """The parameters of a model, or of a rank of one; None where none are known."""
    if not model.weights:
        return None
    by_dtype: dict[str, int] = {}
    for part in model.weights:
        by_dtype[part.dtype] = by_dtype.get(part.dtype, 0) + part.active
    active_bytes = sum((part.active_bytes for part in model.weights), Fraction())
    return ModelParameters(
        num_parameters=model.num_parameters,
        num_active_parameters=model.num_active_parameters,
        hidden_size=model.hidden_size,
        bytes_per_parameter=sum((part.num_bytes for part in model.weights), Fraction()) / model.num_parameters,
        bytes_per_active_parameter=active_bytes / model.num_active_parameters,
        active_by_dtype=tuple(by_dtype.items()),
    )
