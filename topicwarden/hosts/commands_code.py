"""What a script does at a broker, by the calls it makes; and where in it the payloads stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from topicwarden.hosts.code import Code
from topicwarden.hosts.code_model import Call, Literal, Value
from topicwarden.hosts.commands_model import Command, Does
from topicwarden.hosts.commands_targets import (
    DEFAULT_PORTS,
    MAX_NAMES,
    Target,
    known,
    masked_protocol,
    protocol_of_bytes,
    url_target,
)
from topicwarden.hosts.tools import PORTS


@dataclass(frozen=True, slots=True)
class _Role:
    """What a call's arguments are: their places, then the names they may have."""

    does: Does | None
    names: tuple[int | str, ...] = ()
    payload: tuple[int | str, ...] = ()
    host: tuple[int | str, ...] = ()
    port: tuple[int | str, ...] = ()
    secret: tuple[int | str, ...] = ()
    default: bool = False
    """Whether it connects to the local host when told nothing."""


_HOSTNAME: Final = ("hostname", "host")
_ROLES: Final[Mapping[tuple[str | None, str], _Role]] = {
    # By protocol (None: a socket's own) and name.
    ("mqtt", "connect"): _Role(None, host=(0, "host", "hostname", "uri"), port=(1, "port")),
    ("mqtt", "connect_async"): _Role(None, host=(0, "host"), port=(1, "port")),
    ("mqtt", "Client"): _Role(None, host=_HOSTNAME, port=("port",)),
    ("mqtt", "new"): _Role(None, host=(0, "host", "server"), port=(1, "port")),
    ("amqp", "new"): _Role(None, host=(0, "host", "hostname"), port=("port",)),
    ("stomp", "new"): _Role(None, host=(0, "host", "hostname"), port=("port",)),
    ("mqtt", "publish"): _Role(
        Does.PUBLISH, (0, "topic", "message_or_topic"), (1, "payload", "message", "msg", "data")
    ),
    ("mqtt", "will_set"): _Role(None, (0, "topic"), (1, "payload")),
    ("mqtt", "Will"): _Role(None, (0, "topic"), (1, "payload")),
    ("mqtt", "Message"): _Role(None, (0,), (1,)),
    ("mqtt", "single"): _Role(Does.PUBLISH, (0, "topic"), (1, "payload"), _HOSTNAME, ("port",), default=True),
    ("mqtt", "multiple"): _Role(Does.PUBLISH, (), (0, "msgs"), _HOSTNAME, ("port",), default=True),
    ("mqtt", "subscribe"): _Role(Does.SUBSCRIBE, (0, "topic", "subscription_or_topic")),
    ("mqtt", "simple"): _Role(Does.SUBSCRIBE, (0, "topics"), (), _HOSTNAME, ("port",), default=True),
    ("mqtt", "callback"): _Role(Does.SUBSCRIBE, (1, "topics"), (), _HOSTNAME, ("port",), default=True),
    ("amqp", "ConnectionParameters"): _Role(None, host=(0, "host"), port=(1, "port"), default=True),
    ("amqp", "URLParameters"): _Role(None, host=(0, "url")),
    ("amqp", "connect"): _Role(None, host=(0, "url", "host"), port=("port",)),
    ("amqp", "connect_robust"): _Role(None, host=(0, "url", "host"), port=("port",)),
    ("amqp", "Connection"): _Role(None, host=(0, "hostname", "host"), port=("port",)),
    ("amqp", "AMQPStormConnection"): _Role(None, host=(0, "hostname"), port=("port",)),
    ("amqp", "authenticate"): _Role(None, secret=(1,)),
    ("amqp", "UriConnection"): _Role(None, host=(0, "uri")),
    ("amqp", "basic_publish"): _Role(Does.PUBLISH, (1, "routing_key"), (2, "body", "message", "msg")),
    ("amqp", "publish"): _Role(Does.PUBLISH, ("routing_key", "key"), (0, "body", "message")),
    ("amqp", "sendToQueue"): _Role(Does.PUBLISH, (0,), (1,)),
    ("amqp", "Message"): _Role(None, (), (0, 1, "body", "body_value")),
    ("amqp", "put"): _Role(Does.PUBLISH, (), (0, "message")),
    ("amqp", "SimpleQueue"): _Role(None, (0, "name")),
    ("amqp", "Queue"): _Role(None, (0, "name")),
    ("amqp", "queue_declare"): _Role(None, (0, "queue")),
    ("amqp", "assertQueue"): _Role(None, (0,)),
    ("amqp", "declare_queue"): _Role(None, (0, "name")),
    ("amqp", "queue_bind"): _Role(None, (2, "routing_key")),
    ("amqp", "basic_consume"): _Role(Does.SUBSCRIBE, (0, "queue")),
    ("amqp", "basic_get"): _Role(Does.SUBSCRIBE, (0, "queue")),
    ("amqp", "consume"): _Role(Does.SUBSCRIBE, (0, "queue")),
    ("amqp", "Consumer"): _Role(Does.SUBSCRIBE),
    ("stomp", "Connection"): _Role(None, host=(0, "host_and_ports", "hostname"), port=("port",), default=True),
    ("stomp", "Stomp"): _Role(None, host=(0, "host", "hostname"), port=(1, "port"), default=True),
    ("stomp", "connect"): _Role(None, secret=(1, "passcode")),
    ("stomp", "send"): _Role(Does.PUBLISH, (0, "destination"), (1, "body", "message")),
    ("stomp", "subscribe"): _Role(Does.SUBSCRIBE, (0, "destination")),
    ("xmpp", "connect"): _Role(None, host=(0, "address", "host", "server"), port=(1, "port")),
    ("xmpp", "send_message"): _Role(Does.PUBLISH, (0, "mto"), (1, 2, "mbody", "msubject", "mhtml")),
    ("xmpp", "make_message"): _Role(Does.PUBLISH, (0, "mto"), (1, 2, "mbody", "msubject", "mhtml")),
    ("xmpp", "Message"): _Role(Does.PUBLISH, (0, "to"), (1, "body")),
    ("xmpp", "publish"): _Role(Does.PUBLISH, (1, "node"), (2, 3, "payload")),
    ("xmpp", "send_raw"): _Role(None, (), (0, "data")),
    ("xmpp", "subscribe"): _Role(Does.SUBSCRIBE, (1, "node")),
    **{
        (None, name): _Role(None, host=(0, "host", "address"), port=(1, "port"))
        for name in ("connect", "connect_ex", "create_connection", "open_connection", "createConnection")
    },
    **{(None, name): _Role(None, (), (0, 1)) for name in ("send", "sendall", "write", "puts", "syswrite")},
}
_OPENS: Final = {"Connection10": "Connection", "Connection11": "Connection", "Connection12": "Connection"}
_POSITIONAL_CLIENTS: Final = frozenset({"aiomqtt", "asyncio_mqtt"})
_JID: Final = frozenset({"ClientXMPP", "ComponentXMPP", "JID", "jid"})


