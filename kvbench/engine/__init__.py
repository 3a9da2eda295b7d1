"""Serving engines by their own rules: what a rank's memory becomes in them. Plain functions of integers, no torch."""
