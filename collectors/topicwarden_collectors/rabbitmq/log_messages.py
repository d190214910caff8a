"""Reads RabbitMQ's log messages: bodies of `amq.rabbitmq.log` and lines of a JSON log file. Pure.

In JSON one message is one log event: a line feed in a name forges no second one. Every form is anchored at the first
character of the message, which is the broker's, and at the last. What lies between may be a client's words, so a
message is read in every way it can be (`log_grammar`), and says so when there is more than one (`ambiguous`). For who
did it go by `connection` and `pid`, joined with the event stream. RabbitMQ 3.10.8 was run; later forms were read.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from topicwarden_collectors.rabbitmq.log_connecting import (
    AMQP_ERROR,
    CONNECTION_SAYS,
    HTTP_DENIED,
    MQTT_LOGIN,
    STOMP_LOGIN,
    accepted,
    amqp_error,
    closing,
    connection_says,
    http_denied,
    mqtt_closing,
    mqtt_login,
    stomp_login,
)
from topicwarden_collectors.rabbitmq.log_facts import (
    WITNESS_LENGTH,
    ConnectionAccepted,
    ConnectionClosed,
    Fact,
    LoginRefused,
    NodeStarted,
    NodeStopping,
    Refused,
    Suspicious,
    TracingSwitched,
    UserAuthenticated,
)
from topicwarden_collectors.rabbitmq.log_refusals import (
    CHANNEL_ERROR,
    MQTT_REFUSED,
    MQTT_TOPIC,
    Written,
    channel_error,
    mqtt_refused,
    mqtt_topic,
)
from topicwarden_collectors.rabbitmq.log_spelling import Spelling, name_of, spelling_of

MAX_BODY_BYTES: Final = 1 << 20
"""A longer body is not looked at: names have 255 bytes, MQTT topics 65535, and six bytes each in JSON at worst."""
JOIN_CAPACITY: Final = 4096
"""Most processes whose half-told story a joiner keeps."""
JOIN_NS: Final = 5 * 10**9
"""How long a half waits for the other, by the broker's clock. The two are written within a millisecond."""


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One log event, as the broker's JSON formatter gives it."""

    time_ns: int
    """Nanoseconds since the epoch, UTC."""
    level: str
    msg: str
    """Its text; lines are told apart by line feeds, which names can hold too."""
    domain: str
    """`rabbitmq.channel`, `rabbitmq.connection` …; '' when there is none."""
    pid: str
    """`<0.784.0>`; '' when there is none."""


@dataclass(frozen=True, slots=True)
class Undecodable:
    """A body that is no log message."""

    reason: str


def decode_log(body: bytes) -> LogMessage | Undecodable:
    """Decode one JSON log message; never raises.

    The formatter may be told to leave fields out or to rename them; `time` and `msg` must be there, and `time` in one
    of RabbitMQ's own formats.
    """
    if len(body) > MAX_BODY_BYTES:
        return Undecodable(f"longer than {MAX_BODY_BYTES} bytes")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return Undecodable("no JSON")
    if not isinstance(fields, dict):
        return Undecodable("no JSON object")
    text = fields.get("msg")
    if not isinstance(text, str):
        return Undecodable("no msg")
    time_ns = parse_time(fields.get("time"))
    if time_ns is None:
        return Undecodable("no time")
    level, domain, pid = (
        field if isinstance(field := fields.get(key), str) else "" for key in ("level", "domain", "pid")
    )
    return LogMessage(time_ns, level, text, domain, pid)


_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII
)
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_MAX_SECONDS: Final = 1 << 33


