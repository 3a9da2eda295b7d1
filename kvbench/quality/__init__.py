"""Quality: what a lossy strategy costs, in attention's output on K and V that have structure."""
