"""Looks up the addresses of the approved brokers: telemetry of hosts knows addresses only."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

from topicwarden.policy import Policy

TIMEOUT_SECONDS: Final = 5.0
"""How long all look-ups together may take."""
MAX_NAMES: Final = 256
_AT_ONCE: Final = 16


@dataclass(frozen=True, slots=True)
class Resolved:
    """What the names in the policy's inventory stand for now."""

    addresses: Mapping[str, Sequence[str]]
    """Addresses by name."""
    unknown: Sequence[str]
    """Names without one."""


def resolve(policy: Policy | None) -> Resolved:
    """Look up every broker that the inventory gives by name; takes TIMEOUT_SECONDS at most."""
    names = [] if policy is None else [broker.address for broker in policy.inventory.brokers]
    wanted = [name for name in dict.fromkeys(map(str, names)) if not _is_address(name)]
    if not wanted:
        return Resolved({}, [])
    waiting = SimpleQueue[str]()
    found = SimpleQueue[tuple[str, Sequence[str]]]()
    for name in wanted[:MAX_NAMES]:
        waiting.put(name)
    for _ in range(min(_AT_ONCE, len(wanted))):
        # A resolver that hangs must not keep us from ending: daemons are left behind.
        Thread(target=_look_up_all, args=(waiting, found), name="resolve", daemon=True).start()
    addresses: dict[str, Sequence[str]] = {}
    told = 0
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while told < min(len(wanted), MAX_NAMES) and (left := deadline - time.monotonic()) > 0:
        try:
            name, known = found.get(timeout=left)
        except Empty:
            break
        told += 1
        if known:
            addresses[name] = known
    return Resolved(addresses, [name for name in wanted if name not in addresses])


def _look_up_all(waiting: SimpleQueue[str], found: SimpleQueue[tuple[str, Sequence[str]]]) -> None:
    while True:
        try:
            name = waiting.get_nowait()
        except Empty:
            return
        found.put((name, _look_up(name)))


def _look_up(name: str) -> Sequence[str]:
    try:
        told = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return sorted({str(entry[4][0]).partition("%")[0] for entry in told})


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_network(name, strict=False)
    except ValueError:
        return False
    return True
