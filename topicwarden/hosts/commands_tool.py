"""What programs of the table do at a broker, by what they are given."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote

from topicwarden.hosts.commands_model import Command, Does
from topicwarden.hosts.commands_options import Given, given
from topicwarden.hosts.commands_targets import (
    MAX_NAMES,
    Target,
    host_and_port,
    known,
    mosquitto_url,
    number_of,
    url_target,
)
from topicwarden.hosts.tools import RAW, SERVICES, TOOLS, Tool
from topicwarden.hosts.tools_grammar import Means

_MQTT_SCHEMES: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 8083, "wss": 8084}
_MANAGEMENT: Final = re.compile(r"https?://[^/]*/api/exchanges/[^/]*/([^/]*)/publish", re.IGNORECASE)
_UNMISTAKABLE: Final = frozenset({"1883", "8883"})


class _Read:
    """What the options of a program come to."""

    def __init__(self, tool: Tool, found: Sequence[Given], *, cut: bool) -> None:
        self.names: list[str] = []
        self.also: list[str] = []
        self.operands: list[str] = []
        self.host: str | None = None
        self.port: int | None = None
        self.host_given = self.port_given = False
        self.tls = self.elsewhere = self.nowhere = False
        self.jid: str | None = None
        self._scheme: str | None = None
        self._at: int | None = None
        self._has_at = False
        seen: dict[Means, set[str]] = {}
        for one in found:
            if one.missing:
                # Nothing follows: the line is cut here, or the program refuses it.
                self.elsewhere = True
                self.host_given = self.host_given or one.means is Means.HOST
                continue
            seen.setdefault(one.means, set()).add(one.value)
            self._take(tool, one)
        if cut and any(len(seen.get(means, ())) > 1 for means in (Means.HOST, Means.URL, Means.ADDRESS)):
            # Of words that were joined, or of which the last are missing: any of them may be what counts.
            self.host, self.host_given = None, True
        if self._has_at:
            self._set_port(self._at)
        self._default(tool, unsure=cut or self.elsewhere)

    def _default(self, tool: Tool, *, unsure: bool) -> None:
        """Add what the program takes when it is not told, unless that may be elsewhere."""
        if not self.host_given and not unsure:
            self.host = tool.host
        if not self.port_given and not unsure:
            self.port = tool.tls_port if self.tls and tool.tls_port is not None else tool.port
            if self._scheme is not None:
                self.port = _MQTT_SCHEMES.get(self._scheme.removesuffix("://"), tool.port)

    def _take(self, tool: Tool, one: Given) -> None:
        value = one.value
        match one.means:
            case Means.NAME:
                if not tool.several:
                    self.names.clear()
                self.names.append(value)
            case Means.ALSO:
                self.also.append(value)
            case Means.HOST:
                self.host, self.host_given = known(value), True
            case Means.PORT:
                self._set_port(number_of(value, strict=tool.base == 0, base=tool.base) or SERVICES.get(value))
            case Means.ADDRESS:
                target = host_and_port(value)
                self.host, self.host_given = target.host, True
                # A port goes with its address: another address takes the place of both.
                self._at = target.port
                self._has_at = target.port is not None or value.count(":") == 1
            case Means.URL:
                self._take_url(tool, value)
            case Means.SOCKET:
                self.host, self.host_given = known(value), True
                self._set_port(None)
            case Means.SERVICE:
                self._set_port(None)
            case Means.TLS | Means.TLS_VALUE:
                self.tls = True
            case Means.SECRET if one.name == "--psk":
                self.tls = True
            case Means.SCHEME:
                self._scheme = value.lower()
            case Means.CONFIG:
                self.elsewhere = True
            case Means.JID:
                self.jid = value
            case Means.STOP | Means.LISTEN:
                self.nowhere = True
            case Means.OPERAND:
                self.operands.append(value)
            case _:
                pass

    def _set_port(self, port: int | None) -> None:
        self.port, self.port_given = port, True

    def _take_url(self, tool: Tool, value: str) -> None:
        target: Target | None
        if tool.options.get("--will-topic") is Means.ALSO and tool.name.startswith("mosquitto"):
            read = mosquitto_url(value)
            target = None if read is None else read[0]
            if read is not None:
                if not tool.several:
                    self.names.clear()
                self.names.append(read[1])
        elif tool.name == "rabbitmqadmin":
            target = host_and_port(value.partition("://")[2].partition("/")[0].rpartition("@")[2])
        else:
            target = url_target(value)
        self.host_given = True
        self.host = target.host if target is not None else None
        if target is None or target.port is not None:
            self._set_port(target.port if target is not None else None)


def read_tool(tool: Tool, words: Sequence[str], *, cut: bool) -> Command | None:
    """Return what a program of the table is told to do, None when it is nothing at a broker."""
    found = given(words, tool)
    if tool.name == "curl":
        return _curl(tool, found, cut=cut)
    read = _Read(tool, found, cut=cut)
    if read.nowhere or tool.name in RAW:
        return None
    does = tool.does
    if tool.verbs:
        verb = next((word for word in read.operands if word in tool.verbs), None)
        if verb is not None:
            does = tool.verbs[verb]
        elif tool.does is Does.CONNECT and not cut:
            return None
    names = [*read.names, *read.also]
    if tool.protocol == "amqp":
        # A routing key says more than the exchange. amqp-consume takes several, with commas between them.
        split = tool.name == "amqp-consume"
        names = [part for name in read.names for part in (name.split(",") if split else [name])]
        names = [name for name in names if name] or read.also
    elif tool.name in ("go-sendxmpp", "sendxmpp"):
        names = read.operands
        if read.host is None and read.jid is not None and not read.host_given:
            read.host = known(read.jid.partition("@")[2].partition("/")[0])
    elif tool.name == "stomp" and names:
        does = Does.SUBSCRIBE
    elif tool.name.startswith("paho_c") and not names:
        names = read.operands[:1]
    elif tool.name == "rabbitmqadmin":
        names = [name for name in read.names if name] or read.also
    return Command(
        tool.name,
        does,
        tool.protocol,
        read.host,
        read.port,
        tuple(dict.fromkeys(name for name in names if name))[:MAX_NAMES],
    )


def _curl(tool: Tool, found: Sequence[Given], *, cut: bool) -> Command | None:
    """Return what curl does, where that is MQTT, or publishing through RabbitMQ's management interface."""
    sends = any(one.means is Means.PAYLOAD for one in found)
    scheme = next((one.value for one in found if one.means is Means.SCHEME), "")
    if any(one.means is Means.STOP for one in found):
        return None
    for one in found:
        if one.means not in (Means.OPERAND, Means.URL):
            continue
        address = one.value if "://" in one.value or not scheme else f"{scheme}://{one.value}"
        if address[:7].lower() == "mqtt://":
            target = url_target(address)
            if target is None:
                continue
            topic = unquote(address[7:].partition("/")[2].partition("?")[0])
            does = Does.PUBLISH if sends else Does.SUBSCRIBE
            if cut and not sends:
                does = Does.CONNECT
            return Command(tool.name, does, "mqtt", target.host, target.port, (topic,) if topic else ())
        match = _MANAGEMENT.match(address)
        if match is not None:
            authority = address.partition("://")[2].partition("/")[0].rpartition("@")[2]
            target = host_and_port(authority, 443 if address[:5].lower() == "https" else 80)
            return Command(tool.name, Does.PUBLISH, None, target.host, target.port, (unquote(match[1]),))
    return None


