"""What tests share: drivers, models written again by hand, machines, rows."""
