"""Integrations: strategies inside other projects' models."""
