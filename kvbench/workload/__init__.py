"""Workloads: what is asked of a cache, and when."""
