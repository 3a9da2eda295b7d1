"""Lines that serving engines printed at their start, held against what their rules say here. No torch."""
