"""Events of hosts and brokers as Elastic Common Schema documents: what the rules in EQL are asked about.

Standard fields wherever ECS 9 has one; what it has no field for stands under `topicwarden.*`. A field that is not known
is left out, so that a rule can tell "no" from "not known". `event.type` and `event.category` hold one value each, not a
list, for the `eql` package compares no lists; Elasticsearch takes either.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from topicwarden.events import (
    Action,
    Dialled,
    Endpoint,
    Executed,
    Exited,
    HostEvent,
    Outcome,
    Process,
    SeenPayload,
    Shape,
    Spoke,
    Spoken,
    executable_name,
)
from topicwarden.hosts.addresses import normalised, reached, scope
from topicwarden.hosts.commands import Command
from topicwarden.hosts.commands_wrapped import SHELLS, started
from topicwarden.hosts.ecs_model import AtBroker, Context, Document, EcsEvent, field_of
from topicwarden.hosts.join import Sureness

__all__ = ["AtBroker", "Context", "EcsEvent", "ecs_event", "entity_id", "field_of", "ip_of"]

MAX_COMMAND_LINE: Final = 4096
"""Characters of `process.command_line`, and of all `process.args`: rules remember events."""
PROTOCOLS: Final = ("mqtt", "amqp", "stomp", "xmpp")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MANY_IN_ONE: Final = frozenset({"busybox", "toybox"})
_SAID: Final[Mapping[Spoken, str]] = {
    Spoken.CONNECT: "connected",
    Spoken.PUBLISH: "published",
    Spoken.SUBSCRIBE: "subscribed",
    Spoken.OTHER: "spoke",
}
_DONE: Final[Mapping[Action, str]] = {Action.PUBLISH: "published", Action.SUBSCRIBE: "subscribed"}
_OUTCOME: Final[Mapping[Outcome, str]] = {Outcome.ALLOWED: "success", Outcome.DENIED: "failure"}


def ecs_event(event: HostEvent | AtBroker, context: Context) -> EcsEvent:
    """Return the event as the rules see it."""
    document: Document = {"@timestamp": _timestamp(event.time_ns)}
    if isinstance(event, Executed | Exited):
        _process_event(document, event, context)
    elif isinstance(event, Dialled):
        _dialled(document, event, context)
    elif isinstance(event, Spoke):
        _spoke(document, event, context)
    else:
        _at_broker(document, event, context)
    _add_context(document, event, context)
    return EcsEvent(document["event"]["category"], event.time_ns, document)


def entity_id(process: Process, started_ns: int | None) -> str:
    """Return 32 hex digits that tell this process from others, also from later ones of its number.

    Where it is not known when it was started, what it runs stands for that: two runs of one command line under one
    number are then taken for one.
    """
    digest = hashlib.sha256()
    start = (str(started_ns),) if started_ns is not None else ("-", process.executable, *process.arguments)
    for part in (process.host, str(process.pid), *start):
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()[:32]


def _process_event(document: Document, event: Executed | Exited, context: Context) -> None:
    started = isinstance(event, Executed)
    document["event"] = {
        "kind": "event",
        "category": "process",
        "type": "start" if started else "end",
        "action": "exec" if started else "end",
    }
    process = event.process if isinstance(event, Executed) else context.process
    if process is not None:
        _add_process(document, process, context)
    else:
        assert isinstance(event, Exited)
        _add_host(document, event.host)
        document["process"] = {"pid": event.pid}
    if context.command is not None and started:
        _add_destination(document, context, None)


def _dialled(document: Document, event: Dialled, context: Context) -> None:
    outcome = {True: "success", False: "failure", None: "unknown"}[event.established]
    document["event"] = {
        "kind": "event",
        "category": "network",
        "type": "start",
        "action": "connection_attempted",
        "outcome": outcome,
    }
    if event.duration_ns is not None:
        document["event"]["duration"] = event.duration_ns
    document["network"] = {"transport": event.transport, "direction": "egress"}
    if event.local is not None:
        _add_source(document, event.local)
    if event.sent is not None:
        document.setdefault("source", {})["bytes"] = event.sent
    _add_destination(document, context, event.remote, event.transport)
    if context.process is not None:
        _add_process(document, context.process, context)
        return
    _add_host(document, event.host)
    process: Document = {}
    if event.pid is not None:
        process["pid"] = event.pid
    if event.executable:
        process |= {"executable": event.executable, "name": executable_name(event.executable)}
    if event.user is not None:
        process["user"] = {"name": event.user}
        document["user"] = {"name": event.user}
    if process:
        document["process"] = process


def _spoke(document: Document, event: Spoke, context: Context) -> None:
    document["event"] = {
        "kind": "event",
        "category": "network",
        "type": "protocol",
        "action": _SAID[event.what],
        "outcome": "unknown",
    }
    document["network"] = {"transport": "tcp", "protocol": event.protocol}
    document["observer"] = {"name": event.sensor}
    _add_source(document, event.client)
    _add_destination(document, context, event.server)
    document["topicwarden"]["destination"]["pubsub"] = True
    client = {"id": event.client_id, "user": event.user}
    document["topicwarden"]["client"] = {key: value for key, value in client.items() if value is not None}
    if event.name is not None:
        document["topicwarden"]["topic"] = event.name
    if event.size is not None and event.entropy is not None:
        document["topicwarden"]["payload"] = _payload(SeenPayload(event.size, event.entropy, event.shape))
    if context.process is not None:
        _add_process(document, context.process, context)
    else:
        # It is about the client's host, by the only name there is for it.
        _add_host(document, event.client.address)


def _at_broker(document: Document, event: AtBroker, context: Context) -> None:
    client = event.client
    document["event"] = {
        "kind": "event",
        "category": "network",
        "type": "protocol",
        "action": _DONE.get(event.action, event.action.name.lower()),
        "outcome": _OUTCOME.get(event.outcome, "unknown"),
    }
    document["network"] = {"transport": "tcp", "protocol": protocol_of(client.protocol)}
    topicwarden: Document = {"broker": {"name": client.broker}, "topic": event.name, "client": {"id": client.client_id}}
    if client.user is not None:
        topicwarden["client"]["user"] = client.user
    if event.score is not None:
        topicwarden["score"] = event.score
    if event.payload is not None:
        topicwarden["payload"] = _payload(event.payload)
    document["topicwarden"] = topicwarden
    if client.address is not None:
        address = ip_of(client.address)
        document["source"] = {"address": client.address} | ({} if address is None else {"ip": address})
        if client.port is not None:
            document["source"]["port"] = client.port
    if context.process is not None:
        _add_process(document, context.process, context)
    elif client.address is not None:
        _add_host(document, client.address)


def _add_process(document: Document, process: Process, context: Context) -> None:
    """Fill in `host`, `process`, `user` and `container`."""
    _add_host(document, process.host)
    found: Document = {"pid": process.pid, "entity_id": entity_id(process, context.started_ns)}
    if process.executable:
        found |= {"executable": process.executable, "name": executable_name(process.executable)}
    elif process.arguments:
        found["name"] = executable_name(process.arguments[0])
    if process.arguments:
        arguments = _first(process.arguments)
        found |= {"args": arguments, "args_count": len(process.arguments)}
        found["command_line"] = shlex.join(arguments)[:MAX_COMMAND_LINE]
    parent: Document = {}
    if process.parent_pid is not None:
        parent["pid"] = process.parent_pid
    if process.parent_executable:
        parent |= {"executable": process.parent_executable, "name": executable_name(process.parent_executable)}
    if parent:
        found["parent"] = parent
    if process.terminal is not None:
        # Without a terminal it may still be a person's: that is not known.
        found["interactive"] = True
    if process.user is not None:
        found["user"] = {"name": process.user}
        document["user"] = {"name": process.user}
    if process.container is not None:
        document["container"] = {"id": process.container}
    document["process"] = found
    if process.login_user is not None:
        document.setdefault("topicwarden", {})["login_user"] = process.login_user


def _first(arguments: tuple[str, ...]) -> list[str]:
    left = MAX_COMMAND_LINE
    found: list[str] = []
    for argument in arguments:
        if left <= 0:
            break
        found.append(argument[:left])
        left -= len(argument)
    return found


def _add_context(document: Document, event: HostEvent | AtBroker, context: Context) -> None:
    """Fill in what the policy, the baseline and the join say."""
    ours = document.setdefault("topicwarden", {})
    if context.command is not None and not isinstance(event, Exited):
        ours["command"] = _command(context.command, context.process)
        spoken = isinstance(event, Executed) or (isinstance(event, Dialled) and ours["destination"].get("pubsub"))
        if context.command.protocol is not None and spoken:
            document.setdefault("network", {})["protocol"] = context.command.protocol
    if context.approved is not None and not isinstance(event, Exited):
        ours.setdefault("destination", {})["approved"] = context.approved
    if context.inventory:
        ours["inventory"] = {"brokers": True}
    if context.sanctioned is not None:
        ours["sanctioned"] = context.sanctioned
    if context.application_host is not None:
        ours["baseline"] = {"application_host": context.application_host}
    session = context.session
    sureness = context.sureness if session is None else session.sureness
    if sureness is not None:
        ours["join"] = sureness.value
    if session is None or not isinstance(event, Dialled):
        return
    client = session.session.client
    ours["broker"] = {"name": client.broker}
    ours["client"] = {"id": client.client_id} | ({} if client.user is None else {"user": client.user})
    document["network"]["protocol"] = protocol_of(client.protocol)


def _add_destination(document: Document, context: Context, remote: Endpoint | None, transport: str = "tcp") -> None:
    """Fill in where a connection goes: by its other end, or, where there is none, by the command line.

    `destination.address` is the broker as the command line has it also for the connection that it made, so that what
    was run and what came of it have the same cause.
    """
    command = context.command
    named = None if command is None else command.host
    ours: Document = {}
    destination: Document = {}
    if remote is None:
        assert command is not None
        address = None if named is None else ip_of(named)
        port = command.port
        speaks = command.protocol is not None or command.library is not None
    else:
        address, port = ip_of(remote.address), remote.port
        # A client looks up names and asks for the time, too: only what goes to its broker's port is its broker.
        meant = command is not None and transport == "tcp" and command.port == port
        named = named if meant else None
        speaks = meant and command is not None and (command.protocol is not None or command.library is not None)
        speaks = speaks or (context.session is not None and context.session.sureness is Sureness.EXACT)
    if named is not None:
        destination["address"] = named
        if ip_of(named) is None:
            destination["domain"] = named.lower().rstrip(".")
    elif remote is not None:
        destination["address"] = remote.address
    if address is not None:
        destination["ip"] = address
        ours["scope"] = scope(address).value
    elif named is not None and is_own_name(named):
        ours["scope"] = "loopback"
    if port is not None:
        destination["port"] = port
    if speaks:
        ours["pubsub"] = True
    if destination:
        document["destination"] = destination
    document.setdefault("topicwarden", {})["destination"] = ours


def is_own_name(name: str) -> bool:
    """Whether a host name means the machine it is written on (RFC 6761, section 6.3)."""
    name = name.lower().rstrip(".")
    return name in ("localhost", "ip6-localhost", "localhost.localdomain") or name.endswith(".localhost")


def ip_of(text: str) -> str | None:
    """Return the IP address that is reached by this text, in its one spelling; None for what is no address."""
    address = normalised(text)
    return None if address is None else reached(address)


def protocol_of(text: str) -> str:
    """Return `mqtt`, `amqp`, `stomp` or `xmpp` for what a broker calls it (`MQTT 3.1.1`, `Web AMQP`), else the text."""
    lower = text.lower()
    return next((protocol for protocol in PROTOCOLS if protocol in lower), lower)


def _add_host(document: Document, host: str) -> None:
    document["host"] = {"id": host, "name": host}


def _add_source(document: Document, end: Endpoint) -> None:
    address = ip_of(end.address)
    document["source"] = {"address": end.address, "port": end.port} | ({} if address is None else {"ip": address})


def _command(command: Command, process: Process | None) -> Document:
    found: Document = {
        "tool": command.tool,
        "does": command.does.value,
        "secret": command.secret,
        "raw": command.raw,
        "own": process is not None and _is_own(command, process),
    }
    optional = {
        "protocol": command.protocol,
        "host": command.host,
        "port": command.port,
        "library": command.library,
        "names": list(command.names) or None,
    }
    found |= {key: value for key, value in optional.items() if value is not None}
    payload = command.payload or (process.payload if process is not None else None)
    if payload is not None:
        found["payload"] = _payload(payload)
    return found


def _is_own(command: Command, process: Process) -> bool:
    """Whether the process itself is the program its command line is about; else that one's start is told as well."""
    if command.shell:
        # What the shell does itself (/dev/tcp), not what it starts.
        return command.raw and command.tool in SHELLS
    found = started(process.arguments, process.executable)
    return found is None or found.places[:1] == (0,) or executable_name(process.executable) in _MANY_IN_ONE


def _payload(payload: SeenPayload) -> Document:
    seen: Document = {"size": payload.size, "entropy": round(payload.entropy, 3)}
    if payload.shape is not Shape.UNKNOWN:
        seen["shape"] = payload.shape.name.lower()
    return seen


def _timestamp(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache(maxsize=256)
def _second(seconds: int) -> str:
    return f"{(_EPOCH + timedelta(seconds=seconds)):%Y-%m-%dT%H:%M:%S}"
