"""Appends to several caches by asyncio: all at once, against one after another."""

import asyncio
from time import perf_counter

from kvbench.backend.measured import Measured
from kvbench.quality.structured import structured
from kvbench.runner.aio import AsyncCaches
from kvbench.studies.base import Setting
from kvbench.studies.claims.article import dynamic

NUM_CACHES, NUM_UPDATES, UPDATE_TOKENS = 4, 16, 64
INITIAL = 256


def append_ratios(setting: Setting) -> list[float]:
    """Seconds of appends awaited one after another, over those of the same appends made all at once.

    Returns:
        A ratio a repetition; none where the backend holds no tensors.
    """
    backend = setting.backend
    if not isinstance(backend, Measured):
        return []
    geometry = backend.geometry
    sample = structured(geometry, UPDATE_TOKENS, setting.seed)
    tokens = [each[:1].to(backend.device) for each in (sample.keys, sample.values)]
    layers = [[each] * geometry.num_layers for each in tokens]

    async def append(caches: AsyncCaches, name: int) -> None:
        for _ in range(NUM_UPDATES):
            await caches.update(name, *layers)

    async def seconds(at_once: bool) -> float:
        async with AsyncCaches(dynamic(INITIAL), geometry, device=str(backend.device)) as caches:
            start = perf_counter()
            if at_once:
                await asyncio.gather(*(append(caches, name) for name in range(NUM_CACHES)))
            else:
                for name in range(NUM_CACHES):
                    await append(caches, name)
            for name in range(NUM_CACHES):
                await caches.get(name)  # a device that runs behind has then caught up
            return perf_counter() - start

    ratios = []
    for repetition in range(setting.num_warmup + setting.num_repetitions):
        order = (False, True) if repetition % 2 else (True, False)
        taken = {at_once: asyncio.run(seconds(at_once)) for at_once in order}
        if repetition >= setting.num_warmup:
            ratios.append(taken[False] / taken[True])
    return ratios
