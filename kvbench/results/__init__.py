"""What a run leaves: rows, their columns, what they say together, and the folder that holds them."""
