"""SUBSCRIBE and UNSUBSCRIBE packets: one line that names the client, then two lines for each filter.

`Received SUBSCRIBE from X` and the tabbed filter lines are of type debug; `X QOS FILTER` is of type subscribe and comes
only when the subscription was granted. It begins with the client's own words, so it is recognised by being exactly
what must come next, before anything else is asked of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from topicwarden.events import QOS_UNKNOWN, Action, Certainty, Outcome
from topicwarden_collectors.mosquitto.log_grammar import Kind, read_filter
from topicwarden_collectors.mosquitto.log_sessions import Sessions, name
from topicwarden_collectors.mosquitto.log_sink import MALFORMED, LogSink

MAX_FOREIGN_LINES: Final = 64
"""Lines of unknown kinds (a plugin's own) let pass within one packet's lines."""


@dataclass(slots=True)
class _Open:
    """A filter whose outcome is not known yet."""

    time_ns: int
    filter: bytes
    qos: int
    cut: bool


class Subscribing:
    """The lines of one SUBSCRIBE or UNSUBSCRIBE packet."""

    def __init__(
        self, sink: LogSink, sessions: Sessions, client_id: bytes, *, leaving: bool, cut: bool, certainty: Certainty
    ) -> None:
        self._sink = sink
        self._sessions = sessions
        self._client_id = client_id
        self._leaving = leaving
        self._cut = cut
        """Whether the client id is only a beginning; then nothing here can be laid at anybody's door."""
        self._certainty = certainty
        self._open: _Open | None = None
        self._foreign = 0
        self.granted = False
        """Whether a line of type subscribe was seen."""
        self.over = False
        """Whether the packet is dealt with."""

    def line(self, time_ns: int, message: bytes, kind: int, rest: bytes, cut: bool, grants_seen: bool) -> bool:
        """Take the next line; return whether it belonged to this packet. `grants_seen`: the log shows grants."""
        if message.startswith(b"\t"):
            self._close(acknowledged=True, grants_seen=grants_seen)
            self._filter(time_ns, message, cut)
            return True
        if self._is_grant(message, cut):
            self._grant(message)
            return True
        if kind == Kind.SENDING:
            return False
        if kind == Kind.SUBACK and self._is_own_id(rest, cut):
            self._close(acknowledged=True, grants_seen=grants_seen)
            self.over = True
            return True
        if kind == 0 and self._foreign < MAX_FOREIGN_LINES:
            self._foreign += 1
            self._sink.count("other_lines")
            return True
        self.end()
        return False

    def end(self) -> None:
        """The packet's lines broke off: what was not decided stays unknown."""
        self._close(acknowledged=False, grants_seen=False)
        self.over = True

    def _is_own_id(self, rest: bytes, cut: bool) -> bool:
        if self._cut:
            return rest[: len(self._client_id)] == self._client_id[: len(rest)]
        return rest == self._client_id or (cut and self._client_id.startswith(rest))

    def _filter(self, time_ns: int, message: bytes, cut: bool) -> None:
        if self._cut:
            self._sink.error("cut")
            return
        if self._leaving:
            self._open = _Open(time_ns, message[1:], QOS_UNKNOWN, cut)
            return
        found = None if cut else read_filter(message)
        if found is not None:
            self._open = _Open(time_ns, found[0], QOS_UNKNOWN if found[1] is None else found[1], False)
            if found[1] is None:
                self._give(Outcome.DENIED, self._certainty)
        elif cut:
            # ` (QoS N)` may be part of what was cut; without it what is left is certainly of the filter.
            self._open = _Open(time_ns, message[1 : -len(" (QoS 0)")], QOS_UNKNOWN, True)
        else:
            self._sink.error("unreadable")
            self._sink.notice(MALFORMED, "unreadable", time_ns, witness=message)

    def _is_grant(self, message: bytes, cut: bool) -> bool:
        open_ = self._open
        if self._cut:
            return message.startswith(self._client_id[:900])
        if open_ is None:
            return False
        if self._leaving:
            expected = b"%s %s" % (self._client_id, open_.filter)
            return message == expected or ((cut or open_.cut) and message[: len(expected)] == expected[: len(message)])
        if open_.qos == QOS_UNKNOWN:
            return any(message.startswith(b"%s %d " % (self._client_id, qos)) for qos in (0, 1, 2))
        # A plugin of Mosquitto 2.1 may have put another filter in place of the one asked for.
        begin = b"%s %d " % (self._client_id, open_.qos)
        return message.startswith(begin) or (cut and begin.startswith(message))

    def _grant(self, message: bytes) -> None:
        if self._cut or self._open is None:
            return
        if self._leaving:
            # Written whether or not the broker allowed it (handle_unsubscribe.c).
            self._give(Outcome.UNKNOWN, Certainty.UNKNOWN)
        else:
            self.granted = True
            asked_for = message.endswith(self._open.filter) or self._open.cut
            self._give(Outcome.ALLOWED, self._certainty if asked_for else Certainty.INFERRED)

    def _close(self, *, acknowledged: bool, grants_seen: bool) -> None:
        """Decide a filter without a grant line: denied, if this log shows grants and the broker answered."""
        if self._open is None:
            return
        if acknowledged and (grants_seen or self.granted) and not self._leaving:
            self._give(Outcome.DENIED, Certainty.INFERRED)
        else:
            self._give(Outcome.UNKNOWN, Certainty.UNKNOWN)

    def _give(self, outcome: Outcome, certainty: Certainty) -> None:
        open_, self._open = self._open, None
        if open_ is None:
            return
        self._sink.event(
            open_.time_ns,
            Action.UNSUBSCRIBE if self._leaving else Action.SUBSCRIBE,
            self._sessions.find(name(self._client_id)),
            outcome,
            certainty,
            topic=open_.filter,
            cut=open_.cut,
            qos=open_.qos,
        )
