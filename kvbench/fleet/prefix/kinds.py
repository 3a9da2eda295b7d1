"""Names and shares that a prefix simulation takes; checked without what compiles it."""

from kvbench.messages import unknown

POLICIES = ("lru", "fifo", "lfu", "optimal")
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
