"""What a strategy can say: operations on areas, as data."""
