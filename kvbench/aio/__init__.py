"""Several caches for asyncio: ordered for each, concurrent between them."""

from kvbench.aio.caches import AsyncCaches
from kvbench.aio.errors import CacheClosed, CacheError, CacheRefused

__all__ = ["AsyncCaches", "CacheClosed", "CacheError", "CacheRefused"]
