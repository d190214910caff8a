"""Whether a bounded queue may have dropped messages, from what it delivers and how many wait: no I/O, no clock.

RabbitMQ drops the oldest message of a full queue without telling anybody, and whoever looks at the queue's length once
a second sees it full only by luck. But what was in the queue after its last drop has either been delivered by the next
look or is waiting at it. So if what was delivered between two looks, and what waits at the second, would not have
filled the queue, then nothing was dropped between them; by number and by bytes. The bytes are known when what waited
has been delivered; should that be dropped instead, a later pair of looks tells. Messages that the channel had on their
way when it answered count as delivered: they come before its next answer. A drop by bytes of one message that alone is
larger than a quarter of the queue, and than any that came, can go unnoticed.
"""

from __future__ import annotations

from collections import deque
from typing import Final

_MOST_PENDING: Final = 4096
"""Looks whose bytes are not known yet; further ones are taken for full."""


class Backlog:
    """Follows one queue's deliveries and looks."""

    def __init__(self, max_length: int | None, max_bytes: int | None, prefetch: int) -> None:
        """`prefetch`: deliveries that may be on their way while the broker answers how many wait."""
        self._max_length = max_length
        self._max_bytes = max_bytes
        self._prefetch = prefetch
        self._count = self._bytes = 0
        """Delivered since the beginning."""
        self._margin = 0 if max_bytes is None else max_bytes // 4
        """How large a message may be that was dropped and that we therefore never saw."""
        self._last: tuple[int, int, int] | None = None
        """At the look before: messages delivered since the look before that, until then, and waiting."""
        self._look = (0, 0)
        """Delivered at the last look: messages, bytes."""
        self._pending: deque[tuple[int, int]] = deque()
        """Of looks: the number of the message with which all that waited is delivered; bytes at the look before."""
        self._doubt = self._told = False

    def delivered(self, size: int) -> None:
        """Count a message with a body of `size` bytes."""
        self._count += 1
        self._bytes += size
        self._margin = max(self._margin, size)
        while self._pending and self._count >= self._pending[0][0]:
            self._weigh(self._pending.popleft()[1])

    def looked(self, waiting: int) -> bool:
        """Take over how many messages wait; returns True when some may have been dropped, once until that is over."""
        self._measure_last()
        if waiting == 0:
            while self._pending:
                self._weigh(self._pending.popleft()[1])
        count, size = self._look
        self._last = (self._count - count, self._count, waiting)
        if self._max_bytes is not None and (waiting or self._count > count):
            if len(self._pending) < _MOST_PENDING:
                self._pending.append((self._count + waiting + self._prefetch, size))
            else:
                self._doubt = True
        self._look = (self._count, self._bytes)
        if self._max_length is not None and waiting >= self._max_length:
            self._doubt = True
        news = self._doubt and not self._told
        self._told, self._doubt = self._doubt, False
        return news

    def _measure_last(self) -> None:
        """Say of the look before last to the last one whether the queue could have been full by number."""
        if self._last is None or self._max_length is None:
            return
        delivered, count, waiting = self._last
        on_their_way = min(self._prefetch, self._count - count)
        if delivered + waiting + on_their_way >= self._max_length:
            self._doubt = True

    def _weigh(self, before: int) -> None:
        if self._max_bytes is not None and self._bytes - before + self._margin >= self._max_bytes:
            self._doubt = True
