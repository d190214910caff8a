"""What is known of where brokers and hosts are: which connections may lead to a broker, which host an address is of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from topicwarden.events import Dialled, Endpoint
from topicwarden.hosts.addresses import is_loopback, normalised, reached
from topicwarden.hosts.event_time import HOUR_NS

PROTOCOL_PORTS: Final[Mapping[str, frozenset[int]]] = {
    "mqtt": frozenset({1883, 8883, 80, 443, 8080, 8083, 8084, 9001, 15675}),
    "amqp": frozenset({5672, 5671}),
    "stomp": frozenset({61613, 61614, 15674}),
    "xmpp": frozenset({5222, 5223, 5269, 5270, 80, 443, 5280, 5281}),
}
"""Where brokers commonly listen, with WebSocket; it stands in where nothing is known of a broker's ports."""
MAX_OWNERS: Final = 8
"""Hosts remembered of one address."""


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """What is known of where a broker is; whatever is empty is not known."""

    host: str | None = None
    """The host it runs on, as that host's telemetry spells it."""
    addresses: Collection[str] = ()
    """What clients dial: IP addresses, networks (`10.2.0.0/16`), host names. Names help to read command lines; where
    there is one, or a loopback address, other addresses are not excluded."""
    ports: Collection[int] = ()


def same_host(one: str, other: str) -> bool:
    """Whether two names are one host's: in any case, and with or without the domain."""
    first, second = one.lower(), other.lower()
    if first == second:
        return True
    if ("." in first) == ("." in second):
        return False
    return first.partition(".")[0] == second.partition(".")[0]


class Dial:
    """A connection as a host told it, with addresses in their one spelling."""

    __slots__ = ("end_ns", "event", "host", "local", "number", "pid", "relevant_ns", "remote", "time_ns", "to_itself")

    def __init__(self, event: Dialled, number: int = -1) -> None:
        self.event = event
        self.number = number
        self.host = event.host
        self.pid = event.pid
        self.time_ns = event.time_ns
        self.end_ns = None if event.duration_ns is None else event.time_ns + event.duration_ns
        self.relevant_ns = event.time_ns
        self.remote = _spelt(event.remote)
        local = None if event.local is None else _spelt(event.local)
        # The unspecified address is what an unbound socket has: nothing is told by it.
        self.local = None if local is None or local.address in ("0.0.0.0", "::") or not local.port else local  # noqa: S104
        self.to_itself = is_loopback(self.remote.address) or (
            self.local is not None and self.local.address == self.remote.address
        )

    @property
    def may_stand(self) -> bool:
        """Whether a session can have been on it: these protocols run over TCP, and it was not refused."""
        return self.event.transport == "tcp" and self.event.established is not False

    def nearness(self, time_ns: int) -> tuple[int, int, str, int, str, int]:
        """Return how near in time it is; of those equally near it decides the same whatever came first."""
        pid = -1 if self.pid is None else self.pid
        return abs(time_ns - self.time_ns), self.time_ns, self.host, pid, self.remote.address, self.remote.port


class Place:
    """A `BrokerPlace` made ready to be asked."""

    def __init__(self, place: BrokerPlace) -> None:
        self.host = place.host
        self.ports = frozenset(place.ports)
        self.names: list[str] = [str(address) for address in place.addresses]
        """What a command line may call it."""
        self._addresses: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        self._open = not self.names
        """Whether it may have other addresses than these."""
        for text in self.names:
            address = normalised(text)
            if address is not None:
                self._addresses.add(address)
                self._open |= is_loopback(address)
                continue
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError:
                self._open = True

    def contradicts(self, dial: Dial) -> bool:
        """Whether a connection cannot be one to this broker."""
        if self.ports and dial.remote.port not in self.ports:
            return True
        if dial.to_itself and self.host is not None:
            return not same_host(self.host, dial.host)
        return not (self._open or is_loopback(dial.remote.address) or self._has(dial.remote.address))

    def confirms(self, dial: Dial, protocol: str) -> bool:
        """Whether something known speaks for a connection's being one to this broker."""
        if self.contradicts(dial):
            return False
        if self.ports or not self._open or self._has(dial.remote.address):
            return True
        return dial.remote.port in PROTOCOL_PORTS.get(protocol, ())

    def is_host(self, host: str) -> bool:
        """Whether it is known to run on a host."""
        return self.host is not None and same_host(self.host, host)

    def _has(self, address: str) -> bool:
        for one in {address, reached(address)}:
            if one in self._addresses:
                return True
            try:
                parsed = ip_address(one)
            except ValueError:
                continue
            if any(parsed in network for network in self._networks):
                return True
        return False


