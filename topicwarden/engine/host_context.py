"""What the policy and the baseline say about what hosts do: which brokers are approved, which tools sanctioned.

Each answer is yes, no, or None: not known. Nobody is accused for what we do not know: a name that was not looked up,
a parent that was not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from topicwarden.events import Endpoint, Process, executable_name
from topicwarden.findings.rule_lists import load_rule_lists
from topicwarden.hosts.addresses import is_loopback
from topicwarden.hosts.commands import Command
from topicwarden.hosts.ecs import ip_of, is_own_name
from topicwarden.policy import Glob, Inventory, InventoryBroker, InventoryTool
from topicwarden.policy.baseline import Baseline

Resolved = Mapping[str, Sequence[str]]
"""Addresses by host name, as far as they were looked up."""

MAX_KNOWN: Final = 1 << 14
"""Answers that are remembered."""
RuleLists = Mapping[str, Sequence[str | int]]

_PUBLISHES: Final = frozenset({"publish", "both"})


def approved(
    inventory: Inventory,
    baseline: Baseline | None,
    resolved: Resolved,
    address: str,
    port: int | None,
    host: str | None,
) -> bool | None:
    """Return whether a host name or address, and a port, is an approved broker's.

    The inventory decides, by address, network, name and port. A baseline says what is usual, no more: where there is no
    inventory of brokers, what is in the baseline passes, and what is not stays unknown. `port`: None where it is not
    known, `host`: the one that connects, None where that is not known.
    """
    place = _Place(address, port, host, resolved)
    if inventory.brokers:
        return _any(place.is_broker(broker) for broker in inventory.brokers)
    usual = baseline.brokers if baseline is not None else ()
    found = _any(place.has(entry.address, entry.ports) for entry in usual if not entry.hosts or host in entry.hosts)
    return True if found else None


def sanctioned(tools: Sequence[InventoryTool], process: Process) -> bool | None:
    """Return whether the inventory has a process among its tools; None when it might, for all we know of it.

    Also None when there are no tools in the inventory. A program is known by its file, not by what it calls itself in
    its first argument, unless that is all there is.
    """
    if not tools:
        return None
    program = process.executable or (process.arguments[0] if process.arguments else "")
    return _any(
        _all(
            (
                tool.process.matches(executable_name(program)) if program else None,
                not tool.hosts or any(pattern.matches(process.host) for pattern in tool.hosts),
                _fits(tool.users, process.user),
                _fits(tool.parents, process.parent_executable and executable_name(process.parent_executable)),
            )
        )
        for tool in tools
    )


def application_host(baseline: Baseline | None, host: str, command_line_tools: Collection[str]) -> bool | None:
    """Return whether a host usually publishes through applications only; None when it is not in the baseline.

    `command_line_tools`: file names of programs that people type.
    """
    if baseline is None:
        return None
    usual = [tool for tool in baseline.tools if tool.host == host]
    if not usual:
        return None
    return any(_PUBLISHES & set(tool.does) for tool in usual) and not any(
        tool.process in command_line_tools for tool in usual
    )


class Approval:
    """What is approved here, for one policy, one baseline and the addresses that names had."""

    def __init__(self, inventory: Inventory | None, baseline: Baseline | None, resolved: Resolved) -> None:
        """`inventory`: None without a policy."""
        self._inventory = inventory or Inventory()
        self._baseline = baseline
        self._resolved = resolved
        self._tools = frozenset(map(str, load_rule_lists()["command_line_tools"]))
        self._known: dict[tuple[str, int | None, str | None], bool | None] = {}

    def of(
        self, remote: Endpoint | None, command: Command | None, process: Process | None = None, host: str | None = None
    ) -> bool | None:
        """Return whether where a connection goes is an approved broker, or where a command line says it will.

        `process`: whose command line it is; `host`: the one that connects, where the process is not known.
        """
        host = process.host if process is not None else host
        by_command = None
        if command is not None and (remote is None or command.port == remote.port):
            by_command = self._approved(command.host, command.port, host)
            if by_command and process is not None and process.cut:
                # What is missing at the end may name another broker.
                by_command = None
        if remote is None or by_command:
            # A name that is approved may have other addresses now than when it was looked up.
            return by_command
        return self._approved(remote.address, remote.port, host)

    @property
    def inventory(self) -> bool:
        """Whether there is an inventory of brokers."""
        return bool(self._inventory.brokers)

    def _approved(self, address: str | None, port: int | None, host: str | None) -> bool | None:
        if address is None:
            return None
        key = (address, port, host)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = approved(self._inventory, self._baseline, self._resolved, address, port, host)
        return self._known[key]

    def application_host(self, host: str) -> bool | None:
        """Return whether a host usually publishes through applications only."""
        return application_host(self._baseline, host, self._tools)

    def lists(self) -> RuleLists:
        """Return the lists that rules may name."""
        return {**load_rule_lists(), **policy_lists(self._inventory, self._resolved)}

    def missing(self) -> frozenset[str]:
        """Return which of what rules may need is not there."""
        there = {
            "inventory": bool(self._inventory.brokers),
            "tools": bool(self._inventory.tools),
            "baseline": self._baseline is not None,
        }
        return frozenset(name for name, given in there.items() if not given)


def policy_lists(inventory: Inventory, resolved: Resolved) -> RuleLists:
    """Return the lists that rules get from the policy: `approved_addresses` (networks) and `approved_ports`."""
    networks: dict[str, None] = {}
    for broker in inventory.brokers:
        found = _network(broker.address)
        for network in [found] if found else [_network(text) for text in _look_up(broker.address, resolved) or ()]:
            if network is not None:
                networks[str(network)] = None
    ports = sorted({port for broker in inventory.brokers for port in broker.ports})
    return {"approved_addresses": list(networks), "approved_ports": ports}


class _Place:
    """Where something goes, to be compared with brokers."""

    def __init__(self, address: str, port: int | None, host: str | None, resolved: Resolved) -> None:
        self._port = port
        self._host = host
        self._resolved = resolved
        ip = ip_of(address)
        self._name = None if ip is not None else address.lower().rstrip(".")
        self._own = is_own_name(address) if ip is None else is_loopback(ip)
        self._addresses = [ip] if ip is not None else _look_up(address, resolved)

    def is_broker(self, broker: InventoryBroker) -> bool | None:
        """Whether it is this broker; a broker may run on the machine that is spoken of."""
        if not self._own or _is_own(broker.address):
            there = self.has(broker.address, broker.ports)
            # Every machine has these addresses.
            return _all((there, self._is_here(broker) if self._own and broker.host is not None else True))
        return _all((self._has_port(broker.ports), self._is_here(broker)))

    def has(self, address: str, ports: Sequence[int]) -> bool | None:
        """Whether it is one of these ports of this address, network or name."""
        return _all((self._has_port(ports), self._is_at(address)))

    def _is_here(self, broker: InventoryBroker) -> bool | None:
        return None if broker.host is None or self._host is None else broker.host == self._host

    def _has_port(self, ports: Sequence[int]) -> bool | None:
        return None if self._port is None else self._port in ports

    def _is_at(self, address: str) -> bool | None:
        network = _network(address)
        if network is None and self._name is not None:
            other = address.lower().rstrip(".")
            if self._name == other:
                return True
            if self._name.startswith(f"{other}.") or other.startswith(f"{self._name}."):
                return None  # a short name, perhaps of the same
        if network is not None:
            if self._addresses is None:
                return None
            inside = [ip_address(text) in network for text in self._addresses]
        else:
            known = _look_up(address, self._resolved)
            if known is None or self._addresses is None:
                # Two names that differ are two brokers until an address says otherwise.
                return None if self._name is None else False
            inside = [text in known for text in self._addresses]
        return True if all(inside) else None if any(inside) else False


def _is_own(address: str) -> bool:
    ip = ip_of(address)
    return is_own_name(address) if ip is None else is_loopback(ip)


def _look_up(name: str, resolved: Resolved) -> list[str] | None:
    """Return the addresses of a name in their one spelling; None: not looked up, or without an answer."""
    known = resolved.get(name) or resolved.get(name.lower().rstrip("."))
    return [ip for text in known if (ip := ip_of(text)) is not None] or None if known else None


@lru_cache(maxsize=16_384)
def _network(text: str) -> IPv4Network | IPv6Network | None:
    ip = ip_of(text)
    try:
        return ip_network(text if ip is None else ip, strict=False)
    except ValueError:
        return None


def _fits(patterns: Sequence[Glob], name: str | None) -> bool | None:
    if not patterns:
        return True
    return None if not name else any(pattern.matches(name) for pattern in patterns)


def _any(answers: Iterable[bool | None]) -> bool | None:
    """Return yes if any says so, else None if any does not know."""
    found = list(answers)
    return True if True in found else None if None in found else False


def _all(answers: Iterable[bool | None]) -> bool | None:
    """Return no if any says so, else None if any does not know."""
    found = list(answers)
    return False if False in found else None if None in found else True
