"""How numbers, times, certainty and identity are said to a person."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from typing import Final

from topicwarden.events import Certainty, Client, Identity
from topicwarden.findings import Scalar
from topicwarden.output.escape import quoted

CERTAINTY: Final = {
    Certainty.EXACT: "exact: the source reported it directly",
    Certainty.INFERRED: "inferred: it follows from what the source reported",
    Certainty.UNKNOWN: "unknown: the source does not say what the broker decided",
}
CERTAINTY_SHORT: Final = {
    Certainty.EXACT: "exact",
    Certainty.INFERRED: "inferred",
    Certainty.UNKNOWN: "outcome not known",
}
IDENTITY: Final = {
    Identity.VERIFIED: "verified by the broker",
    Identity.CLAIMED: "claimed by the client, not verified",
    Identity.ANONYMOUS: "anonymous",
    Identity.UNKNOWN: "the source does not say whether verified",
}
IDENTITY_SHORT: Final = {
    Identity.VERIFIED: "verified",
    Identity.CLAIMED: "only claimed",
    Identity.ANONYMOUS: "anonymous",
    Identity.UNKNOWN: "not known whether verified",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(time_ns: int, digits: int = 3) -> str:
    """Return nanoseconds since the epoch as ISO 8601 in UTC, cut (not rounded) to `digits` (1 to 9) of a second.

    Any int64 works: its range is the years 1677 to 2262.
    """
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{(_EPOCH + timedelta(seconds=seconds)):%Y-%m-%dT%H:%M:%S}.{fraction:09d}"[: 20 + digits] + "Z"


def number(value: int) -> str:
    """Return an integer with its thousands apart (ISO 80000-1): `1 234 567`."""
    return f"{value:,}".replace(",", " ")


def scalar(value: Scalar, columns: int | None = None) -> str:
    """Return a measured fact: integers grouped, other numbers to 4 significant digits, text quoted."""
    if isinstance(value, str):
        return quoted(value, columns)
    if isinstance(value, float):
        return number(round(value)) if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return number(int(value))  # numpy's integers, which evidence may hold, are no ints


def times(count: int) -> str:
    """Return `1 time` or `1 000 times`."""
    return counted(count, "time")


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, which takes an s unless there is one: `2 topics`."""
    return f"{number(count)} {noun}{'' if count == 1 else 's'}"


def duration(ns: int) -> str:
    """Return a length of time in its two largest units: `2 h 5 min`, `3.2 s`, `12 ms`."""
    if ns < 0:
        return "-" + duration(-ns)
    if ns < 1_000_000_000:
        return f"{ns // 1_000_000} ms"
    seconds = ns // 1_000_000_000
    if seconds < 60:
        return f"{ns / 1e9:.1f} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{number(seconds // 86400)} d {seconds % 86400 // 3600} h"


def client_name(client: Client | None, broker: str, columns: int | None = None) -> str:
    """Return who, as short as honesty allows: a name that was only claimed is never given as if it were known."""
    if client is None:
        return f"broker {quoted(broker, columns)}"
    if client.user is not None:
        name = quoted(client.user, columns)
        return f"{name} (only claimed)" if client.identity is Identity.CLAIMED else name
    kind = "anonymous client" if client.identity is Identity.ANONYMOUS else "client"
    return f"{kind} {quoted(client.client_id, columns)}" if client.client_id else f"{kind} without an id"


def user_in_words(client: Client, columns: int | None = None, short: bool = False) -> str:
    """Return the user name and how far to believe it."""
    if client.user is None:
        return "anonymous" if client.identity is Identity.ANONYMOUS else "user not known"
    words = (IDENTITY_SHORT if short else IDENTITY)[client.identity]
    return f"user {quoted(client.user, columns)} ({words})"


def address_in_words(client: Client, columns: int | None = None) -> str:
    """Return where the client connected from."""
    if not client.address:
        return "address not known"
    if client.port is None:
        return f"from {quoted(client.address, columns)}"
    return f"from {quoted(client.address, columns)} port {client.port}"


def ip_address(address: str | None) -> str | None:
    """Return `address` when SIEMs can index it as an IP address (no zone), else None: it may be a socket's path."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return None
    return None if "%" in str(parsed) else str(parsed)
