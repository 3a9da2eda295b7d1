"""A fleet in one process: continuous batching over traces of millions of requests, from event to event."""

from kvbench.fleet.result import Binding, FleetResult, Shares, Timeline, Totals
from kvbench.fleet.simulate import simulate
from kvbench.fleet.state import OUTCOMES

__all__ = ["OUTCOMES", "Binding", "FleetResult", "Shares", "Timeline", "Totals", "simulate"]
