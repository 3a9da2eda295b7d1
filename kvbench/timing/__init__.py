"""How long work takes on an accelerator: kernels by their shapes, and what an iteration of a model comes to."""
