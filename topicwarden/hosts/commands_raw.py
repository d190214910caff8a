"""Programs that pipe bytes into a connection: netcats, socat, telnet, `openssl s_client`, a shell's `/dev/tcp`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from topicwarden.hosts.commands_model import Command, Does
from topicwarden.hosts.commands_options import Given, given
from topicwarden.hosts.commands_targets import Target, host_and_port, known, number_of, port_of
from topicwarden.hosts.tools import PORTS, SERVICES, Tool
from topicwarden.hosts.tools_grammar import Means

_DEVICE: Final = re.compile(r"/dev/tcp/([^/\s]{1,255})/([^/\s]{1,32})")
_SOCAT_VALUED: Final = re.compile(r"-(?:[tTbrRLW]|l[fp])")
_SOCAT_PEERS: Final = {
    **dict.fromkeys(
        ("tcp", "tcp4", "tcp6", "tcp-connect", "tcp4-connect", "tcp6-connect", "inet", "inet4", "inet6"), 2
    ),
    **dict.fromkeys(("openssl", "openssl-connect", "ssl", "ssl-connect"), 2),
    **dict.fromkeys(("proxy", "proxy-connect", "socks4", "socks4a", "socks"), 3),
    **dict.fromkeys(("socks5", "socks5-connect"), 4),
}
"""Addresses of socat that connect, and how many parts they have: the last two are where to."""


def read_raw(tool: Tool, words: Sequence[str], *, protocol: str | None, cut: bool) -> Command | None:
    """Return where such a program connects if a broker's protocol is spoken there, as far as can be told.

    `protocol` is what is seen to be piped into it.
    """
    targets: list[Target]
    if tool.name == "socat":
        targets = list(_socat(words))
    else:
        found = given(words, tool)
        if any(one.means in (Means.LISTEN, Means.STOP, Means.SOCKET) for one in found):
            return None
        if tool.name == "openssl":
            targets, starts = _openssl(words, found, cut=cut)
            protocol = protocol or starts
        else:
            targets = list(_netcat(tool, found, cut=cut))
    for target in targets:
        spoken = protocol or PORTS.get(target.port or 0)
        if spoken is not None:
            return Command(tool.name, Does.CONNECT, spoken, target.host, target.port, raw=True)
    return None


def read_device(path: str, *, shell: str, protocol: str | None) -> Command | None:
    """Return where a shell connects that opens `/dev/tcp/host/port`."""
    match = _DEVICE.fullmatch(path)
    if match is None:
        return None
    port = port_of(match[2])
    spoken = protocol or PORTS.get(port or 0)
    return None if spoken is None else Command(shell, Does.CONNECT, spoken, known(match[1]), port, raw=True)


def _netcat(tool: Tool, found: Sequence[Given], *, cut: bool) -> Iterator[Target]:
    operands = [one.value for one in found if one.means is Means.OPERAND]
    if not operands:
        return
    host = known(operands[0])
    if len(operands) == 1:
        if tool.port is not None and not cut:
            yield Target(host, tool.port)
        return
    # ncat takes no names of ports, and one port only.
    for operand in operands[1:2] if tool.name != "nc" else operands[1:17]:
        if tool.name == "ncat":
            yield Target(host, number_of(operand, strict=True))
            continue
        first, dash, last = operand.partition("-")
        low, high = number_of(first, strict=True), number_of(last, strict=True)
        if dash and low is not None and high is not None and operand not in SERVICES:
            # It tries them all, the ones that interest us among them.
            yield from (Target(host, port) for port in sorted(PORTS) if min(low, high) <= port <= max(low, high))
            continue
        yield Target(host, port_of(operand))


def _openssl(words: Sequence[str], found: Sequence[Given], *, cut: bool) -> tuple[list[Target], str | None]:
    operands = [one.value for one in found if one.means is Means.OPERAND]
    if operands[:1] != ["s_client"]:
        return [], None
    host, port, protocol = (None if cut else "localhost"), (None if cut else 4433), None
    named = {one.name.lstrip("-"): one.value for one in found}
    if named.get("starttls") in ("xmpp", "xmpp-server") or "mqtt" in named.get("alpn", "").lower():
        protocol = "mqtt" if "mqtt" in named.get("alpn", "").lower() else "xmpp"
    for one in found:
        value = one.value
        if one.means is Means.HOST:
            host = known(value)
        elif one.means is Means.PORT:
            port = port_of(value)
        elif one.means is Means.ADDRESS or (one.means is Means.OPERAND and value != "s_client"):
            target = host_and_port(value, port)
            host, port = target.host or host, target.port
    del words
    return [Target(host, port)], protocol


def _socat(words: Sequence[str]) -> Iterator[Target]:
    """Yield where socat connects, of at most two addresses."""
    for address in socat_addresses(words):
        for part in address.split("!!"):
            head = _until_comma(part)
            kind, *parts = _split(head)
            wanted = _SOCAT_PEERS.get(kind.lower())
            if wanted is None or not 2 <= len(parts) <= wanted:
                continue
            yield Target(known(parts[-2]), port_of(parts[-1]))


def socat_addresses(words: Sequence[str]) -> Iterator[str]:
    """Yield the addresses that socat is given."""
    place = 1
    while place < len(words):
        word = words[place]
        if word.startswith("-") and len(word) > 1 and ":" not in word:
            # `-t 1` as `-t1`; what comes after the options is no option.
            match = _SOCAT_VALUED.fullmatch(word)
            following = words[place + 1] if place + 1 < len(words) else ""
            place += 2 if match is not None and not re.match(r"-$|[A-Za-z0-9-]+:", following) else 1
            continue
        yield word
        place += 1


def _until_comma(address: str) -> str:
    """Return an address without its options."""
    quoted = ""
    for at, character in enumerate(address):
        if quoted:
            quoted = "" if character == quoted else quoted
        elif character in "\"'":
            quoted = character
        elif character == "," and address[at - 1 : at] != "\\":
            return address[:at]
    return address


def _split(head: str) -> list[str]:
    """Split an address at its colons, but for those in brackets, in quotes, or behind a backslash."""
    parts, current, closing, at = [], "", "", 0
    while at < len(head):
        character = head[at]
        if character == "\\" and at + 1 < len(head):
            current += head[at + 1]
            at += 1
        elif closing:
            if character == closing:
                closing = ""
            else:
                current += character
        elif character in "\"'":
            closing = character
        elif character == "[":
            closing = "]"
        elif character == ":":
            parts.append(current)
            current = ""
        else:
            current += character
        at += 1
    return [*parts, current]
