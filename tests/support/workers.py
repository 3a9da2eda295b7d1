"""Workers that a test controls: when background work runs, and how it fails."""


class Done:
    def __init__(self, work):
        self._work = work
        self._error = None

    def run(self):
        work, self._work = self._work, None
        if work is not None:
            try:
                work()
            except Exception as error:
                self._error = error

    def check(self):
        self.run()
        if self._error is not None:
            raise self._error

    result = check


class Late:
    """Runs work when it is waited for, or when `catch_up` says so."""

    def __init__(self):
        self.given = []

    def submit(self, work):
        self.given.append(Done(work))
        return self.given[-1]

    def catch_up(self):
        for work in self.given:
            work.run()
        self.given.clear()

    wait = close = catch_up


class Failing(Late):
    """Raises in the work of a number, counted from 0, before or after it was done."""

    def __init__(self, error, number=0, after=False):
        super().__init__()
        self._error, self._number, self._after = error, number, after

    def submit(self, work):
        number, self._number = self._number, self._number - 1
        return super().submit(work if number else lambda: self._fail(work))

    def _fail(self, work):
        if self._after:
            work()
        raise self._error
