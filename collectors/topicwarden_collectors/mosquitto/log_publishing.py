"""PUBLISH lines: each is decided once the lines that follow it have said all they can."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from topicwarden.events import Action, Certainty, Outcome
from topicwarden_collectors.mosquitto.log_grammar import (
    Kind,
    PublishLine,
    PublishReading,
    read_acknowledged,
    read_publish,
)
from topicwarden_collectors.mosquitto.log_sessions import Sessions, name
from topicwarden_collectors.mosquitto.log_sink import MALFORMED, LogSink

_UNDECIDED: Final = Kind.TOO_LARGE
_OUTCOMES: Final = {Kind.RECEIVED: Outcome.ALLOWED, Kind.DENIED: Outcome.DENIED, _UNDECIDED: Outcome.UNKNOWN}
"""A message that is too large is dropped before the ACL is asked (handle_publish.c): neither allowed nor denied."""


@dataclass(slots=True)
class _Held:
    time_ns: int
    kind: int
    rest: bytes
    line: PublishLine
    certainty: Certainty


class Publishing:
    """Holds one PUBLISH line at a time: Mosquitto deals with one packet before it turns to the next."""

    def __init__(self, sink: LogSink, sessions: Sessions) -> None:
        self._sink = sink
        self._sessions = sessions
        self._held: _Held | None = None

    @property
    def waiting(self) -> bool:
        """Whether a line is held."""
        return self._held is not None

    def line(self, time_ns: int, kind: int, rest: bytes, cut: bool, certainty: Certainty) -> None:
        """Take a Received, Denied or Dropped PUBLISH line."""
        held = self._held
        if kind == Kind.DENIED and held is not None and held.kind == Kind.RECEIVED and held.rest == rest:
            self._denied_after_received(held, certainty)
            if self._held is not None:
                return
        self.flush()
        line = read_publish(rest, cut)
        if line.readings:
            self._held = _Held(time_ns, kind, rest, line, certainty)
            return
        self._sink.error("cut" if cut else "unreadable")
        self._sink.notice(MALFORMED, "cut" if cut else "unreadable", time_ns, witness=rest)

    def _denied_after_received(self, held: _Held, certainty: Certainty) -> None:
        """A plugin refused what the ACL had allowed (source of 2.0.11 and 2.1.2): both lines are one message.

        Without the acknowledgement that would stand between two messages of QoS 1 or 2, that is certain for them. Two
        equal messages of QoS 0 with different answers look the same; so of the first one no outcome is claimed.
        """
        self._sink.count("denied_after_acl")
        if all(reading.qos for reading in held.line.readings):
            held.kind, held.certainty = Kind.DENIED, certainty
        else:
            held.kind = _UNDECIDED
            self.flush()

    def sending(self, time_ns: int, rest: bytes, cut: bool, certainty: Certainty, *, wanted: bool) -> None:
        """Take a Sending PUBLISH line: a delivery the broker allowed."""
        self._sink.count("deliveries")
        if not wanted:
            return
        line = read_publish(rest, cut)
        reading, certainty = self._by_sessions(line, certainty)
        if reading is None:
            self._sink.error("ambiguous" if line.readings else "unreadable")
            return
        self._sink.event(
            time_ns,
            Action.DELIVER,
            self._sessions.find(name(reading.client_id)),
            Outcome.ALLOWED,
            certainty,
            topic=reading.topic,
            cut=line.cut,
            size=line.size,
            qos=reading.qos,
            retain=reading.retain,
        )

    def acknowledged(self, rest: bytes, cut: bool) -> None:
        """Take a PUBACK or PUBREC line: it ends with its numbers, so its client id can be read in one way only."""
        held = self._held
        answer = None if cut else read_acknowledged(rest)
        if held is None or answer is None:
            self.flush()
            return
        client_id, mid, reason = answer
        matching = [r for r in held.line.readings if r.client_id == client_id and r.mid == mid]
        if len(matching) != 1:
            self.flush()
            return
        if len(held.line.readings) > 1 or held.line.cut:
            held.certainty = min(held.certainty, Certainty.INFERRED)
        self._held = None
        if reason >= 128 and held.kind == Kind.RECEIVED:
            # Allowed by the ACL, refused for another reason (quota): nobody got it.
            self._sink.count("refused_after_acl")
            held.kind = _UNDECIDED
        self._give(held, matching[0])

    def rejected(self, client_id_and_reason: bytes) -> None:
        """Take Mosquitto 2.1's `Rejected PUBLISH`: a plugin said that a quota is exceeded."""
        if self._held is not None and client_id_and_reason.endswith(b", quota exceeded."):
            self._held.kind = _UNDECIDED
            self._sink.count("refused_after_acl")
        else:
            self.flush()

    def flush(self) -> None:
        """Decide the held line with what is known."""
        held, self._held = self._held, None
        if held is None:
            return
        reading, held.certainty = self._by_sessions(held.line, held.certainty)
        if reading is not None:
            self._give(held, reading)
            return
        self._sink.error("ambiguous")
        self._sink.notice(
            MALFORMED, "ambiguous", held.time_ns, witness=held.rest, evidence={"readings": len(held.line.readings)}
        )

    def _by_sessions(self, line: PublishLine, certainty: Certainty) -> tuple[PublishReading | None, Certainty]:
        """Return the only reading, or the only one whose client is connected, if we know of all that are.

        A cut line has one reading more than it shows: all of it may be the beginning of one long client id.
        """
        if len(line.readings) == 1 and not line.cut:
            return line.readings[0], certainty
        if line.cut and self._sessions.unreadable:
            return None, certainty
        connected = [r for r in line.readings if self._sessions.knows(name(r.client_id))]
        if len(connected) != 1 or not self._sessions.complete:
            return None, certainty
        return connected[0], min(certainty, Certainty.INFERRED)

    def _give(self, held: _Held, reading: PublishReading) -> None:
        self._sink.event(
            held.time_ns,
            Action.PUBLISH,
            self._sessions.find(name(reading.client_id)),
            _OUTCOMES[held.kind],
            held.certainty,
            topic=reading.topic,
            cut=held.line.cut,
            size=held.line.size,
            qos=reading.qos,
            retain=reading.retain,
        )