def _role(code: Code, call: Call) -> _Role | None:
    name = _OPENS.get(call.name, call.name)
    if code.protocol is None:
        return _ROLES.get((None, name))
    if code.library in ("amqp", "kombu") and name == "basic_publish":
        return _Role(Does.PUBLISH, (2, "routing_key"), (0, "msg", "message", "body"))
    if name == "publish" and code.library == "amqplib":
        return _Role(Does.PUBLISH, (1,), (2,))
    if name == "Client" and code.library in _POSITIONAL_CLIENTS:
        return _Role(None, host=(0, *_HOSTNAME), port=(1, "port"))
    role = _ROLES.get((code.protocol, name))
    return role if role is not None or not code.sockets else _ROLES.get((None, name))


def _given(call: Call, keys: tuple[int | str, ...]) -> Iterator[Value]:
    for key in keys:
        value = call.value(key) if isinstance(key, int) else call.value(None, key)
        if value is not None:
            yield value


def payload_literals(code: Code) -> Iterator[tuple[Literal, bool]]:
    """Yield the constant texts that a script sends, as they stand in it, and (True) those that are passwords."""
    for call in code.calls:
        role = _role(code, call)
        if role is None:
            continue
        for keys in (role.payload, role.secret):
            for value in _given(call, keys):
                for literal in value.literals:
                    yield literal, keys is role.secret


