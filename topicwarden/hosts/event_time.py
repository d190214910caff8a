"""How late it is, by the events alone."""

from __future__ import annotations

from typing import Final

HOUR_NS: Final = 3_600_000_000_000


class EventTime:
    """The newest time that events told. One event that is hours off, either way, moves it only if the next agrees.

    So a garbled year in one line does not make everything old at once, and a clock that is set is followed.
    """

    __slots__ = ("_far_ns", "newest_ns")

    def __init__(self) -> None:
        self.newest_ns: int | None = None
        self._far_ns: int | None = None

    def saw(self, time_ns: int) -> None:
        """Note an event's time."""
        if self.newest_ns is None:
            self.newest_ns = time_ns
        elif abs(time_ns - self.newest_ns) <= HOUR_NS:
            self.newest_ns = max(self.newest_ns, time_ns)
            self._far_ns = None
        elif self._far_ns is not None and abs(time_ns - self._far_ns) <= HOUR_NS:
            self.newest_ns = max(self._far_ns, time_ns)
            self._far_ns = None
        else:
            self._far_ns = time_ns

    def before(self, span_ns: int) -> int:
        """Return the time a span before the newest; what is older is old."""
        return -(1 << 63) if self.newest_ns is None else self.newest_ns - span_ns
