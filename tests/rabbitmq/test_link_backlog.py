"""No queue drops messages without our saying that it may have, and one that is far from full is not doubted."""

from __future__ import annotations

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden_collectors.rabbitmq.link_backlog import Backlog


class Queue:
    """RabbitMQ's bounded queue: drop-head by number and by bytes; deliveries may still be on their way at a look."""

    def __init__(self, max_length: int, max_bytes: int, backlog: Backlog, prefetch: int) -> None:
        self.max_length, self.max_bytes, self.backlog, self.prefetch = max_length, max_bytes, backlog, prefetch
        self.ready: deque[int] = deque()
        self.on_their_way: deque[int] = deque()
        self.since_last_look = 0
        """Of those on their way, the newest, which were not at the look before."""
        self.dropped = 0
        self.fullest = 0.0

    def publish(self, size: int) -> None:
        self.ready.append(size)
        while len(self.ready) > self.max_length or sum(self.ready) > self.max_bytes:
            self.ready.popleft()
            self.dropped += 1
        self.fullest = max(self.fullest, len(self.ready) / self.max_length, sum(self.ready) / self.max_bytes)

    def deliver(self, count: int, held_back: int) -> None:
        for _ in range(min(count, len(self.ready))):
            self.on_their_way.append(self.ready.popleft())
            self.since_last_look += 1
        while len(self.on_their_way) > min(held_back, self.prefetch):
            self.backlog.delivered(self.on_their_way.popleft())

    def look(self) -> bool:
        # A channel answers in order: what was on its way at the look before has come before this one's answer.
        while len(self.on_their_way) > self.since_last_look:
            self.backlog.delivered(self.on_their_way.popleft())
        self.since_last_look = 0
        return self.backlog.looked(len(self.ready))


steps = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "deliver", "look"]),
        st.integers(1, 30),
        st.integers(0, 40),
        st.integers(0, 3),
    ),
    max_size=60,
)


@settings(max_examples=500, deadline=None)
@given(steps, st.integers(5, 40), st.integers(160, 900), st.integers(0, 3))
def test_whatever_was_dropped_is_doubted_once_what_waited_has_come(
    plan: list[tuple[str, int, int, int]], max_length: int, max_bytes: int, prefetch: int
) -> None:
    backlog = Backlog(max_length, max_bytes, prefetch)
    queue = Queue(max_length, max_bytes, backlog, prefetch)
    doubts = 0
    for what, count, size, held_back in plan:
        if what == "publish":
            for _ in range(count):
                queue.publish(size)
        elif what == "deliver":
            queue.deliver(count, held_back)
        else:
            doubts += queue.look()
    queue.deliver(10_000, 0)
    doubts += queue.look()
    queue.deliver(10_000, 0)
    doubts += queue.look()
    doubts += queue.look()
    assert doubts or not queue.dropped


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_a_queue_that_is_never_half_full_is_not_doubted(rounds: list[tuple[int, int]]) -> None:
    backlog = Backlog(100, 10_000, 3)
    queue = Queue(100, 10_000, backlog, 3)
    for published, delivered in rounds:
        for _ in range(published):
            queue.publish(10)
        queue.deliver(delivered if len(queue.ready) < 30 else 100, 0)
        assert not queue.look()


def test_a_queue_that_was_full_between_two_looks_is_told_once() -> None:
    backlog = Backlog(100, None, 10)
    assert not backlog.looked(0)
    for _ in range(60):
        backlog.delivered(1)
    assert [backlog.looked(50), backlog.looked(0), backlog.looked(0), backlog.looked(0)] == [False, True, False, False]
