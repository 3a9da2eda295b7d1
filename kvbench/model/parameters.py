"""A model's parameters: what a step of the whole model reads besides its cache."""

from dataclasses import dataclass

from kvbench.checks import check_int


@dataclass(frozen=True, kw_only=True)
class ModelParameters:
    """How many parameters a model has, and what they take.

    Args:
        num_parameters: all of them, > 0.
        num_active_parameters: those that one token needs (of a mixture of experts, fewer than all), > 0.
        hidden_size: width of the hidden state, > 0.
        bytes_per_parameter: bytes of each, > 0.
    Raises:
        ValueError: a number is out of its range.
    """

    num_parameters: int
    num_active_parameters: int
    hidden_size: int
    bytes_per_parameter: int

    def __post_init__(self) -> None:
        for field in ("num_parameters", "num_active_parameters", "hidden_size", "bytes_per_parameter"):
            check_int(f"model.{field}", getattr(self, field), 1)
        if self.num_active_parameters > self.num_parameters:
            raise ValueError(
                f"model.num_active_parameters is at most num_parameters ({self.num_parameters:,}), got "
                f"{self.num_active_parameters:,}"
            )

    @property
    def num_bytes(self) -> int:
        """Bytes of all parameters."""
        return self.num_parameters * self.bytes_per_parameter

    @property
    def active_bytes(self) -> int:
        """Bytes of the parameters that one token needs."""
        return self.num_active_parameters * self.bytes_per_parameter
