"""Messages of `$SYS/broker/log/TYPE`: the topic is the broker's own word for the log type.

So a message cannot pass for one of another type, and a line break in it cannot pass for the end of the message.
Messages of type debug are never published (logging.c, 2.0.11 and 2.1.2): no PUBLISH comes this way.
"""

from __future__ import annotations

from typing import Final

from topicwarden.events import Action, Certainty, Outcome
from topicwarden_collectors.mosquitto.log_connecting import Connecting
from topicwarden_collectors.mosquitto.log_grammar import DEBUG_KINDS, Kind, read_connected, read_grants
from topicwarden_collectors.mosquitto.log_sessions import Sessions, name
from topicwarden_collectors.mosquitto.log_sink import FORGED, MALFORMED, LogSink

SUBSCRIBE: Final = "M/subscribe"
UNSUBSCRIBE: Final = "M/unsubscribe"


class Titled:
    """Decodes messages whose log type is known."""

    def __init__(self, sink: LogSink, sessions: Sessions, connecting: Connecting) -> None:
        self._sink = sink
        self._sessions = sessions
        self._connecting = connecting

    def line(
        self, time_ns: int, level: str, message: bytes, kind: int, rest: bytes, cut: bool, version: bytes | None
    ) -> bool:
        """Take a message; return False when it is one that is read no better by knowing its type."""
        if level in (SUBSCRIBE, UNSUBSCRIBE):
            self._subscription(time_ns, message, cut, leaving=level == UNSUBSCRIBE)
        elif kind in DEBUG_KINDS:
            self._sink.error("unreadable")
        elif kind == Kind.CONNECTED:
            self._connected(time_ns, message, rest, cut)
        elif kind == Kind.CLIENT:
            self._connecting.ended(time_ns, rest, version, Certainty.EXACT)
        else:
            return False
        return True

    def _subscription(self, time_ns: int, message: bytes, cut: bool, *, leaving: bool) -> None:
        """Take `CLIENT-ID QOS FILTER` or `CLIENT-ID FILTER`; ids and filters may hold what separates them."""
        readings = _leaving_readings(message) if leaving else read_grants(message)
        certainty = Certainty.EXACT
        if len(readings) > 1:
            certainty = Certainty.INFERRED
            readings = [r for r in readings if self._sessions.complete and self._sessions.knows(name(r[0]))]
        if len(readings) != 1 or cut:
            stage = "cut" if cut else "ambiguous"
            self._sink.error(stage)
            self._sink.notice(MALFORMED, stage, time_ns, witness=message)
            return
        client_id, qos, filter_ = readings[0]
        client = self._sessions.find(name(client_id))
        if leaving:
            # Written whether or not the broker allowed it (handle_unsubscribe.c).
            self._sink.event(time_ns, Action.UNSUBSCRIBE, client, Outcome.UNKNOWN, Certainty.UNKNOWN, topic=filter_)
        else:
            self._sink.event(time_ns, Action.SUBSCRIBE, client, Outcome.ALLOWED, certainty, topic=filter_, qos=qos)

    def _connected(self, time_ns: int, message: bytes, rest: bytes, cut: bool) -> None:
        self._connecting.flush()
        line = read_connected(rest, cut)
        if line is None or line.unfinished is not None:
            self._sink.error("cut" if cut else "unreadable")
            return
        if b"\n" in message:
            self._sink.count("forged_lines", message.count(b"\n"))
            self._sink.notice(
                FORGED,
                "user-name",
                time_ns,
                witness=message.partition(b"\n")[2],
                evidence={"lines": message.count(b"\n")},
            )
        self._connecting.arrived(time_ns, line, message, cut, Certainty.EXACT)
        self._connecting.flush()


def _leaving_readings(message: bytes) -> list[tuple[bytes, int, bytes]]:
    return [
        (message[:space], 0, message[space + 1 :])
        for space, byte in enumerate(message)
        if byte == 0x20 and 0 < space < len(message) - 1
    ]
