"""Several caches for asyncio: ordered for each, concurrent between them."""

from kvbench.runner.aio.caches import AsyncCaches, CacheClosed, CacheError, CacheRefused

__all__ = ["AsyncCaches", "CacheClosed", "CacheError", "CacheRefused"]
