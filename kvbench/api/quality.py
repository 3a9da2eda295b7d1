"""The columns that say what strategies cost a real model: looked up, measured where that is asked, or not known."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from kvbench.configuration.errors import refusing
from kvbench.configuration.model import geometry_of, model_of
from kvbench.configuration.parts import Config
from kvbench.configuration.quality import PROXY, AskedQuality, asked_quality
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import CAST_DTYPES, FP8_DTYPES
from kvbench.results.quality_columns import CANNOT, DEFINITION, QUALITY_OF_MODEL, WHERE
from kvbench.strategy.base import Strategy
from kvbench.strategy.fp8 import Fp8
from kvbench.strategy.paged import Paged
from kvbench.studies.quality.cells import described
from kvbench.studies.quality.losses import NOTHING_LOST, Losing, Loss, LossBook, LossUnknown
from kvbench.studies.quality.shares import Kept, Length, kept_of, typical
from kvbench.workload.request import Session
from kvbench.workload.trace_columns import TraceColumns

FIGURES = [name for name in QUALITY_OF_MODEL if name != WHERE]
Lengths = Sequence[Length]
_COUNTED: dict[tuple[str, Lengths], Kept] = {}
"""What was counted in this process, by strategy and lengths."""


def quality_columns(
    config: Config, strategies: Mapping[str, Strategy], requests: TraceColumns | Sequence[Session]
) -> dict[str, dict[str, object]]:
    """What strategies cost the asked model, or the proxy that stands for it.

    Args:
        config: composed and resolved.
        strategies: by name.
        requests: that they serve, whose lengths say what share of tokens one that evicts keeps.
    Returns:
        By strategy the columns of QUALITY_OF_MODEL.
    Raises:
        UsageError: what the configuration says of quality is wrong.
    """
    asked, geometry = asked_quality(config), geometry_of(config)
    lengths = _lengths_of(requests)
    return {name: _columns(config, asked, geometry, strategy, lengths) for name, strategy in strategies.items()}


def _columns(
    config: Config,
    asked: AskedQuality,
    geometry: KVGeometry,
    strategy: Strategy,
    lengths: Callable[[], Lengths],
) -> dict[str, object]:
    if strategy.is_lossless(geometry):
        return _row(NOTHING_LOST, f"{DEFINITION}: lossless")
    try:
        held = _as_lossy(strategy, geometry)
        kept = _kept(held, lengths())
        if not kept.alters:
            return _row(NOTHING_LOST, f"{DEFINITION}: it alters no token of these requests")
        loss = _book(config, asked).loss(Losing.of(held, kept.share))
    except LossUnknown as unknown:
        return _row([math.nan] * len(FIGURES), f"{CANNOT}: {unknown}")
    return _row(loss.figures, _where(config, asked, loss, kept))


def _row(figures: Sequence[float], where: str) -> dict[str, object]:
    return {**dict(zip(FIGURES, figures, strict=True)), WHERE: where}


def _where(config: Config, asked: AskedQuality, loss: Loss, kept: Kept) -> str:
    """What was measured, and for what it stands."""
    stands = asked.proxy_path not in (None, model_of(config).name_or_path)
    here = f" (here {kept.share:.0%})" if kept.share < 1 else ""
    return f"{'proxy ' if stands else ''}{loss.measured_on}{here}".replace("%)", " %)")


def _as_lossy(strategy: Strategy, geometry: KVGeometry) -> Strategy:
    """What loses: of a cache whose numbers are cast, whatever grows, that cast alone.

    Raises:
        LossUnknown: K and V are cast, and the strategy loses more; or nothing casts to that dtype.
    """
    dtypes = geometry.held_dtypes - {geometry.dtype}
    if dtypes and not strategy.lossless:
        raise LossUnknown(f"K and V are held in {', '.join(sorted(dtypes))}, and the strategy loses more")
    if dtypes:
        (dtype, *others) = sorted(dtypes)
        if others or dtype not in CAST_DTYPES:
            raise LossUnknown(f"nothing rounds K and V to {dtype} here")
        return _cast(dtype, 1.0 if dtype in FP8_DTYPES else "head")
    if isinstance(strategy, Paged) and strategy.format is not None:
        return _cast(strategy.format, strategy.scale)
    return _cast(strategy.dtype, strategy.scale) if isinstance(strategy, Fp8) else strategy


def _cast(dtype: str, scale: float | str) -> Strategy:
    return Fp8(dtype=dtype, scale=scale) if dtype in FP8_DTYPES else Paged(format=dtype, scale=scale)


def _book(config: Config, asked: AskedQuality) -> LossBook:
    """Where losses on the asked model, or its proxy, are looked up.

    Raises:
        LossUnknown: there is no such model.
    """
    model = model_of(config)
    path, dtype = (model.name_or_path, model.dtype) if asked.proxy is None else (asked.proxy_path, "float32")
    if path is None:
        raise LossUnknown(f"{model.name} is figures without weights; {PROXY}=smollm2 lets a small model stand for it")
    return _opened(path, dtype, str(config["device"]), asked)


@lru_cache(maxsize=8)
def _opened(path: str, dtype: str, device: str, asked: AskedQuality) -> LossBook:
    """One book for all candidates of a search: it keeps what it found, and the model where that was loaded."""
    return LossBook(
        name_or_path=path, dtype=dtype, device=device, text=asked.text, sizes=asked.sizes, measures=asked.measure
    )


def _lengths_of(requests: TraceColumns | Sequence[Session]) -> Callable[[], Lengths]:
    """The lengths that stand for all, found when they are asked for first."""

    def found() -> Lengths:
        if isinstance(requests, TraceColumns):
            return typical(requests.num_prompt_tokens, requests.num_output_tokens)
        decoded = [session.num_decode_tokens for session in requests]
        prompts = [session.num_tokens - own for session, own in zip(requests, decoded, strict=True)]
        return typical(np.asarray(prompts), np.asarray(decoded))

    return found


def _kept(strategy: Strategy, lengths: Lengths) -> Kept:
    """What becomes of the tokens of such requests, counted once."""
    if strategy.attends_all:
        return Kept(1.0, True)
    key = str(described(strategy)), tuple(lengths)
    if key not in _COUNTED:
        with refusing():
            _COUNTED[key] = kept_of(strategy, lengths)
    return _COUNTED[key]
