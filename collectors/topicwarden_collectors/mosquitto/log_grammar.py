"""The grammar of Mosquitto's log messages, and every way a message can be read.

Nothing in a message is escaped, and client ids, user names and topics are the clients' own. So a reading is never just
"what the pattern matched": where a name can hold what separates it from the next part, all readings are returned.

Seen in 2.0.11, 2.0.22 and 2.1.2 (src/handle_publish.c, handle_connect.c, handle_subscribe.c, loop.c, logging.c):

- `Received PUBLISH` is written after the ACL has allowed the message, and never for one the ACL denied; `Denied
  PUBLISH` is written instead. Only when a plugin refuses the message after the ACL does `Denied` follow `Received`.
- The line, with the broker's own timestamp, is cut at 999 bytes.
- Lines of log type subscribe and unsubscribe begin with the client id, so that a client named like another line's
  beginning writes a line that looks like that one, timestamp included.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_LINE: Final = 999
"""Bytes of the longest line Mosquitto 2.0 and 2.1 write, timestamp included (a buffer of 1000)."""

KNOWN: Final = re.compile(
    rb"(Received PUBLISH from )|(Denied PUBLISH from )|(Sending PUBLISH to )|(Sending PUB(?:ACK|REC) to )"
    rb"|(Received SUBSCRIBE from )|(Received UNSUBSCRIBE from )|(Sending (?:UN)?SUBACK to )"
    rb"|(New connection from )|(New (?:client|bridge) connected from )|(No will message specified\.\Z)"
    rb"|(Will message specified \(\d+ bytes\))|(Sending CONNACK to )|(Client connection from )|(Client )"
    rb"|(Dropped too large PUBLISH from )|(Rejected PUBLISH from )|(Bad socket read/write on client )"
    rb"|(mosquitto version )|(Reloading config\.\Z)|(OpenSSL Error)"
    rb"|(Invalid protocol \"|Protocol error from .{1,200}: CONNECT with invalid protocol \")"
    rb"|((?:Received|Sending) (?:PING|DISCONNECT|PUB|AUTH|CONN)|Opening |Config loaded|Info: |Warning: |Error|Bridge "
    rb"|Connecting bridge|Protocol error from |Saving in-memory |ACL denying |Bad client |Plugin |Invalid "
    rb"|The '|You are using |Creating default listener|Starting in local only mode|Create a configuration file"
    rb"|Using default config|Restored )"
)
"""How the broker's messages begin; the group that matched says which kind, in the order of `Kind`."""


FIRST_WORDS: Final = frozenset(
    (
        "Received",
        "Denied",
        "Sending",
        "New",
        "No",
        "Will",
        "Client",
        "Dropped",
        "Rejected",
        "Bad",
        "mosquitto",
        "Reloading",
        "OpenSSL",
        "Invalid",
        "Protocol",
    )
)
"""First words of the messages that make events or change what we know."""


class Kind:
    """The groups of `KNOWN`, and one more."""

    RECEIVED = 1
    DENIED = 2
    SENDING = 3
    ACKNOWLEDGED = 4
    SUBSCRIBE = 5
    UNSUBSCRIBE = 6
    SUBACK = 7
    CONNECTION = 8
    CONNECTED = 9
    NO_WILL = 10
    WILL = 11
    CONNACK = 12
    TURNED_AWAY = 13
    CLIENT = 14
    TOO_LARGE = 15
    REJECTED = 16
    BAD_SOCKET = 17
    VERSION = 18
    RELOADING = 19
    TLS_ERROR = 20
    PROTOCOL_NAME = 21
    OTHER = 22
    GRANT = 23
    """Of type subscribe; `KNOWN` cannot tell them."""


DEBUG_KINDS: Final = frozenset(
    (
        Kind.RECEIVED,
        Kind.DENIED,
        Kind.SENDING,
        Kind.ACKNOWLEDGED,
        Kind.SUBSCRIBE,
        Kind.UNSUBSCRIBE,
        Kind.SUBACK,
        Kind.NO_WILL,
        Kind.WILL,
        Kind.CONNACK,
        Kind.TOO_LARGE,
        Kind.REJECTED,
    )
)
"""Kinds of log type debug: none of them can stand in a log that has no debug lines."""

_HEAD: Final = re.compile(rb" \(d([01]), q([012]), r([01]), m(\d{1,5}), '")
_TAIL: Final = re.compile(rb"', \.\.\. \((\d{1,9}) bytes\)\)\Z")
_PUBLISH: Final = re.compile(
    rb"(.+?) \(d([01]), q([012]), r([01]), m(\d{1,5}), '(.*)', \.\.\. \((\d{1,9}) bytes\)\)\Z", re.DOTALL
)
_TAIL_TEXT: Final = b"', ... ("


class PublishReading(NamedTuple):
    """One way to read a PUBLISH line."""

    client_id: bytes
    qos: int
    retain: int
    mid: int
    topic: bytes


