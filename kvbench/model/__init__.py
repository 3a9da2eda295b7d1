"""A model and the hardware that it is served on, as figures: the one home of byte arithmetic."""
