"""When sessions come: at their times, when a client is free, or when those that they follow have ended."""

from collections import deque
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from kvbench.runner.live import LiveRequest
from kvbench.workload.request import Session


class Expected:
    """Sessions that are still to come, in order of time, and of their numbers where that is equal.

    Args:
        sessions: in order of arrival; who follows others stands after them.
        num_clients: who send the sessions that follow nobody in their order, each the next one when its last, and all
            that follow it, have ended; None: they arrive at their times.
    """

    def __init__(self, sessions: Sequence[Session], num_clients: int | None) -> None:
        requests = [LiveRequest(i, each, arrival_ns=each.arrival_ns) for i, each in enumerate(sessions)]
        self._requests = requests
        first = [request for request in requests if not request.session.parents]
        self._coming = [(request.arrival_ns, request.index, request) for request in first[:num_clients]]
        heapify(self._coming)
        self._unsent = deque(first[len(self._coming) :])
        self._num_free = 0
        self._children: dict[int, list[LiveRequest]] = {}
        self._num_parents = [len(set(each.parents)) for each in sessions]
        self._roots = list(range(len(requests)))
        self._num_open = [0] * len(requests)
        """Sessions of each that follows nobody, itself and those that follow it, which have not ended."""
        for request in requests:
            for parent in dict.fromkeys(request.session.parents):
                self._children.setdefault(parent, []).append(request)
                self._roots[request.index] = self._roots[parent]
            self._num_open[self._roots[request.index]] += 1

    def __bool__(self) -> bool:
        """Whether somebody's time to come is known."""
        return bool(self._coming)

    @property
    def next_ns(self) -> int:
        """When the next one comes; there is one."""
        return self._coming[0][0]

    def due(self, clock_ns: int) -> Iterator[LiveRequest]:
        """Those who have come by a moment."""
        while self._coming and self._coming[0][0] <= clock_ns:
            yield heappop(self._coming)[2]

    def come_back(self, request: LiveRequest, moment_ns: int) -> None:
        """Let a session's next turn come at a moment."""
        heappush(self._coming, (moment_ns, request.index, request))

    @property
    def waits(self) -> bool:
        """Whether a client is free that has something to send."""
        return bool(self._num_free and self._unsent)

    def send(self, clock_ns: int) -> None:
        """Let clients that are free send the next sessions."""
        while self.waits:
            self._num_free -= 1
            self._come(self._unsent.popleft(), clock_ns)

    def _come(self, request: LiveRequest, moment_ns: int) -> None:
        request.arrival_ns = moment_ns
        self.come_back(request, moment_ns)

    def is_followed(self, request: LiveRequest) -> bool:
        """Whether others follow a session."""
        return request.index in self._children

    def let_follow(self, request: LiveRequest, clock_ns: int) -> None:
        """A session is completed: who follows it, and no other that has not, comes when its think time is over."""
        for child in self._children.get(request.index, ()):
            self._num_parents[child.index] -= 1
            if not self._num_parents[child.index]:
                session = child.session
                self._come(child, max(session.arrival_ns, clock_ns + session.turns[0].think_ns))

    def end(self, request: LiveRequest) -> None:
        """A session has ended; its client is free when all that follow the one that it sent have."""
        root = self._roots[request.index]
        self._num_open[root] -= 1
        self._num_free += not self._num_open[root]

    def lose(self, request: LiveRequest) -> Iterator[LiveRequest]:
        """Those who follow a session that ended otherwise, and so never come."""
        for child in self._children.get(request.index, ()):
            if self._num_parents[child.index] >= 0:
                self._num_parents[child.index] = -1 - len(self._requests)
                self.end(child)
                yield child
                yield from self.lose(child)