def parse_time(value: object) -> int | None:
    """Return nanoseconds since the epoch for RFC 3339 text, or for seconds or microseconds since the epoch."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        if 0 <= value < _MAX_SECONDS:
            return value * 10**9
        return value * 1000 if 0 <= value < _MAX_SECONDS * 10**6 else None
    if not isinstance(value, str):
        return None
    match = _RFC3339.fullmatch(value)
    if match is None:
        return None
    zone = "+00:00" if match[8] == "Z" else match[8]
    try:
        moment = datetime.fromisoformat(f"{match[1]}-{match[2]}-{match[3]}T{match[4]}:{match[5]}:{match[6]}{zone}")
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86400 + since.seconds) * 10**9 + int((match[7] or "0").ljust(9, "0"))


_TRACING: Final = re.compile(
    r"(?:(Enabling)|Disabling) tracing for vhost '(.*)'|Tracing is already (?:(enabled)|disabled) for vhost '(.*)'",
    re.DOTALL,
)


def _tracing(written: Written, text: str) -> Fact | None:
    match = _TRACING.fullmatch(text)
    if match is None:
        return None
    vhost = name_of(match[2] if match[4] is None else match[4], written.spelling)
    if vhost is None:
        return Suspicious(written.time_ns, written.pid, None, "unreadable", text[:WITNESS_LENGTH])
    return TracingSwitched(written.time_ns, written.pid, None, vhost, bool(match[1] or match[3]))


_STARTING: Final = re.compile(r"\n Starting RabbitMQ (\d[\w.+-]{0,40}) on Erlang ", re.ASCII)


def _starting(written: Written, text: str) -> Fact | None:
    match = _STARTING.match(text)
    return None if match is None else NodeStarted(written.time_ns, written.pid, None, match[1])


def _stopping(written: Written, text: str) -> Fact | None:
    stopping = text == "RabbitMQ is asked to stop..."
    return NodeStopping(written.time_ns, written.pid, None) if stopping else None


_READERS: Final[Mapping[str, Sequence[tuple[str, Callable[[Written, str], Fact | None]]]]] = {
    # By the first two letters, to be quick with the many messages that say nothing to us.
    "Ch": ((CHANNEL_ERROR, channel_error),),
    "Er": ((AMQP_ERROR, amqp_error),),
    "co": ((CONNECTION_SAYS, connection_says),),
    "ac": (("accepting ", accepted),),
    "Ac": (("Accepted ", accepted),),
    "cl": (("closing ", closing),),
    "MQ": (
        (MQTT_LOGIN, mqtt_login),
        ("MQTT connection ", mqtt_closing),
        ("MQTT protocol error ", mqtt_closing),
        *((beginning, mqtt_refused) for beginning in MQTT_REFUSED),
    ),
    "op": ((MQTT_TOPIC, mqtt_topic),),
    "ST": ((STOMP_LOGIN, stomp_login),),
    "HT": ((HTTP_DENIED, http_denied),),
    "En": (("Enabling tracing ", _tracing),),
    "Di": (("Disabling tracing ", _tracing),),
    "Tr": (("Tracing is already ", _tracing),),
    "\n ": (("\n Starting RabbitMQ ", _starting),),
    "Ra": (("RabbitMQ is asked to stop", _stopping),),
}
_MUST_READ: Final = frozenset((channel_error, mqtt_topic, mqtt_refused))
"""What always is a refusal; unread, it is worth telling."""


def facts(message: LogMessage, spelling: Spelling = Spelling.UNKNOWN) -> Sequence[Fact]:
    """Return what one message says by itself; never raises.

    `spelling` is how the broker's version writes names (`spelling_of`); when it is not known, names beyond ASCII are
    ambiguous. A message of MQTT or STOMP that says only half (a failed login without its connection) gives a fact whose
    `connection` is None; `LogJoiner` completes it.
    """
    text = message.msg
    for beginning, reader in _READERS.get(text[:2], ()):
        if text.startswith(beginning):
            fact = reader(Written(message.time_ns, message.pid, spelling), text)
            break
    else:
        return ()
    if fact is None:
        if reader in _MUST_READ:
            return (_suspicious(message, "unreadable", None),)
        return ()
    if isinstance(fact, Refused | LoginRefused | UserAuthenticated) and fact.ambiguous:
        # What is still in doubt when letters beyond ASCII are not, was made to be.
        clearer = reader(Written(message.time_ns, message.pid, Spelling.TEXT), text)
        kind = "forged" if getattr(clearer, "ambiguous", True) else "unreadable"
        return (fact, _suspicious(message, kind, fact.connection))
    return (fact,)


def _suspicious(message: LogMessage, kind: str, connection: str | None) -> Suspicious:
    return Suspicious(message.time_ns, message.pid, connection, kind, message.msg[:WITNESS_LENGTH])


class LogJoiner:
    """Completes facts that take two messages of one process; keeps at most `JOIN_CAPACITY` processes in mind.

    MQTT's and STOMP's refusals name no connection. The same process says it when it accepts the connection or when it
    closes it; a refusal waits for that, for at most `JOIN_NS`, and is then given as it is.
    """

    def __init__(self, spelling: Spelling = Spelling.UNKNOWN) -> None:
        self.spelling = spelling
        """Of names; learnt when the log holds the node's start."""
        self.forgotten = 0
        """Processes dropped to make room."""
        self._connections: OrderedDict[str, str] = OrderedDict()
        self._waiting: OrderedDict[str, list[Fact]] = OrderedDict()
        self._oldest_ns: dict[str, int] = {}

    def feed(self, message: LogMessage) -> Sequence[Fact]:
        """Return `facts(message)`, completed by what the same process said before; call it instead of `facts`."""
        given: list[Fact] = []
        if self._waiting:
            self._expire(message.time_ns, given)
        for fact in facts(message, self.spelling):
            given += self._join(fact)
        return given

    def flush(self) -> Sequence[Fact]:
        """Return what still waits for its second half, as it is."""
        waiting = [fact for parts in self._waiting.values() for fact in parts]
        self._waiting.clear()
        self._oldest_ns.clear()
        return waiting

    def _join(self, fact: Fact) -> Sequence[Fact]:
        match fact:
            case NodeStarted():
                self._connections.clear()
                if fact.version is not None:
                    self.spelling = spelling_of(fact.version)
                return (*self.flush(), fact)
            case ConnectionAccepted(protocol="mqtt" | "stomp", connection=str(connection), pid=str(pid)) if pid:
                self._connections[pid] = connection
                if len(self._connections) > JOIN_CAPACITY:
                    self._connections.popitem(last=False)
                    self.forgotten += 1
                return (fact,)
            case ConnectionClosed(connection=str(connection), pid=pid) if pid:
                self._connections.pop(pid, None)
                self._oldest_ns.pop(pid, None)
                return (*(replace(half, connection=connection) for half in self._waiting.pop(pid, ())), fact)
            case (
                Refused(connection=None)
                | LoginRefused(connection=None, protocol="mqtt" | "stomp")
                | Suspicious(connection=None)
            ):
                return self._complete(fact)
        return (fact,)

    def _complete(self, fact: Fact) -> Sequence[Fact]:
        if (connection := self._connections.get(fact.pid)) is not None:
            return (replace(fact, connection=connection),)
        if not fact.pid:
            return (fact,)
        self._waiting.setdefault(fact.pid, []).append(fact)
        self._oldest_ns.setdefault(fact.pid, fact.time_ns)
        if len(self._waiting) <= JOIN_CAPACITY and len(self._waiting[fact.pid]) <= 8:
            return ()
        self.forgotten += 1
        return self._give_up(next(iter(self._waiting)))

    def _give_up(self, pid: str) -> Sequence[Fact]:
        self._oldest_ns.pop(pid, None)
        return self._waiting.pop(pid)

    def _expire(self, now_ns: int, given: list[Fact]) -> None:
        while self._waiting:
            pid = next(iter(self._waiting))
            # A clock that was set back ends the wait, too.
            if abs(now_ns - self._oldest_ns[pid]) <= JOIN_NS:
                return
            given += self._give_up(pid)
