"""Published measurements held against the model of time: a reader a format, a judge a kind, one form of rows."""
