"""What every experiment is."""


class Experiment:
    """The base of all experiments: a question with an answer of its own form, that one scenario does not give."""
