"""Addresses as both sides of a join write them, and how far each of them reaches."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from topicwarden.events import Endpoint


class Scope(StrEnum):
    """How far an address reaches."""

    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    PRIVATE = "private"
    """RFC 1918, and IPv6 site-local (fec0::/10), which RFC 3879 deprecated and nobody routes to the Internet."""
    CGNAT = "cgnat"
    """Shared address space of carriers, RFC 6598."""
    ULA = "ula"
    """IPv6 unique local, RFC 4193."""
    MULTICAST = "multicast"
    DOCUMENTATION = "documentation"
    UNSPECIFIED = "unspecified"
    RESERVED = "reserved"
    """Set aside by IANA for something that is not reached over the Internet: benchmarks, protocols, the future."""
    PUBLIC = "public"


_RANGES: Final[tuple[tuple[str, Scope], ...]] = (
    ("0.0.0.0/32", Scope.UNSPECIFIED),
    ("0.0.0.0/8", Scope.RESERVED),
    ("10.0.0.0/8", Scope.PRIVATE),
    ("100.64.0.0/10", Scope.CGNAT),
    ("127.0.0.0/8", Scope.LOOPBACK),
    ("169.254.0.0/16", Scope.LINK_LOCAL),
    ("172.16.0.0/12", Scope.PRIVATE),
    ("192.0.0.9/32", Scope.PUBLIC),
    ("192.0.0.10/32", Scope.PUBLIC),
    ("192.0.0.0/24", Scope.RESERVED),
    ("192.0.2.0/24", Scope.DOCUMENTATION),
    ("192.168.0.0/16", Scope.PRIVATE),
    ("198.18.0.0/15", Scope.RESERVED),
    ("198.51.100.0/24", Scope.DOCUMENTATION),
    ("203.0.113.0/24", Scope.DOCUMENTATION),
    ("224.0.0.0/4", Scope.MULTICAST),
    ("240.0.0.0/4", Scope.RESERVED),
    ("::/128", Scope.UNSPECIFIED),
    ("::1/128", Scope.LOOPBACK),
    ("::/96", Scope.RESERVED),
    ("100::/64", Scope.RESERVED),
    ("100:0:0:1::/64", Scope.RESERVED),
    ("2001:1::1/128", Scope.PUBLIC),
    ("2001:1::2/128", Scope.PUBLIC),
    ("2001:1::3/128", Scope.PUBLIC),
    ("2001:3::/32", Scope.PUBLIC),
    ("2001:4:112::/48", Scope.PUBLIC),
    ("2001:20::/28", Scope.PUBLIC),
    ("2001:30::/28", Scope.PUBLIC),
    ("2001::/32", Scope.PUBLIC),
    ("2001::/23", Scope.RESERVED),
    ("2001:db8::/32", Scope.DOCUMENTATION),
    ("3fff::/20", Scope.DOCUMENTATION),
    ("5f00::/16", Scope.RESERVED),
    ("fc00::/7", Scope.ULA),
    ("fe80::/10", Scope.LINK_LOCAL),
    ("fec0::/10", Scope.PRIVATE),
    ("ff00::/8", Scope.MULTICAST),
)
"""IANA's IPv4 and IPv6 special-purpose address registries; the first range that holds an address tells. What they call
not globally reachable is not public: documentation ranges too, which RFC 5737, 3849 and 9637 keep from being routed, so
nobody can be reached there. Teredo (2001::/32) leads into the Internet. Lists of our own, as Python's `is_private` and
`is_global` changed within its releases 3.11 to 3.13."""

_V4: Final = tuple((ip_network(text), scope) for text, scope in _RANGES if ":" not in text)
_V6: Final = tuple((ip_network(text), scope) for text, scope in _RANGES if ":" in text)
_EMBEDDING: Final = tuple(
    IPv6Network(text)
    for text in (
        "64:ff9b::/96",  # NAT64, RFC 6052
        "64:ff9b:1::/48",  # NAT64 of one's own, RFC 8215; read as its /96 form, which translators use
        "::ffff:0:0:0/96",  # IPv4 translated, RFC 7915
    )
)
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")
_LONGEST: Final = 128


@lru_cache(maxsize=65_536)
def normalised(text: str) -> str | None:
    """Return an address in its one spelling: no brackets, no zone, IPv4 mapped into IPv6 as IPv4; None: it is none."""
    if len(text) > _LONGEST:
        return None
    try:
        return str(_unmapped(ip_address(text.strip("[]").partition("%")[0])))
    except ValueError:
        return None


@lru_cache(maxsize=65_536)
def reached(address: str) -> str:
    """Return the address that is spoken to in the end: the IPv4 address inside one for a NAT64, else the same."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    return str(_inner(found))


@lru_cache(maxsize=65_536)
def scope(address: str) -> Scope:
    """Return how far an address reaches; of IPv6 that carries an IPv4 address it is that one's. Raises ValueError."""
    return _scope(_inner(_unmapped(ip_address(address.strip("[]").partition("%")[0]))))


def is_loopback(address: str) -> bool:
    """Whether it stays on the host; Linux takes a connection to the unspecified address for one to loopback."""
    try:
        return scope(address) in (Scope.LOOPBACK, Scope.UNSPECIFIED)
    except ValueError:
        return False


def in_words(endpoint: Endpoint) -> str:
    """Return an endpoint as people write it: `10.0.0.7:1883`, `[fd00::7]:1883`."""
    address = endpoint.address
    return f"[{address}]:{endpoint.port}" if ":" in address else f"{address}:{endpoint.port}"


def _unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _inner(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        if any(address in network for network in _EMBEDDING):
            return IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _SIX_TO_FOUR:
            return IPv4Address((int(address) >> 80) & 0xFFFFFFFF)
    return address


def _scope(address: IPv4Address | IPv6Address) -> Scope:
    ranges: tuple[tuple[IPv4Network | IPv6Network, Scope], ...] = _V4 if isinstance(address, IPv4Address) else _V6
    return next((found for network, found in ranges if address in network), Scope.PUBLIC)
