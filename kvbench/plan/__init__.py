"""What a strategy can say: operations on areas, as data."""

from typing import TYPE_CHECKING

from kvbench.lazy import public

if TYPE_CHECKING:
    from kvbench.plan.area import Accesses as Accesses
    from kvbench.plan.area import Area as Area
    from kvbench.plan.area import Blocks as Blocks
    from kvbench.plan.area import Cast as Cast
    from kvbench.plan.area import Chunks as Chunks
    from kvbench.plan.area import Contiguous as Contiguous
    from kvbench.plan.area import Holes as Holes
    from kvbench.plan.area import Mass as Mass
    from kvbench.plan.area import Native as Native
    from kvbench.plan.area import Packed as Packed
    from kvbench.plan.area import Ring as Ring
    from kvbench.plan.area import Votes as Votes
    from kvbench.plan.ops import Append as Append
    from kvbench.plan.ops import Drop as Drop
    from kvbench.plan.ops import Fork as Fork
    from kvbench.plan.ops import Keep as Keep
    from kvbench.plan.ops import Move as Move
    from kvbench.plan.ops import Publish as Publish
    from kvbench.plan.ops import Release as Release
    from kvbench.plan.ops import Reserve as Reserve
    from kvbench.plan.ops import Reuse as Reuse
    from kvbench.plan.ops import Rows as Rows
    from kvbench.plan.ops import Rule as Rule
    from kvbench.plan.ops import Save as Save
    from kvbench.plan.ops import Settle as Settle
    from kvbench.plan.ops import Truncate as Truncate
    from kvbench.plan.ops import append_plan as append_plan
    from kvbench.plan.ops import keep_and_append_plan as keep_and_append_plan

__getattr__, __all__ = public(__name__, __file__)


def __dir__() -> list[str]:
    return __all__
