"""Experiments: questions that one scenario does not answer. One a file."""
