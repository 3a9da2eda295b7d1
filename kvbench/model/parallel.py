"""How a model is laid over accelerators, and what one rank of it holds."""

from dataclasses import dataclass, fields

from kvbench.checks import check_int


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Degrees of parallelism of one replica, or of several.

    Args:
        tensor: ranks that heads and columns are divided over, > 0.
        pipeline: stages that layers are divided over, > 0.
        expert: ranks that experts are divided over, > 0; 1 divides experts' columns over the tensor ranks.
        data: replicas of attention (and of the whole model where expert is 1), > 0.
        decode_context: ranks that the tokens of a sequence are divided over, > 0; they are tensor ranks.
    Raises:
        ValueError: a degree is no positive integer, or decode_context does not divide tensor.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    decode_context: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            check_int(f"parallel.{field.name}", getattr(self, field.name), 1, 4096)
        if self.tensor % self.decode_context:
            raise ValueError(
                f"parallel.decode_context divides parallel.tensor ({self.tensor}), got {self.decode_context}"
            )

    @property
    def num_ranks(self) -> int:
        """Accelerators of one replica."""
        return self.tensor * self.pipeline

    @property
    def num_accelerators(self) -> int:
        """Accelerators of all."""
        return self.num_ranks * self.data
