"""Reads the few Erlang terms that RabbitMQ writes as text: binaries, maps of them, IP addresses, processes. Pure.

As `io_lib:format("~p")` of Erlang 25 writes them: a binary whose bytes are all printable Latin-1 is a quoted string,
any other a list of numbers.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

_ESCAPES: Final = {
    b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v", b"b": b"\b", b"f": b"\f", b"e": b"\x1b", b"d": b"\x7f",
}  # fmt: skip
_BINARY: Final = rb'<<(?:"((?:[^"\\]|\\.)*)"|((?:\d{1,3}(?:,\d{1,3})*)?))>>'
_PAIR: Final = re.compile(_BINARY + rb"\s*=>\s*" + _BINARY, re.DOTALL)
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)
_TUPLE: Final = re.compile(r"\{(\d{1,5}(?:,\d{1,5}){3}|\d{1,5}(?:,\d{1,5}){7})\}")
_LONG_PID: Final = re.compile(r"<(.{1,255})\.(\d{1,12})\.(\d{1,12}\.\d{1,12})>", re.DOTALL)
_MAX_BYTES: Final = 1 << 18


def text_of(value: object) -> str | None:
    """Return text that came as str or, when it is no UTF-8, as bytes (then surrogate-escaped); None for other types."""
    if isinstance(value, str):
        return value
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else None


def binary_map(text: str) -> dict[str, str]:
    """Return the pairs of a map of binaries, `#{<<"client_id">> => <<"dev1">>}`; nothing for any other text."""
    data = text.encode("utf-8", "surrogateescape") if len(text) <= _MAX_BYTES else b""
    if not (data.startswith(b"#{") and data.endswith(b"}")):
        return {}
    found: dict[str, str] = {}
    at, end = 2, len(data) - 1
    while at < end:
        pair = _PAIR.match(data, at, end)
        if pair is None:
            return {}
        key, value = _binary(pair[1], pair[2]), _binary(pair[3], pair[4])
        if key is None or value is None:
            return {}
        found[key] = value
        at = pair.end()
        if at < end:
            if data[at : at + 1] != b",":
                return {}
            at += 1
            while data[at : at + 1].isspace():
                at += 1
    return found


def _binary(quoted: bytes | None, numbers: bytes | None) -> str | None:
    if quoted is not None:
        octets = _ESCAPE.sub(lambda match: _ESCAPES.get(match[1], match[1]), quoted)
    else:
        values = [int(number) for number in (numbers or b"").split(b",") if number]
        if any(value > 255 for value in values):
            return None
        octets = bytes(values)
    return octets.decode("utf-8", "surrogateescape")


def address_of(text: str | None) -> str | None:
    """Return an IP address written as a tuple (`{127,0,0,1}`) or as usual; None for anything else."""
    if not text:
        return None
    match = _TUPLE.fullmatch(text)
    try:
        if match is None:
            address = ipaddress.ip_address(text)
        else:
            parts = [int(part) for part in match[1].split(",")]
            width = 1 if len(parts) == 4 else 2
            address = ipaddress.ip_address(b"".join(part.to_bytes(width, "big") for part in parts))
    except (ValueError, OverflowError):
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def incarnation_of(pid: str) -> tuple[str, int] | None:
    """Return node and incarnation of a process as events name it, `<rabbit@host.1795436289.915.0>`; None otherwise.

    The incarnation (Erlang's "creation") changes with every start of the node.
    """
    match = _LONG_PID.fullmatch(pid)
    return None if match is None else (match[1], int(match[2]))


def logged(node: str, pid: str) -> str:
    """Return a process of a node's own log (`<0.915.0>`) so that it can be told from other nodes'."""
    return f"{node} {pid}"


def as_logged(pid: str) -> str:
    """Return what `logged` gives for a process as events name it."""
    match = _LONG_PID.fullmatch(pid)
    return pid if match is None else logged(match[1], f"<0.{match[3]}>")
