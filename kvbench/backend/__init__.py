"""Backends: each carries plans out, on tensors or on a model of an accelerator."""
