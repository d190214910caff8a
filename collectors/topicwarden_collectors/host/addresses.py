"""Addresses as events write them: no brackets, no zone, IPv4 mapped into IPv6 as IPv4."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from topicwarden.events import Endpoint


@lru_cache(maxsize=16_384)
def address_of(text: str) -> str | None:
    """Return a text's IP address in its one spelling, None when it is none."""
    if len(text) > 128:
        return None
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def endpoint(address: object, port: object) -> Endpoint | None:
    """Return an end of a connection; None when a part of it is missing or is no address or port."""
    if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) <= 5:
        port = int(port)
    if not isinstance(address, str) or isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        return None
    found = address_of(address)
    return None if found is None else Endpoint(found, port)
