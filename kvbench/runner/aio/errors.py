"""What an asynchronous cache answers where it cannot do what was asked."""

from collections.abc import Hashable


class CacheError(Exception):
    """A call on a cache failed; `__cause__` is what it failed of.

    Args:
        id: the cache's.
        message: what happened.
    """

    def __init__(self, id: Hashable, message: str) -> None:
        self.id = id
        super().__init__(f"cache {id!r}: {message}")


class CacheRefused(CacheError):
    """Nothing of the call was done: the cache is as it was, and can be used on."""


class CacheClosed(CacheError):
    """The cache has lost its tokens, or never had any more: what it held is freed. `release` makes its id free."""
