"""What a decision rests on: runs that differ in a few values, joined."""
