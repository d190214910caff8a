"""Ends of connections as logs write them."""

from __future__ import annotations

from topicwarden.events import Endpoint
from topicwarden.hosts.addresses import normalised


def endpoint(address: object, port: object) -> Endpoint | None:
    """Return an end of a connection; None when a part of it is missing or is no address or port."""
    if isinstance(port, str) and port.isascii() and port.isdigit() and len(port) <= 5:
        port = int(port)
    if not isinstance(address, str) or isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        return None
    found = normalised(address)
    return None if found is None else Endpoint(found, port)