def read_calls(tool: str, code: Code) -> Command | None:
    """Return what a script does, None when it speaks to no broker as far as can be told."""
    does: set[Does] = set()
    names: dict[str, None] = {}
    targets: list[Target] = []
    sent: list[str] = []
    for call in code.calls:
        if call.name in _JID and code.protocol == "xmpp":
            targets += [target for value in _given(call, (0, "jid")) if (target := _domain(value)) is not None]
        role = _role(code, call)
        if role is None:
            continue
        if role.does is not None:
            does.add(role.does)
        for value in _given(call, role.names):
            names |= dict.fromkeys(_names(value))
        sent += [literal.value for value in _given(call, role.payload) for literal in value.literals]
        if role.host:
            target = _target(call, role, code.protocol)
            if target is not None:
                targets.append(target)
    if not targets:
        targets = [target for address in code.addresses if (target := url_target(address)) is not None]
    target = _only(targets)
    if code.protocol is None:
        return _raw(tool, target, sent)
    both = Does.BOTH if {Does.PUBLISH, Does.SUBSCRIBE} <= does else None
    return Command(
        tool,
        both or next(iter(does), Does.CONNECT),
        code.protocol,
        target.host,
        target.port,
        tuple(names)[:MAX_NAMES],
        library=code.library,
    )


def _raw(tool: str, target: Target, sent: Iterable[str]) -> Command | None:
    """Return a script that speaks a protocol by itself over a socket."""
    protocol = next((found for text in sent if (found := masked_protocol(text) or protocol_of_bytes(text))), None)
    protocol = protocol or PORTS.get(target.port or 0)
    if protocol is None or (target.host is None and target.port is None):
        return None
    return Command(tool, Does.CONNECT, protocol, target.host, target.port, raw=True)


def _target(call: Call, role: _Role, protocol: str | None) -> Target | None:
    host = next(_given(call, role.host), None)
    port = next(_given(call, role.port), None)
    default = DEFAULT_PORTS.get(protocol or "") if call.closed else None
    if host is None:
        # Where a call is cut, what is missing may name a host.
        return Target("localhost" if call.closed else None, _port(port, default)) if role.default else None
    while host.items:
        if len(host.items) == 2 and host.items[1].number is not None:
            host, port = host.items
        else:
            host = host.items[0]
    if host.text is None:
        return Target(None, _port(port, default)) if host.number is None else None
    if "://" in host.text:
        return url_target(host.text)
    if protocol == "amqp" and (match := re.fullmatch(r"([\w.-]+):(\d{1,5})", host.text)) is not None:
        return Target(known(match[1]), int(match[2]))
    return Target(known(host.text), _port(port, default))


def _port(value: Value | None, default: int | None) -> int | None:
    if value is None:
        return default
    number = value.number
    if (
        number is None
        and value.text is not None
        and value.text.isascii()
        and value.text.isdigit()
        and len(value.text) < 6
    ):
        number = int(value.text)
    return number if number is not None and 0 < number < 65536 else None


def _domain(value: Value) -> Target | None:
    if value.text is None or "@" not in value.text:
        return None
    return Target(known(value.text.partition("@")[2].partition("/")[0]), 5222)


def _only(targets: list[Target]) -> Target:
    """Return the target if there is only one; which of several is meant cannot be told."""
    hosts = {target.host for target in targets}
    ports = {target.port for target in targets}
    if len(hosts) > 1 and all(target.port == 5222 for target in targets[:1]) and len(targets) == 2:
        # An XMPP client's server is what it connects to, else its address's domain.
        return targets[1]
    return Target(hosts.pop() if len(hosts) == 1 else None, ports.pop() if len(ports) == 1 else None)


def _names(value: Value) -> Iterator[str]:
    if value.text:
        yield value.text
        return
    for item in value.items[:MAX_NAMES]:
        # `[("a/#", 1), ("b", 0)]`, `("a/#", 1)`, `["a", "b"]`
        if item.text:
            yield item.text
        elif item.items and item.items[0].text:
            yield item.items[0].text
