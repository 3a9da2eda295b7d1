"""The article's strategies with the parameters that it gives them, and which of its lists stand for what."""

from kvbench.strategy.compressed import Compressed
from kvbench.strategy.dynamic import Dynamic
from kvbench.strategy.hierarchical import Hierarchical
from kvbench.strategy.predictive import Predictive
from kvbench.strategy.static import Static
from kvbench.strategy.streaming import Streaming
from kvbench.workload.request import Request, Session

MAXIMUM = 8192
SHORT_CHATS = ("short_chat", "short_chat_500")
"""The lists that are short chats."""

PREDICTED = ("stable_growth", "sudden_growth", "periodic", "random_fluctuation")
"""The lists on which the article compares dynamic with predictive."""


def appending(appends: tuple[int, ...]) -> tuple[Session, ...]:
    """One request that appends these counts of tokens."""
    return (Session(0, tuple(Request(count) for count in appends)),)


def static(max_seq_len: int = MAXIMUM) -> Static:
    """Static, with the maximum of most of the article."""
    return Static(max_seq_len=max_seq_len)


def dynamic(initial: int = 512, factor: float = 1.5, maximum: int = MAXIMUM) -> Dynamic:
    """Dynamic, with the article's own defaults."""
    return Dynamic(initial_capacity=initial, growth_factor=factor, max_capacity=maximum, round_to=1)


def predictive(rule: str, initial: int = 512, window: int = 10) -> Predictive:
    """Predictive with the article's rule ("append") or the corrected one ("total")."""
    return Predictive(
        history_window=window,
        rule=rule,
        initial_capacity=initial,
        growth_factor=1.5,
        max_capacity=MAXIMUM,
        round_to=1,
    )


def hierarchical(fast: int, slow: int) -> Hierarchical:
    """Hierarchical with two tiers, the oldest half moving."""
    return Hierarchical(
        fast_capacity=fast,
        slow_capacity=slow,
        disk_capacity=0,
        eviction="age",
        top_accessed=64,
        access_window=10,
        read_ahead=False,
        background=False,
    )


def compressed(kept_fraction: float) -> Compressed:
    """Compressed to a fraction."""
    return Compressed(kept_fraction=kept_fraction, interval=64)


def streaming(window: int = 1024, overlap: int = 128, retired: int = 10) -> Streaming:
    """Streaming, with the article's own defaults."""
    return Streaming(window_size=window, overlap_size=overlap, max_retired=retired)
