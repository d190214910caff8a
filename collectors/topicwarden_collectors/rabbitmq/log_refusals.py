"""Refused operations: what a channel says when it closes, and MQTT's own words.

The forms are those of RabbitMQ 3.10.8, each made by a running node (`tests/rabbitmq/logs/record.py`). Since 3.13 or so
the broker also says which permission was missing (`write access to queue …`); that was read, not run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from topicwarden.events import NO_RESOURCE, Action, Resource, ResourceKind
from topicwarden_collectors.rabbitmq import exchanges
from topicwarden_collectors.rabbitmq.log_facts import Fact, Refused
from topicwarden_collectors.rabbitmq.log_grammar import (
    CONNECTION,
    NUMBER,
    PROCESS,
    Doubt,
    Form,
    Gap,
    Reading,
    Word,
    read,
)
from topicwarden_collectors.rabbitmq.log_spelling import Spelling, name_of, printed_string

DEFAULT_EXCHANGE: Final = exchanges.DEFAULT

_V, _U, _NAME, _IN, _CLIENT, _REST = Gap("vhost"), Gap("user"), Gap("name"), Gap("in"), Gap("client"), Gap("rest")
_METHOD: Final = Word("method", re.compile(r"[a-z]+\.[a-z_-]+|none", re.ASCII))
_CODE: Final = Word("code", re.compile(r"[a-z_]+", re.ASCII))
_KIND: Final = Word("kind", re.compile(r"queue|exchange"))
_RIGHT: Final = Word("right", re.compile(r"(?:(?:configure|write|read) )?", re.ASCII))

_TAIL: Final[Form] = (
    ", vhost: '", _V, "', user: '", _U, "'), channel ", NUMBER, ":\noperation ", _METHOD,
    " caused a channel exception ", _CODE, ": ", _REST,
)  # fmt: skip
CHANNEL_ERROR: Final = "Channel error on connection "
_CHANNEL_FORMS: Final[Mapping[str, Form]] = {
    "plain": (CHANNEL_ERROR, PROCESS, " (", CONNECTION, *_TAIL),
    # 3.10.8 leaves the client's own name for its connection out of this one; nothing says others do.
    "named": (CHANNEL_ERROR, PROCESS, " (", CONNECTION, " - ", _CLIENT, *_TAIL),
}

_RESOURCE: Final[Form] = (_RIGHT, "access to ", _KIND, " '", _NAME, "' in vhost '", _V, "' refused for user '", _U)
_TOPIC: Final[Form] = (
    _RIGHT, "access to topic '", _NAME, "' in exchange '", _IN, "' in vhost '", _V, "' refused for user '", _U,
)  # fmt: skip
_ERROR: Final[Form] = ("', backend ", Gap("backend"), " returned an error: ", Gap("error"))
_ACCESS: Final[Mapping[str, Form]] = {
    "resource": (*_RESOURCE, "'"),
    "topic": (*_TOPIC, "'"),
    # An authorisation backend could not answer, which refuses too.
    "resource, error": (*_RESOURCE, *_ERROR),
    "topic, error": (*_TOPIC, *_ERROR),
}
_IN_VHOST: Final[Form] = (_NAME, "' in vhost '", _V)
_EXPLANATIONS: Final[Mapping[str, Mapping[str, Form]]] = {
    "access_refused": {
        **_ACCESS,
        "internal exchange": ("cannot publish to internal exchange '", *_IN_VHOST, "'"),
        "system exchange": ("deletion of system exchange '", *_IN_VHOST, "' not allowed"),
        "reserved name": (_KIND, " name '", _NAME, "' contains reserved prefix 'amq.*'"),
        "default exchange": ("operation not permitted on the default exchange",),
        "in use": (_KIND, " '", *_IN_VHOST, "' in exclusive use"),
    },
    "precondition_failed": {
        "user_id": ("user_id property set to '", Gap("claimed"), "' but authenticated user was '", _U, "'"),
    },
    "not_found": {"not found": ("no ", _KIND, " '", *_IN_VHOST, "'")},
    "resource_locked": {
        "locked": (
            "cannot obtain exclusive access to locked ", _KIND, " '", *_IN_VHOST,
            ("'. It could be originally declared on another connection or the exclusive property value"
            " does not match that of the original declaration."),
        ),
    },
}  # fmt: skip
_OTHER_REASONS: Final = {
    "precondition_failed": "precondition",
    "not_found": "not found",
    "resource_locked": "locked",
    "not_allowed": "not allowed",
}

MQTT_TOPIC: Final = "operation resulted in an error (access_refused): "
"""RabbitMQ 3.10's MQTT plugin: a publish refused by a topic permission; then comes a string as `~p` prints it."""
MQTT_REFUSED: Final = ("MQTT topic access refused: ", "MQTT resource access refused: ")
"""RabbitMQ 3.12 and later: read, not run."""