def looks_like(words: Sequence[str]) -> Tool | None:
    """Return which of mosquitto's clients a program of another name must be by its arguments, None when it need not.

    All its words must be theirs, a topic among them and what to send (or a filter), and something only MQTT has: an
    address, a version of the protocol, a will, or a port of MQTT's beside a host.
    """
    tool = TOOLS["mosquitto_pub"]
    if len(words) < 4 or not words[1].startswith("-"):
        return None
    found = given(words, tool)
    means = {one.means for one in found}
    if means & {Means.STRAY, Means.UNKNOWN, Means.STOP} or any(one.missing for one in found):
        return None
    values = {one.name: one.value for one in found}
    url = values.get("-L") or values.get("--url") or ""
    marked = (
        mosquitto_url(url) is not None
        or values.get("-V", "").startswith("mqttv")
        or "--will-topic" in values
        or (Means.HOST in means and not _UNMISTAKABLE.isdisjoint({values.get("-p", ""), values.get("--port", "")}))
    )
    if not marked or not (means & {Means.NAME} or url):
        return None
    if values.keys() & {"-m", "--message", "-l", "--stdin-line", "-s", "--stdin-file", "-n", "-f", "--file"}:
        return TOOLS["mosquitto_rr"] if "-e" in values else tool
    filters = [one.value for one in found if one.means is Means.NAME]
    like_topics = url or any(re.search(r"^[^-].*/|^[^-]*[#+]$", name) for name in filters)
    return TOOLS["mosquitto_sub"] if like_topics else None
