"""Storage of K and V: a class for each layout, and the chain of areas that a sequence is."""

from kvbench.backend.storage.areas import Areas
from kvbench.backend.storage.base import Pair, Part, Piece, Shape, Store
from kvbench.backend.storage.sequence import SequenceStore

__all__ = ["Areas", "Pair", "Part", "Piece", "SequenceStore", "Shape", "Store"]
