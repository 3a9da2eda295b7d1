"""Published results, computed anew, each beside what was printed."""