class PublishLine(NamedTuple):
    """All the ways to read a PUBLISH line; more than one only when a name imitates the grammar."""

    readings: tuple[PublishReading, ...]
    size: int
    """Payload bytes; -1 when the line was cut."""
    cut: bool
    """Whether the topics are only beginnings."""


def read_publish(rest: bytes, cut: bool) -> PublishLine:
    """Read what follows `Received PUBLISH from `; no readings when it cannot be one."""
    match = _PUBLISH.match(rest)
    if match is not None and not cut and b" (d" not in match[6]:
        client_id, _, qos, retain, mid, topic, size = match.groups()
        if (qos == b"0") is (mid == b"0"):
            if b"+" in topic or b"#" in topic or not topic:
                return PublishLine((), int(size), False)
            return PublishLine((PublishReading(client_id, int(qos), int(retain), int(mid), topic),), int(size), False)
    size_known = -1
    tail = _TAIL.search(rest)
    end = len(rest)
    if tail is not None and not cut:
        size_known, end = int(tail[1]), tail.start()
    elif cut:
        # The cut may lie in the topic or in what follows it: drop all that may not be topic any more.
        end = _before_tail(rest)
    else:
        return PublishLine((), -1, False)
    readings = []
    for head in _HEAD.finditer(rest):
        topic = rest[head.end() : end] if head.end() <= end else b""
        mid, qos = int(head[4]), int(head[2])
        if head.start() == 0 or (qos == 0) is not (mid == 0) or mid > 65535:
            continue
        if cut:
            topic = _whole_characters(topic)
        if _can_be_topic(topic) or (cut and not topic):
            readings.append(PublishReading(rest[: head.start()], qos, int(head[3]), mid, topic))
    return PublishLine(tuple(readings), size_known, cut)


def _can_be_topic(topic: bytes) -> bool:
    """Whether the broker would have let this topic name in (mosquitto_pub_topic_check; the bytes are checked too)."""
    return bool(topic) and b"+" not in topic and b"#" not in topic


def _before_tail(rest: bytes) -> int:
    """Where a cut line's last `', ... (` or beginning of one stands; the line's length when there is none."""
    whole = rest.rfind(_TAIL_TEXT)
    if whole >= 0 and b" bytes))".startswith(rest[whole + len(_TAIL_TEXT) :].lstrip(b"0123456789")):
        return whole
    for length in range(len(_TAIL_TEXT) - 1, 0, -1):
        if rest.endswith(_TAIL_TEXT[:length]):
            return len(rest) - length
    return len(rest)


def _whole_characters(data: bytes) -> bytes:
    """Drop a UTF-8 character that was cut in its middle."""
    for back in range(1, min(4, len(data) + 1)):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        needs = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data if needs <= back else data[:-back]
    return data


_CONNECTED: Final = re.compile(rb"(.+?):(\d{1,5}) as (.+)\Z", re.DOTALL)
_CONNECT_HEAD: Final = re.compile(rb" \(p(\d{1,3}), c([01]), k(\d{1,5})(, u'|\)\.\Z)")
_CONNECT_END: Final = b"')."


@dataclass(frozen=True, slots=True)
class ConnectReading:
    """One way to read a connect line."""

    client_id: bytes
    user: bytes | None
    user_cut: bool


@dataclass(frozen=True, slots=True)
class ConnectLine:
    """A connect line."""

    address: bytes
    port: int
    readings: tuple[ConnectReading, ...]
    """Empty when the line gives no end of the client id."""
    unfinished: bytes | None
    """What stands after `as ` when the line ends within a name although it is shorter than the longest line."""


def read_connected(rest: bytes, cut: bool) -> ConnectLine | None:
    """Read what follows `New client connected from `."""
    match = _CONNECTED.match(rest)
    if match is None:
        return None
    names = match[3]
    finished = names.endswith(_CONNECT_END)
    readings = []
    for head in _CONNECT_HEAD.finditer(names):
        if head.start() == 0:
            continue
        client_id = names[: head.start()]
        if head[4] != b", u'":
            readings.append(ConnectReading(client_id, None, False))
        elif cut:
            readings.append(ConnectReading(client_id, None, True))
        elif finished and head.end() <= len(names) - len(_CONNECT_END):
            readings.append(ConnectReading(client_id, names[head.end() : -len(_CONNECT_END)], False))
    unfinished = None if readings or cut else names
    return ConnectLine(match[1], int(match[2]), tuple(readings), unfinished)


def unfinished_connect(names: bytes) -> bytes | None:
    """Return the client id, when only one can be read from a connect line that ends within the user name."""
    heads = [head for head in _CONNECT_HEAD.finditer(names) if head.start() and head[4] == b", u'"]
    return names[: heads[0].start()] if len(heads) == 1 else None


