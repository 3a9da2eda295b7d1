"""What is said when the command line or a configuration file is wrong."""


class UsageError(Exception):
    """Bad input: the message is all that the user sees. Exit status 2."""
