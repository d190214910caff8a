"""Decodes Mosquitto's log into event batches: no I/O, no clock.

What makes a log hard to trust: nothing in it is escaped, and names are the clients' own. Three things keep an event
from being laid at the door of a client that did not do it:

- Lines are read in their context. After a filter line below `Received SUBSCRIBE from X`, the broker writes
  `X QOS FILTER` (log type subscribe), whatever that looks like; it is taken as that and nothing else. In a log without
  debug lines there is no such context, and a client can write any line it likes that way (tried with 2.0.11 and
  2.1.2); what is read there is `inferred`.
- A line that starts with a tab cannot be written by way of a client id, so it proves that the log has debug lines. As
  long as nothing has proved it, events are `inferred`; a connect line that the debug line about its will does not
  follow disproves it, and from then on every line of type debug is a forgery.
- A line with several readings is decided by the broker's next lines (PUBACK, PUBREC and CONNACK name the client in one
  way only), then by who is connected; else it is counted as ambiguous and becomes no event.

Line breaks inside a name are the business of `log_forgery`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any

from topicwarden.events import Action, Certainty, EventBatch, Outcome, Tables
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto import log_grammar as grammar
from topicwarden_collectors.mosquitto.log_connecting import Connecting
from topicwarden_collectors.mosquitto.log_forgery import Quarantine
from topicwarden_collectors.mosquitto.log_grammar import DEBUG_KINDS, MAX_LINE, Kind
from topicwarden_collectors.mosquitto.log_lines import Line, LineSplitter
from topicwarden_collectors.mosquitto.log_publishing import Publishing
from topicwarden_collectors.mosquitto.log_sessions import CAPACITY, Sessions, name
from topicwarden_collectors.mosquitto.log_sink import LOST, MALFORMED, LogSink
from topicwarden_collectors.mosquitto.log_subscribing import Subscribing
from topicwarden_collectors.mosquitto.log_suspects import Suspects
from topicwarden_collectors.mosquitto.log_time import LogClock
from topicwarden_collectors.mosquitto.log_titled import Titled


class LogDecoder:
    """Feed it bytes of a log, or single messages of `$SYS/broker/log/#`; take batches."""

    def __init__(
        self,
        tables: Tables,
        broker: str,
        *,
        zone: tzinfo | None = None,
        base_ns: int = 0,
        counters: Counters | None = None,
        deliveries: bool = False,
        capacity: int = CAPACITY,
    ) -> None:
        """`zone` is that of stamps without one (None: local time); `base_ns` the time of lines without a stamp.

        With `deliveries`, each `Sending PUBLISH` becomes an event too; they are counted in any case.
        """
        self.sink = LogSink(tables, broker, counters if counters is not None else Counters())
        self.sessions = Sessions(broker, capacity)
        self.clock = LogClock(zone, base_ns, self._is_brokers)
        self.version: bytes | None = None
        """The broker's version, once it has said so."""
        self.debug: bool | None = None
        """Whether the log has lines of type debug: proved, disproved, or not known."""
        self.grants_seen = False
        """Whether lines of type subscribe were seen since the broker started or reloaded."""
        self.kinds_seen: set[int] = set()
        """Kinds of lines seen so far; tells what the log cannot show."""
        self._deliveries = deliveries
        self._splitter = LineSplitter()
        self._lines: deque[Line] = deque()
        self._publishing = Publishing(self.sink, self.sessions)
        self._connecting = Connecting(self.sink, self.sessions)
        self._titled = Titled(self.sink, self.sessions, self._connecting)
        self._subscribing: Subscribing | None = None
        self._suspects = Suspects(self.sink, self.sessions, self._connecting, self._message_of, self._forget_types)
        self._arrival: Quarantine | None = None
        """A good connect line whose will line has not come yet."""
        self._will_topic = False
        self._protocol_name = 0

    # What the shell calls

    def feed(self, data: bytes) -> None:
        """Add bytes of the log, cut anywhere; only `\\n` ends a line."""
        self._lines.extend(self._splitter.feed(data))
        for _ in range(self._splitter.too_long):
            self.sink.error("too_long")
        self._splitter.too_long = 0

    def message(self, level: str, line: bytes) -> None:
        """Add one message of `$SYS/broker/log/LEVEL`; its topic is the broker's own word for the log type."""
        self._lines.append(Line(line, 0, level))

    @property
    def backlog(self) -> int:
        """Whole lines fed and not decoded yet."""
        return len(self._lines)

    @property
    def offset(self) -> int:
        """Bytes fed that were decoded: where the first line that was not begins."""
        return self._lines[0].begin if self._lines else self._splitter.offset

    @property
    def fed(self) -> int:
        """Bytes fed so far."""
        return self._splitter.fed

    @property
    def unfinished(self) -> int:
        """Bytes of the last line that has no end yet."""
        return len(self._splitter.rest)

    @property
    def waiting(self) -> bool:
        """Whether something decoded waits for the lines after it."""
        return (
            self._publishing.waiting
            or self._connecting.waiting
            or self._subscribing is not None
            or self._suspects.waiting
            or self._will_topic
        )

    def snapshot(self) -> dict[str, Any]:
        """Return what was learnt so far as JSON values. Call only when nothing is `waiting`."""
        return {
            "version": None if self.version is None else self.version.decode("utf-8", "surrogateescape"),
            "debug": self.debug,
            "grants_seen": self.grants_seen,
            "sessions": self.sessions.snapshot(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Take over a snapshot; raises ValueError, TypeError or KeyError when it is not one."""
        version, debug = snapshot["version"], snapshot["debug"]
        self.sessions.restore(snapshot["sessions"])
        self.version = None if version is None else str(version).encode("utf-8", "surrogateescape")
        self.debug = debug if debug is None else bool(debug)
        self.grants_seen = bool(snapshot["grants_seen"])

    def take(self, limit: int = 16_384) -> EventBatch:
        """Decode lines until about `limit` events or the tables are full; call again while there is a `backlog`."""
        lines, tables, sink = self._lines, self.sink.tables, self.sink
        # A line makes few entries and `must_flush` leaves half of the tables free, so not each line needs to ask.
        at_once = max(1, min(64, tables.clients.capacity // 32, tables.resources.capacity // 32))
        while lines and len(sink) < limit and not tables.must_flush:
            for _ in range(min(at_once, len(lines), limit)):
                if not lines:
                    break
                self._decode(lines.popleft())
        return sink.take()

    def settle(self) -> None:
        """Nothing more has come for a while: decide what waits with what is known. Call only without a backlog."""
        while self._suspects.waiting:
            self._lines.extend(self._suspects.release())
            while self._lines:
                self._decode(self._lines.popleft())
        self._publishing.flush()
        self._connecting.flush()

    def finish(self) -> None:
        """Nothing more will come: an unfinished line is cut, what waits is decided. Call only without a backlog."""
        if self._splitter.rest:
            self.sink.error("cut")
        self._splitter.drop_rest()
        self.settle()
        self._arrival = None
        self._end_subscribing()

    def gap(self, time_ns: int, scope: str, **evidence: str | int) -> None:
        """Say that lines are, or may be, missing here. Call only without a backlog.

        What was learnt of the log's types no longer holds, and neither does it that we know all who are connected.
        """
        self.finish()
        self.forget_context()
        if not self.sink.muted:
            self.sink.counters.gaps += 1
        self.sink.notice(LOST, scope, time_ns, evidence=evidence)

    def forget_context(self) -> None:
        """Forget what only holds if no line is missing; who is connected is still the best guess."""
        self._forget_types()
        self.sessions.complete = False
        self._will_topic = False
        self._protocol_name = 0

    def _is_brokers(self, message: bytes) -> bool:
        """Whether a line without its stamp begins like one of the broker's, or tells of our own client."""
        own = self.sink.ignored
        return grammar.KNOWN.match(message) is not None or (own is not None and message.startswith(own.encode() + b" "))

    # One line

    def _decode(self, line: Line) -> None:
        raw = line.raw
        if self._suspects.waiting:
            self._lines.extendleft(reversed(self._suspects.take(line)))
            return
        found = self.clock.split(raw)
        if found is None:
            found = self._out_of_format(raw)
            if found is None:
                return
        time_ns, start, body = found
        message = raw[body:]
        match = grammar.KNOWN.match(message)
        if match is not None:
            kind, rest = int(match.lastindex or 0), message[match.end() :]
            self.clock.confirm()
        else:
            kind, rest = 0, message
            if self.clock.stamped is False and self._subscribing is None and self.clock.reconsider(raw) is not None:
                self.sink.count("format_changes")
                self._lines.appendleft(line)
                return
            if self.clock.shared and message.startswith(b"#011"):
                message = b"\t" + message[4:]  # so rsyslog writes a tab
        cut = len(raw) - start >= MAX_LINE
        if line.level is not None:
            self.kinds_seen.add(kind)
            if not self._titled.line(time_ns, line.level, message, kind, rest, cut, self.version):
                self._other(time_ns, message, kind or Kind.OTHER, rest, cut, Certainty.EXACT)
            return
        if self._suspects.breaks_off(time_ns, line, message):
            return
        if self._protocol_name:
            # Six bytes of a CONNECT are logged unchecked as protocol name (2.0.11, 2.1.2); they may be line feeds.
            self._protocol_name = 0 if b'"' in message else self._protocol_name - 1
            self._suspects.forged(time_ns, "protocol-name", message)
            return
        if self._arrival is not None and not self._follows_arrival(line, kind):
            return
        if self._will_topic:
            self._will_topic = False
            if message.startswith(b"\t"):
                self.debug = True
                return
        self._route(time_ns, line, start, message, kind, rest, cut)

    def _out_of_format(self, raw: bytes) -> tuple[int, int, int] | None:
        found = self.clock.reconsider(raw)
        if found is not None:
            self.sink.count("format_changes")
            return found
        if raw and not self.clock.shared:
            self.sink.error("format")
            if self._protocol_name:
                self._protocol_name = 0 if b'"' in raw else self._protocol_name - 1
        return None

    def _route(self, time_ns: int, line: Line, start: int, message: bytes, kind: int, rest: bytes, cut: bool) -> None:
        """Hand the line to the packet it belongs to, else to what its beginning says."""
        if self._subscribing is not None:
            if message.startswith(b"\t"):
                self.debug = True
            mine = self._subscribing.line(time_ns, message, kind, rest, cut, self.grants_seen)
            if self._subscribing.granted:
                self._saw_grant()
            if self._subscribing.over:
                self._subscribing = None
            if mine:
                return
        if self.debug is False and kind in DEBUG_KINDS and kind not in (Kind.SUBSCRIBE, Kind.UNSUBSCRIBE):
            self._suspects.forged(time_ns, "log-type", message)
            return
        if self.sessions.imitators and not self.debug and self._may_be_grant(message):
            self.sink.error("ambiguous")
            self.sink.notice(MALFORMED, "ambiguous", time_ns, witness=message)
            return
        self.kinds_seen.add(kind)
        certainty = Certainty.EXACT if self.debug and not self.clock.shared else Certainty.INFERRED
        if kind in (Kind.RECEIVED, Kind.DENIED, Kind.TOO_LARGE):
            self._connecting.flush()
            self._publishing.line(time_ns, kind, rest, cut, certainty)
        elif kind == Kind.SENDING:
            self._publishing.sending(time_ns, rest, cut, certainty, wanted=self._deliveries)
        elif kind == Kind.ACKNOWLEDGED:
            self._publishing.acknowledged(rest, cut)
        elif kind == Kind.REJECTED:
            self._publishing.rejected(rest)
        else:
            self._publishing.flush()
            if kind == Kind.CONNECTED:
                self._connected(time_ns, line, start, message, rest, cut, certainty)
            elif kind == Kind.CONNACK:
                self._connecting.connack(time_ns, rest, cut, certainty)
            elif kind == Kind.CLIENT:
                if not cut:
                    self._connecting.ended(time_ns, rest, self.version, certainty)
            else:
                self._other(time_ns, message, kind, rest, cut, certainty)

    def _other(self, time_ns: int, message: bytes, kind: int, rest: bytes, cut: bool, certainty: Certainty) -> None:
        if kind not in (Kind.NO_WILL, Kind.WILL):
            self._connecting.flush()
        if kind in (Kind.SUBSCRIBE, Kind.UNSUBSCRIBE):
            self._end_subscribing()
            # Tab lines will follow, and they prove that nobody but the broker wrote this line.
            certainty = Certainty.INFERRED if self.clock.shared else Certainty.EXACT
            leaving = kind == Kind.UNSUBSCRIBE
            self._subscribing = Subscribing(
                self.sink, self.sessions, rest, leaving=leaving, cut=cut, certainty=certainty
            )
        elif kind == Kind.CONNECTION:
            self._connecting.opened(rest)
        elif kind == Kind.TURNED_AWAY:
            self._connecting.turned_away(time_ns, rest, certainty)
        elif kind == Kind.VERSION:
            self._version(rest)
        elif kind == Kind.RELOADING:
            self._forget_types()
            self.sink.count("reloads")
        elif kind == Kind.TLS_ERROR:
            self.sink.count("tls_errors")
        elif kind == Kind.PROTOCOL_NAME:
            self.sink.count("protocol_errors")
            if b'"' not in rest:
                self._protocol_name = 6
        elif kind == 0:
            self._unknown(time_ns, message, cut)

    def _version(self, rest: bytes) -> None:
        version, _, doing = rest.partition(b" ")
        if doing not in (b"starting", b"terminating"):
            return
        if self.debug or not len(self.sessions):
            self.version = version
            self.sessions.restart(complete=doing == b"starting")
        else:
            # It may be a client's doing: who is connected is not forgotten on its word.
            self.sessions.complete = False
        if doing == b"starting":
            self._forget_types()
            self.sink.count("broker_starts")

    def _unknown(self, time_ns: int, message: bytes, cut: bool) -> None:
        """Take a line of no kind: a grant in a log without debug lines, or a plugin's own."""
        if not message.startswith(b"\t") and not self.debug and not cut:
            grants = [g for g in grammar.read_grants(message) if self.sessions.knows(name(g[0]))]
            if len(grants) == 1:
                self._granted(time_ns, grants[0], Certainty.INFERRED)
                return
            if grants:
                self.sink.error("ambiguous")
                self.sink.notice(MALFORMED, "ambiguous", time_ns, witness=message)
                return
        self.sink.count("other_lines")

    def _may_be_grant(self, message: bytes) -> bool:
        """Whether the line may be of type subscribe or unsubscribe, by a client whose id begins like this line."""
        return any(
            byte == 0x20 and name(message[:space]) in self.sessions.imitators for space, byte in enumerate(message)
        )

    def _granted(self, time_ns: int, grant: tuple[bytes, int, bytes], certainty: Certainty) -> None:
        client_id, qos, filter_ = grant
        self._saw_grant()
        client = self.sessions.find(name(client_id))
        self.sink.event(time_ns, Action.SUBSCRIBE, client, Outcome.ALLOWED, certainty, topic=filter_, qos=qos)

    # Connect lines and what may hide behind them

    def _connected(
        self, time_ns: int, raw: Line, start: int, message: bytes, rest: bytes, cut: bool, certainty: Certainty
    ) -> None:
        self._connecting.flush()
        line = grammar.read_connected(rest, cut)
        if line is None:
            self.sink.error("cut" if cut else "unreadable")
            self.sessions.unreadable = True
            return
        size = len(raw.raw) - start
        if line.unfinished is not None:
            self._suspects.begin(Quarantine(time_ns, rest, size, whole=False))
            return
        self._connecting.arrived(time_ns, line, message, cut, certainty)
        if not self.clock.shared and not cut:  # syslog may drop lines of type debug
            self._arrival = Quarantine(time_ns, rest, size, whole=True)

    def _follows_arrival(self, line: Line, kind: int) -> bool:
        """Check the line after a connect line; return whether to go on with it."""
        arrival, self._arrival = self._arrival, None
        if arrival is None:
            return True
        if kind == Kind.WILL:
            self._will_topic = True
            self.sink.count("wills")
        if kind in (Kind.WILL, Kind.NO_WILL):
            if self.debug is False:
                self.debug = None  # the log's types must have changed where a line of type information is not shown
            self._connecting.named()
            return True
        if self.debug:
            self._suspects.begin(arrival, line)
            return False
        if self.debug is None:
            self.debug = False
            self._connecting.weaken()
        self._connecting.named()
        return True

    def _message_of(self, raw: bytes) -> bytes | None:
        found = self.clock.split(raw)
        return None if found is None else raw[found[2] :]

    def _saw_grant(self) -> None:
        self.grants_seen = True
        self.kinds_seen.add(Kind.GRANT)

    def _forget_types(self) -> None:
        self.debug = None
        self.grants_seen = False

    def _end_subscribing(self) -> None:
        if self._subscribing is not None:
            self._subscribing.end()
            self._subscribing = None