class Written(NamedTuple):
    """Who wrote a message, when, and how names stand in it."""

    time_ns: int
    pid: str
    spelling: Spelling


_BEFORE_CONNECTION: Final = re.compile(rf"(?:{PROCESS.shape.pattern} \()?", re.ASCII)


def connection_after(beginning: str, text: str) -> str | None:
    """Return the connection that stands at its place behind a message's beginning; nothing a client wrote is before."""
    before = _BEFORE_CONNECTION.match(text, len(beginning))
    match = None if before is None else CONNECTION.shape.match(text, before.end())
    return None if match is None else match[0]


def channel_error(written: Written, text: str) -> Fact | None:
    """Read `Channel error on connection …`; None when it is another message."""
    found = read(_CHANNEL_FORMS, text)
    if found is None:
        return None
    if isinstance(found, Doubt):
        connection = connection_after(CHANNEL_ERROR, text)
        return Refused(written.time_ns, written.pid, connection, None, None, reason="unknown", ambiguous=True)
    header = found[1]
    method, code = header["method"], header["code"]
    vhost, user = name_of(header["vhost"], written.spelling), name_of(header["user"], written.spelling)
    explained = read(_EXPLANATIONS.get(code, {}), header["rest"], {"vhost": header["vhost"], "user": header["user"]})
    resource: Resource | None = NO_RESOURCE
    permission, reason = None, _OTHER_REASONS.get(code, "other")
    if isinstance(explained, Doubt):
        # Which of the forms is open, too; all that several readings of access_refused share is that it was refused.
        resource, reason = None, "permission" if code == "access_refused" else reason
    elif explained is not None:
        resource, permission, reason = _explain(*explained, method, written.spelling)
    return Refused(
        written.time_ns,
        written.pid,
        header["connection"],
        _ACTIONS.get(method),
        None if method == "none" else method,
        resource or NO_RESOURCE,
        permission,
        reason,
        vhost,
        user,
        int(header["channel"]),
        ambiguous=resource is None or vhost is None or user is None,
    )


def _explain(form: str, reading: Reading, method: str, spelling: Spelling) -> tuple[Resource | None, str | None, str]:
    """Return resource (None: cannot be told), permission and reason of an explanation."""
    stated = reading.get("right", "").rstrip() or None
    match form.partition(",")[0]:
        case "topic":
            kind = ResourceKind.BINDING if _ACTIONS.get(method) in _BINDS else ResourceKind.KEY
            return _resource(kind, reading, spelling), "topic", "permission"
        case "resource":
            kind = _kind(reading)
            return _resource(kind, reading, spelling), stated or _permission(method, kind), "permission"
        case "internal exchange":
            return _resource(ResourceKind.EXCHANGE, reading, spelling), None, "internal exchange"
        case "system exchange":
            return _resource(ResourceKind.EXCHANGE, reading, spelling), None, "reserved name"
        case "default exchange":
            return Resource(ResourceKind.EXCHANGE, DEFAULT_EXCHANGE), None, "reserved name"
        case "user_id":
            return NO_RESOURCE, None, "user_id"
        case named:
            return _resource(_kind(reading), reading, spelling), None, named


_BINDS: Final = frozenset((Action.SUBSCRIBE, Action.UNSUBSCRIBE))


def _kind(reading: Reading) -> ResourceKind:
    return ResourceKind.QUEUE if reading["kind"] == "queue" else ResourceKind.EXCHANGE


def _resource(kind: ResourceKind, reading: Reading, spelling: Spelling) -> Resource | None:
    name, within = name_of(reading["name"], spelling), name_of(reading.get("in", ""), spelling)
    return None if name is None or within is None else Resource(kind, name, within=within)


