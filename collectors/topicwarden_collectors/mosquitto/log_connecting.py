"""Lines about connections: who came, who was refused, who went."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from topicwarden.events import Action, Certainty, Client, Identity, Outcome
from topicwarden_collectors.mosquitto import log_grammar as grammar
from topicwarden_collectors.mosquitto.log_grammar import ConnectLine, ConnectReading, EndLine
from topicwarden_collectors.mosquitto.log_sessions import Sessions, name
from topicwarden_collectors.mosquitto.log_sink import MALFORMED, LogSink

_UNKNOWN: Final = b"<unknown>"
"""What Mosquitto 2.0 writes for a connection that has no client id yet; 2.1 writes the address."""
_IDENTITY_CODES: Final = frozenset((4, 5, 134, 135, 138, 140))
"""CONNACK codes about who it is: bad user name or password, not authorised, banned, bad authentication method."""
_TURNED_AWAY: Final = re.compile(rb"(.+) denied(?:: max_connections exceeded| access by tcpd)\.\Z", re.DOTALL)


@dataclass(slots=True)
class _Arrival:
    time_ns: int
    line: ConnectLine
    cut: bool
    certainty: Certainty
    text: bytes


@dataclass(slots=True)
class _Refusal:
    time_ns: int
    action: Action
    client_id: str
    address: str | None
    certainty: Certainty


class Connecting:
    """Holds one connect line, or one refusal, at a time until the lines after it have said all they can."""

    def __init__(self, sink: LogSink, sessions: Sessions) -> None:
        self._sink = sink
        self._sessions = sessions
        self._arrival: _Arrival | None = None
        self._refusal: _Refusal | None = None

    @property
    def waiting(self) -> bool:
        """Whether a line is held."""
        return self._arrival is not None or self._refusal is not None

    def opened(self, rest: bytes) -> None:
        """Take a New connection line."""
        found = grammar.read_connection(rest)
        if found is not None:
            self._sessions.opened(name(found[0]), found[1])

    def arrived(self, time_ns: int, line: ConnectLine, text: bytes, cut: bool, certainty: Certainty) -> None:
        """Take a connect line that is whole, or cut at the longest line's end; the next may be its client's."""
        self.flush()
        for reading in line.readings:
            self._sessions.may_be_connected(name(reading.client_id))
        self._arrival = _Arrival(time_ns, line, cut, certainty, text)

    def weaken(self) -> None:
        """Let what is held be inferred at best."""
        if self._arrival is not None:
            self._arrival.certainty = Certainty.INFERRED

    def drop_arrival(self) -> None:
        """Forget the held connect line: it turned out to be something else."""
        self._arrival = None

    def named(self) -> None:
        """Decide the held connect line when it can be read in one way only; else it goes on waiting for CONNACK."""
        arrival = self._arrival
        if arrival is not None and len(arrival.line.readings) == 1 and not arrival.cut:
            self._arrival = None
            self._let_in(arrival, arrival.line.readings[0], arrival.certainty)

    def connack(self, time_ns: int, rest: bytes, cut: bool, certainty: Certainty) -> None:
        """Take a CONNACK line: it ends with its numbers, so the client id in it can be read in one way only."""
        answer = None if cut else grammar.read_connack(rest)
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            matching = [r for r in arrival.line.readings if answer is not None and r.client_id == answer[0]]
            if len(matching) == 1:
                sure = len(arrival.line.readings) == 1
                self._let_in(arrival, matching[0], arrival.certainty if sure else Certainty.INFERRED)
            else:
                self._give_up(arrival)
        self.flush()
        if answer is None or answer[1] == 0:
            return
        who, reason = name(answer[0]), answer[1]
        address = who if self._is_address(who) else None
        action = Action.AUTHENTICATE if reason in _IDENTITY_CODES else Action.CONNECT
        self._refusal = _Refusal(time_ns, action, "" if address is not None else who, address, certainty)

    def turned_away(self, time_ns: int, rest: bytes, certainty: Certainty) -> None:
        """Take a line about a connection that was closed before it could say anything."""
        match = _TURNED_AWAY.match(rest)
        if match is not None:
            client = Client(self._sink.broker, "mqtt", "", address=name(match[1]), identity=Identity.CLAIMED)
            self._sink.event(time_ns, Action.CONNECT, client, Outcome.DENIED, certainty)

    def ended(self, time_ns: int, rest: bytes, version: bytes | None, certainty: Certainty) -> None:
        """Take a Client line; those that are not about an end are left alone."""
        end = grammar.read_end(rest)
        if end is None:
            return
        self._flush_arrival()
        client_id = self._ended_id(end, version)
        if client_id is None:
            self._sink.error("ambiguous")
            self._sink.notice(MALFORMED, "ambiguous", time_ns, witness=rest)
            return
        if self._is_nameless(end, client_id):
            self._nameless_end(time_ns, end, certainty)
            return
        if end.why == "refused":
            # The client id is only claimed, and may be that of a client that goes on undisturbed.
            self._refused_end(time_ns, client_id, end, certainty)
        elif end.address is not None and client_id == name(end.client_id):
            self._ended_at(time_ns, client_id, name(end.address), end.port or None, certainty)
        elif end.why == "taken over":
            self._sink.event(
                time_ns, Action.DISCONNECT, self._sessions.taken_over(client_id), Outcome.UNKNOWN, certainty
            )
        elif not self._sessions.ended_before(client_id):
            self._sink.event(time_ns, Action.DISCONNECT, self._sessions.ended(client_id), Outcome.UNKNOWN, certainty)

    def _ended_at(self, time_ns: int, client_id: str, address: str, port: int | None, certainty: Certainty) -> None:
        """Take an end of which the address is known; it may be an older connection's, while a newer one goes on."""
        client = self._sessions.find(client_id)
        if self._sessions.closed(address, port or 0):
            # It never was let in: its client id is only claimed.
            self.flush()
            return
        if (client.address, client.port) == (address, port):
            self._sessions.ended(client_id)
        else:
            if client.address is None:
                self._sessions.ended(client_id)
            client = Client(self._sink.broker, "mqtt", client_id, address=address, port=port)
        self._sink.event(time_ns, Action.DISCONNECT, client, Outcome.UNKNOWN, certainty)

    def flush(self) -> None:
        """Decide what is held with what is known."""
        self._flush_arrival()
        refusal, self._refusal = self._refusal, None
        if refusal is not None:
            self._refuse(refusal, refusal.address, self._only_port(refusal.address))

    def broken(self, time_ns: int, address: bytes, port: int, reading: ConnectReading) -> Client:
        """Let in a client whose name holds line breaks."""
        line = ConnectLine(address, port, (reading,), None)
        self._let_in(_Arrival(time_ns, line, False, Certainty.INFERRED, b""), reading, Certainty.INFERRED)
        return self._sessions.find(name(reading.client_id))

    def _flush_arrival(self) -> None:
        self.named()
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            self._give_up(arrival)

    def _client(self, line: ConnectLine, client_id: bytes, user: bytes | None, *, cut: bool) -> Client:
        return Client(
            self._sink.broker,
            "mqtt",
            name(client_id),
            None if user is None else name(user),
            name(line.address),
            line.port or None,
            # The log does not say whether a password was asked for.
            identity=Identity.UNKNOWN if cut or user is not None else Identity.ANONYMOUS,
        )

    def _let_in(self, arrival: _Arrival, reading: ConnectReading, certainty: Certainty) -> None:
        client = self._client(arrival.line, reading.client_id, reading.user, cut=reading.user_cut)
        self._sessions.connected(client, self._sessions.closed(name(arrival.line.address), arrival.line.port))
        self._sink.event(arrival.time_ns, Action.CONNECT, client, Outcome.ALLOWED, certainty)

    def _give_up(self, arrival: _Arrival) -> None:
        """The client's id cannot be told. Clients we know stay who they are: a takeover would have been logged."""
        self._sessions.closed(name(arrival.line.address), arrival.line.port)
        self._sessions.unreadable = True
        stage = "cut" if arrival.cut else "ambiguous"
        self._sink.error(stage)
        self._sink.notice(MALFORMED, stage, arrival.time_ns, witness=arrival.text)

    def _is_address(self, who: str) -> bool:
        if self._sessions.has_connection_from(who):
            return True
        try:
            ipaddress.ip_address(who.partition("%")[0])
        except ValueError:
            return False
        return not self._sessions.knows(who)

    def _ended_id(self, end: EndLine, version: bytes | None) -> str | None:
        """Return whose end it is; Mosquitto 2.1 puts the address behind the client id, 2.0 does not."""
        if not end.place:
            return name(end.client_id)
        with_place = name(end.client_id + end.place)
        if version is not None or end.worded_as is not None:
            old = (version or end.worded_as or b"").startswith((b"1.", b"2.0"))
            return with_place if old else name(end.client_id)
        client = self._sessions.find(name(end.client_id))
        fits = end.address is not None and (client.address, client.port) == (name(end.address), end.port or None)
        if fits is self._sessions.knows(with_place):
            return None
        return name(end.client_id) if fits else with_place

    def _is_nameless(self, end: EndLine, client_id: str) -> bool:
        return (end.client_id == _UNKNOWN and not end.place) or (
            end.client_id == end.address and not self._sessions.knows(client_id)
        )

    def _nameless_end(self, time_ns: int, end: EndLine, certainty: Certainty) -> None:
        if end.why == "refused":
            self._refused_end(time_ns, "", end, certainty)
            return
        refusal = self._refusal
        if refusal is not None and end.address is not None and refusal.address == name(end.address):
            # Refused for another reason than who it is; here is its port.
            self._refusal = None
            self._refuse(refusal, refusal.address, end.port)
        self.flush()
        if end.address is None:
            self._sessions.only_connection(None)
        else:
            self._sessions.closed(name(end.address), end.port or 0)

    def _refused_end(self, time_ns: int, client_id: str, end: EndLine, certainty: Certainty) -> None:
        """Take the end of a refused connection; with debug lines, the CONNACK before it has said most already."""
        address, port = (None, None) if end.address is None else (name(end.address), end.port)
        held, self._refusal = self._refusal, None
        if held is not None and held.client_id == client_id and (address is None or held.address in (None, address)):
            refusal = held
            address = address or held.address
        else:
            if held is not None:
                self._refuse(held, held.address, self._only_port(held.address))
            refusal = _Refusal(time_ns, Action.AUTHENTICATE, client_id, None, certainty)
            if address is None:
                address, port = self._sessions.only_connection(None)
                refusal.certainty = min(certainty, Certainty.INFERRED)
        if end.address is not None:
            self._sessions.closed(name(end.address), end.port or 0)
        elif port is None:
            port = self._only_port(address)
        self._refuse(refusal, address, port)

    def _only_port(self, address: str | None) -> int | None:
        return None if address is None else self._sessions.only_connection(address)[1]

    def _refuse(self, refusal: _Refusal, address: str | None, port: int | None) -> None:
        client = Client(
            self._sink.broker,
            "mqtt",
            refusal.client_id,
            address=address,
            port=port or None,
            identity=Identity.CLAIMED,
        )
        self._sink.event(refusal.time_ns, refusal.action, client, Outcome.DENIED, refusal.certainty)
