"""Names and shares that a prefix simulation takes; checked without what compiles it."""

from numbers import Real

from kvbench.naming import unknown

POLICIES = ("lru", "fifo", "optimal")
REUSES = ("block_hash", "radix", "radix_trimmed")
UNLIMITED = "unlimited"


def check_policy(policy: object) -> None:
    """Refuse what is no policy.

    Raises:
        ValueError: there is none of this name.
    """
    if policy not in POLICIES:
        raise ValueError(unknown("policy", policy, POLICIES))


def check_reuse(reuse: object) -> None:
    """Refuse what is no kind of reuse.

    Raises:
        ValueError: there is none of this name.
    """
    if reuse not in REUSES:
        raise ValueError(unknown("kind of reuse", reuse, REUSES))


def check_warmup_share(share: object) -> None:
    """Refuse what is no share of the requests that leaves some to count.

    Raises:
        ValueError: it is not a number from 0 to below 1.
    """
    if isinstance(share, bool) or not isinstance(share, Real) or not 0 <= float(share) < 1:
        raise ValueError(f"warmup_share is a number from 0 to below 1, got {share!r}")
