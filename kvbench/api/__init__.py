"""What a command does, as calls: run, show, load. The command line is a user of these."""
