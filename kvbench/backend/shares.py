"""An area's slots by their bytes, against those that the model gives: fewer where packed, more where scored."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kvbench.ledger import AreaCost
from kvbench.ledger.costs import area_cost, covered, held_as
from kvbench.model.geometry import KVGeometry
from kvbench.plan.area import DEVICE, Area, Blocks, Cast, Native, Score, Votes
from kvbench.timing.prices import UNBOUNDED, UNIT_PARTS


def layers_of(area: Area, geometry: KVGeometry) -> KVGeometry:
    """The layers that an area is of, in the dtype that it casts to; those of an area of all layers with what holds
    states beside."""
    held = held_as(replace(area, format=area.format if isinstance(area.format, Cast) else Native()), geometry)
    if area.layers is None:
        return held
    return replace(held, groups=tuple(group for _, group in covered(area, held)))


def parts_of(costs: Iterable[AreaCost], geometry: KVGeometry, num_rows: int = 1) -> int:
    """Parts of a unit that attention is counted in: 1 where a slot of every area is as the model gives it."""
    read = [cost for cost in costs if cost.groups and cost.area.attended and cost.area.tier == DEVICE]
    read = [cost for cost in read if not cost.has_states]
    return 1 if all(_given(cost, geometry, num_rows) == cost.unit_bytes for cost in read) else UNIT_PARTS


def parts_in(cost: AreaCost, geometry: KVGeometry, parts: int, num_rows: int = 1) -> int:
    """Of so many parts of a unit, those that an area's slot counts as."""
    given = _given(cost, geometry, num_rows)
    return parts * cost.unit_bytes // given if given else parts


def priced_as(costs: Mapping[str, AreaCost], geometry: KVGeometry, num_rows: int = 1) -> dict[str, AreaCost]:
    """Areas as their work is priced: that with a pool has all layers where others have tables of its blocks, and these
    none, since kernels go through the same layers whichever table each has."""
    areas = [cost.area for cost in costs.values()]
    pools = {area.name: area.layout.of for area in areas if isinstance(area.layout, Blocks) and area.layout.of}
    whole = {name: area_cost(replace(costs[name].area, layers=None), geometry, num_rows) for name in pools.values()}
    return {**costs, **{name: replace(costs[name], groups=()) for name in pools}, **whole}


def voters_of(score: Score | None) -> tuple[int, int]:
    """Queries of an append that score slots, at most, and whether those of single tokens do (1 or 0)."""
    if score is None:
        return 0, 0
    return (score.window, 0) if isinstance(score, Votes) else (UNBOUNDED, 1)


def _given(cost: AreaCost, geometry: KVGeometry, num_rows: int) -> int:
    return layers_of(cost.area, geometry).bytes_per_token * num_rows * cost.unit_tokens
