"""Where a command connects: hosts, ports and addresses as programs write them; and protocols by their first bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from topicwarden.hosts.tools import SCHEMES, SERVICES

MASK: Final = "***"
"""What secrets are replaced by, before an event is built."""
PAYLOAD: Final = "<payload>"
"""What a payload is replaced by; `<payload:xmpp>` where it was the beginning of a conversation in that protocol."""
MAX_NAMES: Final = 16
DEFAULT_PORTS: Final = {"mqtt": 1883, "amqp": 5672, "stomp": 61613, "xmpp": 5222}

_MASKED: Final = re.compile(r"<payload:([a-z]{1,8})>")
_NUMBER: Final = re.compile(r"[ \t\n\v\f\r]*\+?(\d{1,10})")
_C_NUMBER: Final = re.compile(r"[ \t]*\+?(0[xX][0-9A-Fa-f]{1,8}|\d{1,10})")
_ADDRESS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,15})://([^/?#]*)(.*)", re.DOTALL)
_UNKNOWABLE: Final = re.compile(r"[\s$`\"'<>{}\\]|\*\*\*")
_PROTOCOLS: Final = (
    ("xmpp", re.compile(r"<stream:stream|jabber:(?:client|server)")),
    ("stomp", re.compile(r"(?:CONNECT|STOMP)(?:\r|\\r)?(?:\n|\\n)(?:accept-version|host|login|passcode)\s*:")),
    ("mqtt", re.compile(r"^(?:\x10|\\x10|\\020).{0,24}?(?:MQTT|MQIsdp)", re.DOTALL)),
    ("amqp", re.compile(r"^AMQP(?:\x00|\\x0|\\0|\x01|\x02|\x03)")),
)


@dataclass(frozen=True, slots=True)
class Target:
    """Where something connects; None: cannot be told."""

    host: str | None
    port: int | None


def known(host: str) -> str | None:
    """Return a host, None when what is written is none (a variable, a secret, nothing)."""
    host = host.removeprefix("[").removesuffix("]") if ":" in host else host
    return None if not host or len(host) > 255 or _UNKNOWABLE.search(host) else host


def number_of(text: str, *, strict: bool = False, base: int = 10) -> int | None:
    """Return a port as C's atoi reads it, or (`strict`) strtol up to the end; `base` 0: octal and hexadecimal, too."""
    match = (_C_NUMBER if base == 0 else _NUMBER).match(text)
    if match is None or (strict and match.end() != len(text)):
        return None
    digits = match[1]
    try:
        number = int(digits, 16 if digits[:2] in ("0x", "0X") else 8 if base == 0 and digits[0] == "0" else 10)
    except ValueError:
        return None
    return number if 0 < number < 65536 else None


def port_of(text: str) -> int | None:
    """Return a port that is written as a number or a service's name."""
    number = number_of(text, strict=True)
    return number if number is not None else SERVICES.get(text)


def host_and_port(text: str, default: int | None = None) -> Target:
    """Read `host`, `host:port`, `[address]:port`."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return Target(known(host), port_of(rest[1:]) if rest[:1] == ":" else default)
    if text.count(":") > 1:
        return Target(known(text), default)
    host, colon, port = text.partition(":")
    return Target(known(host), port_of(port) if colon else default)


def url_target(text: str) -> Target | None:
    """Read an address as RFC 3986 has it; None when its scheme is no broker's."""
    match = _ADDRESS.match(text.strip())
    if match is None:
        return None
    scheme = match[1].lower()
    default = (
        SCHEMES[scheme][1] if scheme in SCHEMES else {"ws": 80, "wss": 443, "tcp": None, "ssl": None}.get(scheme, -1)
    )
    if default == -1:
        return None
    target = host_and_port(match[2].rpartition("@")[2], default)
    if "@" not in match[2] and MASK in match[2]:
        # What was taken out held an `@`: who is the user and who the host cannot be told.
        return Target(None, None)
    return Target(known(unquote(target.host)) if target.host else None, target.port)


def mosquitto_url(text: str) -> tuple[Target, str] | None:
    """Read an address and its topic as mosquitto's clients do (client_shared.c): the first `@`, the first `:`, atoi."""
    match = re.match(r"(mqtts?|wss?)://", text, re.IGNORECASE)
    if match is None:
        return None
    default = 8883 if match[1].lower() in ("mqtts", "wss") else 1883
    authority, slash, topic = text[match.end() :].partition("/")
    if not slash:
        return None
    user, at, rest = authority.partition("@")
    host, colon, port = (rest if at else user).partition(":")
    if MASK in port:
        return Target(None, None), topic
    return Target(known(host), number_of(port) if colon else default), topic


def masked_protocol(text: str) -> str | None:
    """Return what a payload that was taken out spoke."""
    match = _MASKED.search(text)
    return match[1] if match is not None else None


def protocol_of_bytes(text: str) -> str | None:
    """Return which protocol a text begins a conversation in, written plainly or with printf's escapes."""
    text = text[:2048].lstrip("'\" ")
    return next((name for name, pattern in _PROTOCOLS if pattern.search(text)), None)
