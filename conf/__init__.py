"""Configuration files; a package, so that they are found wherever kvbench is installed."""
