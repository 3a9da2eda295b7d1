"""Requests through a strategy and a backend, step by step; rows out."""
