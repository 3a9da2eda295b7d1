"""What an accelerator has, whatever work costs on it: memory, rates at few bits, links, power and a price."""

from dataclasses import dataclass, fields

from kvbench.checks import check_int, check_number, size_of

LOW_BIT_AND_LINK_RATES = ("flops_8bit_per_s", "flops_4bit_per_s", "link_bytes_per_s")
RANGE_PER_S, MOST_S, MOST_BYTES = (1e6, 1e21), 3_600, 2**60
MOST_ACCELERATORS, MOST_AMOUNT = 2**20, 1e9
"""Beyond these no machine is, and times leave what is counted: 2^63 nanoseconds."""


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What an engine is told of an accelerator, and what binds several together. None: it has none, or is not stated.

    Args:
        name: for people.
        memory_bytes: its own memory, as a process is told (torch.cuda.mem_get_info).
        flops_8bit_per_s: peak rate of dense matrix products of 8-bit floats.
        flops_4bit_per_s: the same of 4-bit floats.
        link_bytes_per_s: peak bandwidth to its neighbours in a node, all links, one direction.
        link_s: of the smallest exchange over those links, in seconds.
        accelerators_per_node: how many those links join, > 0.
        power_w: of the board at full load, in watts.
        price_per_hour: what one costs, in dollars or what the user counts in.
    Raises:
        ValueError: a figure is out of its range.
    """

    name: str
    memory_bytes: int
    flops_8bit_per_s: float | None = None
    flops_4bit_per_s: float | None = None
    link_bytes_per_s: float | None = None
    link_s: float | None = None
    accelerators_per_node: int | None = None
    power_w: float | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        self._check_text("name")
        object.__setattr__(self, "memory_bytes", size_of("hardware.memory_bytes", self.memory_bytes, 1))
        if self.memory_bytes > MOST_BYTES:
            raise ValueError(f"hardware.memory_bytes is at most 2^60, got {self.memory_bytes!r}")
        stated = {key for key in OPTIONAL if getattr(self, key) is not None}
        self._check_rates(*(key for key in LOW_BIT_AND_LINK_RATES if key in stated))
        self._check_seconds(*stated & {"link_s"})
        if "accelerators_per_node" in stated:
            check_int("hardware.accelerators_per_node", self.accelerators_per_node, 1, MOST_ACCELERATORS)
        for key in ("power_w", "price_per_hour"):
            if key in stated:
                check_number(f"hardware.{key}", getattr(self, key), 0, MOST_AMOUNT)

    def needed(self, figure: str, question: str) -> float:
        """A figure that a file may leave out.

        Args:
            figure: one of OPTIONAL, or another that may be None.
            question: what asks for it, for the message.
        Raises:
            ValueError: it is not stated.
        """
        value: float | None = getattr(self, figure)
        if value is None:
            raise ValueError(f"{self.name} states no hardware.{figure}, which {question} needs")
        return value

    def _check_text(self, key: str) -> None:
        value = getattr(self, key)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"hardware.{key} is a text, got {value!r}")

    def _check_rates(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            check_number(f"hardware.{key}", value, 0, above=True)
            if not RANGE_PER_S[0] <= value <= RANGE_PER_S[1]:
                raise ValueError(f"hardware.{key} is from {RANGE_PER_S[0]:g} to {RANGE_PER_S[1]:g}, got {value!r}")

    def _check_seconds(self, *keys: str) -> None:
        for key in keys:
            value = getattr(self, key)
            check_number(f"hardware.{key}", value, 0)
            if value > MOST_S:
                raise ValueError(f"hardware.{key} is at most {MOST_S:,} seconds, got {value!r}")


OPTIONAL = tuple(field.name for field in fields(Accelerator) if field.default is None)
"""Figures that a file may leave out: who needs one asks by `Accelerator.needed`."""
