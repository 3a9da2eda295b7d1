"""What a search is over: what is suggested or drawn is among what is counted."""

from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.decide.space import Dimension, Space
from kvbench.tried import Tried, tried_of

STRATEGY = Dimension(key="strategy", tried=Tried(choices=("paged", "dynamic")))
GROWTH = Dimension(key="strategy.dynamic.growth", tried=Tried(choices=(1.5, 2.0, 3.0)), of="strategy", at=("dynamic",))
RANKS = Dimension(key="parallel.tensor", tried=Tried(choices=(1, 2)))


def test_what_depends_on_a_choice_is_there_with_it_alone():
    space = Space((STRATEGY, GROWTH, RANKS))
    assert space.size == 2 * (1 + 3)
    assert list(space) == [
        {"strategy": "paged", "parallel.tensor": 1},
        {"strategy": "paged", "parallel.tensor": 2},
        *(
            {"strategy": "dynamic", "strategy.dynamic.growth": growth, "parallel.tensor": ranks}
            for growth in (1.5, 2.0, 3.0)
            for ranks in (1, 2)
        ),
    ]
    assert {"strategy": "paged", "parallel.tensor": 1, "strategy.dynamic.growth": 2.0} not in space
    assert {"strategy": "dynamic", "parallel.tensor": 1} not in space
    assert {"strategy": "paged", "parallel.tensor": True} not in space
    assert 3 not in space


@st.composite
def spaces(draw):
    """Spaces of choices and whole numbers, of which some depend on one before."""
    found = []
    for number in range(draw(st.integers(1, 5))):
        low = draw(st.integers(1, 4))
        tried = draw(
            st.sampled_from(
                [
                    Tried(choices=tuple(range(draw(st.integers(1, 3))))),
                    Tried(low, low + draw(st.integers(1, 3)), log=draw(st.booleans())),
                ]
            )
        )
        choosing = [each for each in found if each.tried.choices]
        of = draw(st.sampled_from([None, *choosing]))
        at = () if of is None else tuple(draw(st.sets(st.sampled_from(of.tried.choices))))
        found.append(Dimension(key=f"k{number}", tried=tried, of="" if of is None else of.key, at=at))
    return Space(tuple(found))


@given(spaces(), st.integers(0, 2**32))
def test_all_that_is_drawn_is_among_all_that_there_are(space, seed):
    every = list(space)
    assert len(every) == space.size == len({tuple(each.items()) for each in every})
    rng = np.random.default_rng(seed)
    for _ in range(5):
        drawn = space.drawn(rng)
        assert drawn in space
        assert drawn in every
    assert all(each in space for each in every)


def test_what_optuna_suggests_is_among_all_that_there_are():
    optuna = pytest.importorskip("optuna", reason="the extra tune is not installed")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rate = Dimension(key="rate", tried=Tried(1.0, 8.0, log=True))
    only = Dimension(key="only", tried=Tried(choices=("x",)))
    space = Space((STRATEGY, GROWTH, only, Dimension(key="size", tried=Tried(1, 8, log=True)), rate))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(20):
        assert space.suggested(study.ask()) in space
    assert space.size is None
    with pytest.raises(ValueError, match="has no end"):
        iter(space)
    assert 8.5 not in rate.tried
    assert 7.5 in rate.tried


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: Space(()), "nothing to search"),
        (lambda: Space((RANKS, RANKS)), "parallel.tensor is searched twice"),
        (lambda: Space((GROWTH, STRATEGY)), "depends on strategy, which comes before"),
        (lambda: Dimension(key="x", tried=Tried(choices=(1, 2, 1))), "x: 1 stands twice"),
        (lambda: Tried(2, 1), "low is below high; got 2 to 1"),
        (lambda: Tried(0, 1, log=True), "above 0 where log is true"),
        (lambda: Tried(), "low is a number"),
        (lambda: Tried(1, 2, choices=(1,)), "a range or choices, not both"),
    ],
)
def test_what_is_no_space_is_refused(made, why):
    with pytest.raises(ValueError, match=why):
        made()


def test_what_is_tried_stands_beside_the_parameter():
    class Base:
        factor: Annotated[float, Tried(1.1, 3.0)] = 1.5
        plain: int = 1

    class Other(Base):
        size: Annotated[int, "bytes", Tried(choices=(1, 2))] = 1

    assert tried_of(Other) == {"factor": Tried(1.1, 3.0), "size": Tried(choices=(1, 2))}