class Places:
    """The places of brokers by their names."""

    def __init__(self, brokers: Mapping[str, BrokerPlace]) -> None:
        self._places = {name: Place(place) for name, place in brokers.items()}
        self._unknown = Place(BrokerPlace())

    def of(self, broker: str) -> Place:
        """Return the place of a broker; nothing is known of one that was not given."""
        return self._places.get(broker, self._unknown)


class AddressOwners:
    """Which hosts had an address, and when: as given, and as the local ends of their connections tell.

    Two hosts may have one address: one after the other (DHCP), or both at once (each host's own container network). An
    address counts as a host's from an hour before it was first seen there to an hour after it was last.
    """

    def __init__(self, given: Mapping[str, Iterable[str]], capacity: int) -> None:
        """`given`: addresses by host, for always."""
        self.dropped = 0
        self._capacity = capacity
        self._always: dict[str, set[str]] = {}
        self._addresses: dict[str, set[str]] = {}
        """By host, the other way round."""
        self._seen: OrderedDict[str, dict[str, list[int]]] = OrderedDict()
        for host, addresses in given.items():
            for text in addresses:
                address = normalised(text)
                if address is not None and not is_loopback(address):
                    self._always.setdefault(address, set()).add(host)
                    self._addresses.setdefault(host, set()).add(address)

    def learn(self, dial: Dial) -> None:
        """Note whose address a connection came from. A network sensor names the address itself as the host."""
        if dial.local is None or dial.host == dial.local.address or is_loopback(dial.local.address):
            return
        address = dial.local.address
        hosts = self._seen.get(address)
        if hosts is None:
            if len(self._seen) >= self._capacity:
                self._forget(*self._seen.popitem(last=False))
            hosts = self._seen[address] = {}
        else:
            self._seen.move_to_end(address)
        span = hosts.get(dial.host)
        if span is not None:
            span[0], span[1] = min(span[0], dial.time_ns), max(span[1], dial.time_ns)
        elif len(hosts) < MAX_OWNERS:
            hosts[dial.host] = [dial.time_ns, dial.time_ns]
            self._addresses.setdefault(dial.host, set()).add(address)
        else:
            self.dropped += 1

    def at(self, address: str, time_ns: int) -> list[str]:
        """Return the hosts that had an address at about a time, sorted."""
        found = set(self._always.get(address, ()))
        for host, (first, last) in self._seen.get(address, {}).items():
            if first - HOUR_NS <= time_ns <= last + HOUR_NS:
                found.add(host)
        return sorted(found)

    def of(self, host: str, time_ns: int) -> list[str]:
        """Return the addresses a host had at about a time, sorted."""
        return sorted(one for one in self._addresses.get(host, ()) if host in self.at(one, time_ns))

    def _forget(self, address: str, hosts: Iterable[str]) -> None:
        self.dropped += 1
        for host in hosts:
            if host in self._always.get(address, ()):
                continue
            left = self._addresses[host]
            left.discard(address)
            if not left:
                del self._addresses[host]


def _spelt(endpoint: Endpoint) -> Endpoint:
    address = normalised(endpoint.address)
    return endpoint if address is None or address == endpoint.address else Endpoint(address, endpoint.port)