_FIXED_ENDINGS: Final = re.compile(
    rb"(.+?)( \[([^\[\]]+):(\d{1,5})\])?(?:"
    rb"( already connected, closing old connection\.)"
    rb"|( disconnected, not authorised\.| disconnected: not authorised\.| disconnected: bad username or password\."
    rb"| disconnected: bad authentication method\.| disconnected: client banned\.)"
    rb"|( disconnected\.| closed its connection\.| has exceeded timeout, disconnecting\."
    rb"| been disconnected by administrative action\.| disconnected due to (?:malformed packet|protocol error"
    rb"|oversize packet|oversize payload|out of memory|QoS too high or retain not supported"
    rb"|using not allowed feature \(QoS too high, retain not supported, or bad AUTH method\))\."
    rb"| disconnected: (?:malformed packet|protocol error|connection closed by client|exceeded timeout|oversize packet"
    rb"|oversize payload|out of memory|administrative action|receive maximum exceeded|implementation specific error"
    rb"|client identifier not valid|server unavailable|server busy|quota exceeded|connection rate exceeded"
    rb"|session taken over|topic alias invalid|non-matching http origin|used disallowed feature"
    rb" \(QoS too high, retain not supported, or bad AUTH method\))\."
    rb"))\Z",
    re.DOTALL,
)
_SYSTEM_ERRORS: Final = frozenset(os.strerror(number).encode() for number in range(134))
_SYSTEM_ERROR: Final = re.compile(rb" disconnected: ([^:.]+)\.\Z")
_ADDRESSED: Final = re.compile(rb"(.+)( \[([^\[\]]+):(\d{1,5})\])\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EndLine:
    """A line about the end of a connection."""

    client_id: bytes
    """As Mosquitto 2.1 means it: without `place`."""
    place: bytes
    """` [ADDRESS:PORT]` as Mosquitto 2.1 puts it behind the client id; in 2.0 it is the end of the client id."""
    address: bytes | None
    port: int | None
    why: str
    """`taken over`, `refused` or `ended`."""
    worded_as: bytes | None
    """`2.0` or `2.1` when only that version says it like this."""


def read_end(rest: bytes) -> EndLine | None:
    """Read what follows `Client `; None when it is not about an end."""
    match = _FIXED_ENDINGS.match(rest)
    if match is not None:
        why = "taken over" if match[5] else "refused" if match[6] else "ended"
        words = rest[match.end(1) + len(match[2] or b"") :]
        worded_as = None if words == b" disconnected." else b"2.1" if words.startswith(b" disconnected: ") else b"2.0"
    else:
        error = _SYSTEM_ERROR.search(rest)
        if error is None or error[1] not in _SYSTEM_ERRORS or not error.start():
            return None
        why, worded_as = "ended", None
        match = _ADDRESSED.match(rest[: error.start()])
        if match is None:
            return EndLine(rest[: error.start()], b"", None, None, why, None)
    if match[2] is None:
        return EndLine(match[1], b"", None, None, why, worded_as)
    return EndLine(match[1], match[2], match[3], int(match[4]), why, worded_as)


_ACKNOWLEDGED: Final = re.compile(rb"(.+) \(m(\d{1,5}), rc(\d{1,3})\)\Z", re.DOTALL)
_CONNACK: Final = re.compile(rb"(.+) \((\d{1,3}), (\d{1,3})\)\Z", re.DOTALL)
_CONNECTION: Final = re.compile(rb"(.+):(\d{1,5}) on port (\d{1,5})\.\Z", re.DOTALL)
_FILTER: Final = re.compile(rb"\t(.*?)(?: \(QoS (\d{1,3})\)| \((denied)\))\Z", re.DOTALL)
_GRANT: Final = re.compile(rb"(?= ([012]) )")


def read_acknowledged(rest: bytes) -> tuple[bytes, int, int] | None:
    """Read what follows `Sending PUBACK to ` or `Sending PUBREC to `: client id, message id, reason code."""
    match = _ACKNOWLEDGED.match(rest)
    return None if match is None else (match[1], int(match[2]), int(match[3]))


def read_connack(rest: bytes) -> tuple[bytes, int] | None:
    """Read what follows `Sending CONNACK to `: client id (or address, when there is none yet) and reason code."""
    match = _CONNACK.match(rest)
    return None if match is None else (match[1], int(match[3]))


def read_connection(rest: bytes) -> tuple[bytes, int] | None:
    """Read what follows `New connection from `: address and port."""
    match = _CONNECTION.match(rest)
    return None if match is None else (match[1], int(match[2]))


def read_filter(message: bytes) -> tuple[bytes, int | None] | None:
    """Read a filter line below `Received SUBSCRIBE`: filter and QoS, QoS None when denied (Mosquitto 2.1 says so)."""
    match = _FILTER.match(message)
    return None if match is None else (match[1], None if match[3] else int(match[2]))


def read_grants(message: bytes) -> list[tuple[bytes, int, bytes]]:
    """Return all ways to read a line of log type subscribe: client id, QoS, filter."""
    return [
        (message[: found.start()], int(found[1]), message[found.start() + 3 :])
        for found in _GRANT.finditer(message)
        if found.start() and found.start() + 3 < len(message)
    ]
