"""Whether a strategy can hold a model's K and V at all, and its windows as windows, told before there are any."""

from kvbench.ledger import Limits
from kvbench.ledger.costs import hold_windows
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import Blocks
from kvbench.strategy.base import Strategy


def holds_windows(strategy: Strategy) -> bool:
    """Whether layers with a window hold it alone: in the one area that there is, or beside those of the strategy.

    Where blocks are told to stay as they are in all layers, or a strategy evicts what is in no order, all hold alike.
    """
    area = strategy.areas[0]
    if not hold_windows(strategy.areas):
        return True
    return area.blocks.frees_windows if isinstance(area.layout, Blocks) else strategy.attends_all


def check_fits(strategy: Strategy, geometry: KVGeometry, budget_bytes: int | None, context_tokens: int | None) -> None:
    """Refuse what could not hold a model's K and V, before there are any.

    Raises:
        ValueError: the strategy holds nothing between steps, or keeps blocks for other requests, or the geometry does
            not go into its areas.
    """
    if strategy.recomputes:
        raise ValueError(
            f"{type(strategy).__name__} holds nothing between steps: a model without a cache does the same "
            "(use_cache=False)"
        )
    if strategy.keeps_prefixes(by_engine=False):
        raise ValueError(
            f"{type(strategy).__name__} keeps blocks for later requests, of which a cache sees no tokens: set "
            "prefix_caching to false"
        )
    limits = Limits(geometry=geometry, budget_bytes=budget_bytes, context_tokens=context_tokens, has_own_pools=True)
    strategy.fitted_to_serve(limits).ledger(geometry)
