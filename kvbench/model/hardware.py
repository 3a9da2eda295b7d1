"""An accelerator's figures, from a data sheet or from a calibration."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

from kvbench.checks import check_number, check_share
from kvbench.messages import unknown
from kvbench.model.accelerator import MOST_BYTES, MOST_S, Accelerator

Curve = Sequence[Sequence[float]]

RATES = ("memory_bytes_per_s", "flops_per_s", "host_bytes_per_s", "disk_bytes_per_s")
SHARES = ("memory_efficiency", "compute_efficiency", "host_efficiency")
FIXED = ("launch_s", "allocation_s", "device_allocation_s", "transfer_s", "step_s")
LEAST_POINTS = NUM_COORDINATES = 2
LEAST_SHARE = 0.01
MOST_SPREAD = 5.0
"""Of a logarithm: a draw in a thousand is then 5 million times the median."""


@dataclass(frozen=True, kw_only=True)
class Hardware(Accelerator):
    """What work costs on an accelerator, too. Bandwidths are decimal: a GB is 10⁹ bytes.

    Args:
        memory_bytes_per_s: peak bandwidth of its memory.
        flops_per_s: peak rate of dense matrix products of 16-bit numbers.
        host_bytes_per_s: peak bandwidth between it and the host's memory, one direction.
        disk_bytes_per_s: bandwidth of the disk.
        memory_efficiency: share of memory_bytes_per_s that kernels reach, above 0 and at most 1.
        compute_efficiency: share of flops_per_s that they reach.
        host_efficiency: share of host_bytes_per_s that copies reach.
        launch_s: fixed cost of a kernel, in seconds.
        allocation_s: of a tensor's allocation, served from memory that the framework's allocator keeps.
        device_allocation_s: of an allocation that the driver must serve; only where the allocator is modelled.
        transfer_s: of a transfer to or from another tier.
        step_s: of an iteration of a whole model, on the host.
        source: where the figures come from.
        disk_s: of a transfer from the disk, beside transfer_s, in seconds; None: not stated.
        remote_bytes_per_s: bandwidth between it and a store of blocks on the network, one direction; None: not stated.
        remote_s: of a transfer from that store, beside transfer_s, in seconds, the median; None: not stated.
        remote_spread: standard deviation of the logarithm of remote_s, from transfer to transfer; None: it does not
            vary.
        curves: of a calibrated machine, seconds by size, [size, seconds] points a name; None for a data sheet's.
        calibrated_for: what those were measured on, such as dtype and heads; None for a data sheet's.
        validation: how far modelled times were from measured ones; None where that was never measured.
        kernels: figures of fits to measured kernels, which `timing` reads; None where nobody measured them.
    Raises:
        ValueError: a figure is out of its range.
    """

    memory_bytes_per_s: float
    flops_per_s: float
    host_bytes_per_s: float
    disk_bytes_per_s: float
    memory_efficiency: float
    compute_efficiency: float
    host_efficiency: float
    launch_s: float
    allocation_s: float
    device_allocation_s: float
    transfer_s: float
    step_s: float
    source: str
    disk_s: float | None = None
    remote_bytes_per_s: float | None = None
    remote_s: float | None = None
    remote_spread: float | None = None
    curves: Mapping[str, Curve] | None = None
    calibrated_for: Mapping[str, object] | None = None
    validation: Mapping[str, Any] | None = None
    kernels: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_text("source")
        self._check_rates(*RATES)
        for key in SHARES:
            value = getattr(self, key)
            check_share(f"hardware.{key}", value)
            if value < LEAST_SHARE:
                raise ValueError(f"hardware.{key} is at least {LEAST_SHARE}, got {value!r}")
        self._check_seconds(*FIXED)
        self._check_tiers()
        self._check_mappings()
        for name, curve in (self.curves or {}).items():
            check_curve(f"hardware.curves.{name}", curve)

    def _check_tiers(self) -> None:
        if self.remote_bytes_per_s is not None:
            self._check_rates("remote_bytes_per_s")
        self._check_seconds(*(key for key in ("disk_s", "remote_s") if getattr(self, key) is not None))
        if self.remote_spread is not None:
            check_number("hardware.remote_spread", self.remote_spread, 0, MOST_SPREAD)

    def _check_mappings(self) -> None:
        for key in ("curves", "calibrated_for", "validation", "kernels"):
            value = getattr(self, key)
            if value is not None and not isinstance(value, Mapping):
                raise ValueError(f"hardware.{key} is a mapping, or null, got {value!r}")
        for key in ("error", "noise"):
            value = (self.validation or {}).get(key)
            if self.validation is not None:
                check_number(f"hardware.validation.{key}", value, 0)


def check_curve(where: str, curve: object) -> None:
    """Check points of seconds by size.

    Args:
        where: the curve's key, for messages.
        curve: [size, seconds] points; sizes grow, seconds never fall.
    Raises:
        ValueError: the points are something else.
    """
    if isinstance(curve, str) or not isinstance(curve, Sequence) or len(curve) < LEAST_POINTS:
        raise ValueError(f"{where} is a list of at least {LEAST_POINTS} [size, seconds] points, got {curve!r}")
    before = None
    for point in curve:
        is_pair = isinstance(point, Sequence) and not isinstance(point, str) and len(point) == NUM_COORDINATES
        if not is_pair:
            raise ValueError(f"{where}: a point is [size, seconds], got {point!r}")
        for what, value in zip(("size", "seconds"), point, strict=True):
            check_number(f"{where}: {what} of a point", value, 0)
        if point[0] > MOST_BYTES or point[1] > MOST_S:
            raise ValueError(f"{where}: sizes are at most 2^60 and seconds {MOST_S:,}, got {list(point)}")
        if before is not None and (point[0] <= before[0] or point[1] < before[1]):
            raise ValueError(
                f"{where}: from point to point sizes grow and seconds never fall, got {list(point)} after "
                f"{list(before)}"
            )
        before = point


def hardware_from(mapping: Mapping[str, object]) -> Hardware:
    """The hardware that a configuration node describes, with all that prices work.

    Raises:
        ValueError: a figure is missing, unknown or out of its range.
    """
    return Hardware(**_stated(mapping, Hardware))


def accelerator_from(mapping: Mapping[str, object]) -> Accelerator:
    """The same of a node that need not say what work costs: enough to ask what fits.

    Raises:
        ValueError: a figure is missing, unknown or out of its range.
    """
    own = {field.name for field in fields(Accelerator)}
    return Accelerator(**{key: value for key, value in _stated(mapping, Accelerator).items() if key in own})


def _stated(mapping: Mapping[str, object], made: type[Accelerator]) -> dict[str, Any]:
    """A node's figures, named right, and none missing that `made` cannot do without."""
    given: dict[str, Any] = {str(key): value for key, value in mapping.items()}
    what = f"hardware {given['name']}" if given.get("name") else "hardware"
    keys = [field.name for field in fields(Hardware)]
    for key in given:
        if key not in keys:
            raise ValueError(f"{what}: {unknown('figure', key, keys)}")
    missing = [field.name for field in fields(made) if field.default is MISSING and field.name not in given]
    if missing:
        raise ValueError(f"{what}: missing {', '.join(missing)}; it takes {', '.join(keys)}")
    return given
