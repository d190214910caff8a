"""Lines set aside because a line break in a name may have forged them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from topicwarden_collectors.mosquitto.log_connecting import Connecting
from topicwarden_collectors.mosquitto.log_forgery import BrokenLine, Quarantine, Verdict, ends_with_id
from topicwarden_collectors.mosquitto.log_grammar import KNOWN, read_connected
from topicwarden_collectors.mosquitto.log_lines import Line
from topicwarden_collectors.mosquitto.log_sessions import Sessions
from topicwarden_collectors.mosquitto.log_sink import FORGED, LogSink

MAX_BROKEN_IDS: Final = 64
"""Most client ids with line breaks that are remembered."""


class Suspects:
    """Sets lines aside and hands back those that are to be decoded after all."""

    def __init__(
        self,
        sink: LogSink,
        sessions: Sessions,
        connecting: Connecting,
        message_of: Callable[[bytes], bytes | None],
        types_changed: Callable[[], None],
    ) -> None:
        """`message_of` takes the timestamp off a line; `types_changed` is told when it was no forgery after all."""
        self._sink = sink
        self._sessions = sessions
        self._connecting = connecting
        self._message_of = message_of
        self._types_changed = types_changed
        self._quarantine: Quarantine | None = None
        self._broken: BrokenLine | None = None
        self._broken_ids: dict[bytes, tuple[bytes, ...]] = {}
        """Client ids that hold line breaks: their first line, and the others."""
        self._again: Line | None = None
        """A line that seemed broken and was not."""

    @property
    def waiting(self) -> bool:
        """Whether lines are set aside."""
        return self._quarantine is not None or self._broken is not None

    def begin(self, quarantine: Quarantine, line: Line | None = None) -> None:
        """Set aside what comes from now on, `line` first."""
        self._quarantine = quarantine
        if line is not None:
            quarantine.takes(line)

    def breaks_off(self, time_ns: int, line: Line, message: bytes) -> bool:
        """Whether the line, then set aside, may be the first part of one that names a client with line breaks."""
        if not self._broken_ids or line is self._again:
            return False
        for first, others in self._broken_ids.items():
            if ends_with_id(message, first):
                self._broken = BrokenLine(line, time_ns, others)
                return True
        return False

    def take(self, line: Line) -> list[Line]:
        """Set the next line aside; return the lines to decode now, which may end with this one."""
        if self._quarantine is not None:
            return [] if self._quarantine.takes(line) else [*self.release(), line]
        broken = self._broken
        if broken is None:
            return [line]
        belongs = broken.takes(line)
        if belongs is None:
            self._broken = None
            self.forged(broken.time_ns, "client-id", broken.lines[0].raw, lines=len(broken.lines))
        return [*self.release(), line] if belongs is False else []

    def release(self) -> list[Line]:
        """Decide what was forged, and return the rest, which is to be decoded."""
        quarantine, self._quarantine = self._quarantine, None
        broken, self._broken = self._broken, None
        if broken is not None:
            self._again = broken.first
            return [broken.first, *broken.lines]
        if quarantine is None:
            return []
        verdict = quarantine.judge(self._message_of)
        if verdict.forged:
            self._forged_connect(quarantine, verdict)
        elif quarantine.whole:
            # No sign of a forgery: the log's types must have changed without the broker saying so.
            self._types_changed()
            self._connecting.weaken()
        else:
            self._sink.error("cut")
            self._sessions.unreadable = True
        return quarantine.lines[verdict.forged :]

    def forged(self, time_ns: int, scope: str, witness: bytes, lines: int = 1) -> None:
        """Report forged lines that name nobody."""
        self._sink.count("forged_lines", lines)
        self._sink.notice(FORGED, scope, time_ns, witness=witness, evidence={"lines": lines})

    def _forged_connect(self, quarantine: Quarantine, verdict: Verdict) -> None:
        self._connecting.drop_arrival()
        client = None
        connect = read_connected(quarantine.first, False)
        if verdict.reading is None or connect is None:
            self._sessions.unreadable = True
        else:
            reading = verdict.reading
            client = self._connecting.broken(quarantine.time_ns, connect.address, connect.port, reading)
            first, *others = reading.client_id.split(b"\n")
            if others and len(self._broken_ids) < MAX_BROKEN_IDS:
                self._broken_ids[first] = tuple(others)
        lines = [line.raw for line in quarantine.lines[: verdict.forged]]
        self._sink.count("forged_lines", len(lines))
        self._sink.notice(
            FORGED,
            "user-name",
            quarantine.time_ns,
            client=client,
            witness=self._telling(lines),
            evidence={"lines": len(lines)},
        )

    def _telling(self, lines: list[bytes]) -> bytes:
        """Return the first line that reads like one of the broker's, else the first."""
        for raw in lines:
            message = self._message_of(raw)
            if message is not None and KNOWN.match(message):
                return raw
        return lines[0]
