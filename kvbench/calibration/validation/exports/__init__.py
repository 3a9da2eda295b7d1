"""What benchmarks of serving engines write: each one's file to the same measurements."""
