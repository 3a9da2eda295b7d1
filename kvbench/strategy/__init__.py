"""Strategies: each decides what happens to a sequence's slots, as a plan. One method a file; no tensors here."""