_ACTIONS: Final[Mapping[str, Action]] = {
    "basic.publish": Action.PUBLISH,
    "basic.consume": Action.SUBSCRIBE,
    "basic.get": Action.SUBSCRIBE,
    "queue.bind": Action.SUBSCRIBE,
    "exchange.bind": Action.SUBSCRIBE,
    "basic.cancel": Action.UNSUBSCRIBE,
    "queue.unbind": Action.UNSUBSCRIBE,
    "exchange.unbind": Action.UNSUBSCRIBE,
    "queue.declare": Action.CONFIGURE,
    "queue.delete": Action.CONFIGURE,
    "queue.purge": Action.CONFIGURE,
    "exchange.declare": Action.CONFIGURE,
    "exchange.delete": Action.CONFIGURE,
}
"""What AMQP's methods do; a bind subscribes to what it binds."""


_PERMISSIONS: Final[Mapping[tuple[str, ResourceKind], str]] = {
    # Which permission a method needs, by RabbitMQ 3.10.8's rabbit_channel. A declare needs more than `configure` only
    # with a dead letter or alternate exchange, which the message does not tell.
    ("basic.publish", ResourceKind.EXCHANGE): "write",
    ("basic.consume", ResourceKind.QUEUE): "read",
    ("basic.get", ResourceKind.QUEUE): "read",
    ("queue.purge", ResourceKind.QUEUE): "read",
    ("queue.delete", ResourceKind.QUEUE): "configure",
    ("exchange.delete", ResourceKind.EXCHANGE): "configure",
    ("queue.bind", ResourceKind.QUEUE): "write",
    ("queue.bind", ResourceKind.EXCHANGE): "read",
    ("queue.unbind", ResourceKind.QUEUE): "write",
    ("queue.unbind", ResourceKind.EXCHANGE): "read",
    ("exchange.bind", ResourceKind.EXCHANGE): "write or read",
    ("exchange.unbind", ResourceKind.EXCHANGE): "write or read",
    ("queue.declare", ResourceKind.QUEUE): "configure or read",
    ("queue.declare", ResourceKind.EXCHANGE): "write",
    ("exchange.declare", ResourceKind.EXCHANGE): "configure, read or write",
}


def _permission(method: str, kind: ResourceKind) -> str | None:
    return _PERMISSIONS.get((method, kind))


def mqtt_topic(written: Written, text: str) -> Fact | None:
    """Read the MQTT plugin's refusal of a publish, which names no connection; None when it is another message."""
    inner = printed_string(text.removeprefix(MQTT_TOPIC))
    return None if inner is None else _mqtt(written, inner, Action.PUBLISH)


def mqtt_refused(written: Written, text: str) -> Fact | None:
    """Read a refusal of RabbitMQ 3.12's MQTT plugin or a later one's; None when it does not state the permission."""
    return _mqtt(written, text.split(": ", 1)[1], None)


def _mqtt(written: Written, text: str, action: Action | None) -> Fact | None:
    found = read(_ACCESS, text)
    if found is None:
        return None
    if isinstance(found, Doubt):
        return Refused(written.time_ns, written.pid, None, action, None, reason="permission", ambiguous=True)
    form, reading = found
    right = reading["right"].rstrip()
    topic = form.startswith("topic")
    if action is None:
        if not right:
            return None
        action = _mqtt_action(right, topic, reading)
    kind = (ResourceKind.BINDING if action in _BINDS else ResourceKind.KEY) if topic else _kind(reading)
    resource = _resource(kind, reading, written.spelling)
    vhost, user = name_of(reading["vhost"], written.spelling), name_of(reading["user"], written.spelling)
    return Refused(
        written.time_ns,
        written.pid,
        None,
        action,
        None,
        resource or NO_RESOURCE,
        "topic" if topic else right,
        "permission",
        vhost,
        user,
        ambiguous=None in (resource, vhost, user),
    )


def _mqtt_action(right: str, topic: bool, reading: Reading) -> Action:
    if right == "configure":
        return Action.CONFIGURE
    if right == "write" and (topic or reading["kind"] == "exchange"):
        return Action.PUBLISH
    return Action.SUBSCRIBE
