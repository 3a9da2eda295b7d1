"""What loading a block from a tier below the device takes on a machine, and what computing its tokens would."""

from typing import NamedTuple

from kvbench.model.hardware import Hardware
from kvbench.timing.prices import LINEAR, MOST_PS, PS_PER_S, SIZES, Prices


class Link(NamedTuple):
    """A tier's link to the device.

    Args:
        block_ps: that a block takes on it.
        fixed_ps: of a transfer's latency, the part that never varies.
        varying_ps: the median of the other part.
        spread: standard deviation of that one's logarithm.
    """

    block_ps: int
    fixed_ps: int
    varying_ps: int = 0
    spread: float = 0.0

    @property
    def latency_ps(self) -> int:
        """Of a transfer, as it is in the middle."""
        return self.fixed_ps + self.varying_ps


def link_of(hardware: Hardware, tier: str, block_bytes: int) -> Link:
    """The link of a tier; what comes from a disk or a remote store passes the host's.

    Args:
        hardware: the machine; its figures are of one accelerator.
        tier: host, disk or remote.
        block_bytes: of a block, as one accelerator holds it.
    Raises:
        ValueError: the machine does not state what the tier needs, or a block takes too long to count.
    """
    bytes_per_s = hardware.host_bytes_per_s * hardware.host_efficiency
    fixed_s, varying_s = hardware.transfer_s, 0.0
    what = f"{tier}_bytes"
    if tier == "disk":
        bytes_per_s = min(bytes_per_s, hardware.disk_bytes_per_s)
        fixed_s += hardware.needed("disk_s", what)
    if tier == "remote":
        bytes_per_s = min(bytes_per_s, hardware.needed("remote_bytes_per_s", what))
        varying_s = hardware.needed("remote_s", what)
    spread = (hardware.remote_spread or 0.0) if tier == "remote" else 0.0
    block_ps = max(round(block_bytes / bytes_per_s * PS_PER_S), 1)
    if block_ps > MOST_PS:
        raise ValueError(f"{tier}_bytes: a block of {block_bytes:,} bytes takes {block_ps / PS_PER_S:.4g} s to load")
    return Link(block_ps, round(fixed_s * PS_PER_S), round(varying_s * PS_PER_S), spread)


def computing_ps(num_blocks: int, block_tokens: int, each_ps: int) -> int:
    """What computing the tokens of blocks would take that are loaded instead: that is saved by loading them.

    Args:
        num_blocks: how many.
        block_tokens: tokens of each.
        each_ps: of a token more, see `token_ps`.
    """
    return num_blocks * block_tokens * each_ps


def token_ps(prices: Prices, num_rows: int = 1) -> int:
    """What computing a token more of a prompt takes in a large step, but for attention, which hangs on its place.

    Args:
        prices: of the model on the machine.
        num_rows: rows of every sequence's batch.
    """
    tables, half = prices.tables, SIZES // 2
    linear_ps = int(tables[LINEAR, SIZES] - tables[LINEAR, half]) // half
    return prices.write_ps + num_rows * linear_ps // prices.num_stages
