"""Calibration: this machine's curves, and how far a model made of them is from what was measured."""
