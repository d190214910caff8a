"""The commands that leave a client what its policy intends of a grant, and take the rest away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.events import Action
from topicwarden.grants import Kept
from topicwarden.patterns import Covered, KeyPattern, NameUnion, SpecialWord, bind_key, names_match
from topicwarden.patterns.dotted import collapsed
from topicwarden.policy import Space
from topicwarden_collectors.rabbitmq.doctor_examination import argument
from topicwarden_collectors.rabbitmq.export_expressions import (
    SERVER_NAMED,
    bindings_expression,
    escaped,
    keys_expression,
    names_expression,
)
from topicwarden_collectors.rabbitmq.grants_rules import Row, regex_of
from topicwarden_collectors.rabbitmq.grants_topology import Topology
from topicwarden_collectors.rabbitmq.permissions import Permission

_OWN_QUEUES: Final = {
    "amq.gen-AAAAAAAAAAAAAAAAAAAAAA": SERVER_NAMED,
    "mqtt-subscription-AAAAqos0": "mqtt-subscription-.*qos[01]",
    "stomp-subscription-AAAAAAAAAAAAAAAAAAAAAA": "stomp-subscription-[A-Za-z0-9_-]{22}",
}
"""Queues that the server and its gateways make for a client, which needs all three permissions on them (3.10.8)."""
_MAX_OWN: Final = 50
_ACTIONS: Final = {"configure": Action.CONFIGURE, "write": Action.PUBLISH, "read": Action.SUBSCRIBE}


@dataclass(frozen=True, slots=True)
class Grant:
    """Which expression of a row a grant is."""

    kind: str
    """`configure`, `write` or `read`."""
    exchange: str | None = None
    """Whose keys it is about, for a topic permission."""


def instead(
    grant: Grant, row: Row, topology: Topology, kept: Sequence[Kept], intended: Sequence[Kept] | None = None
) -> str:
    """Return the commands; every expression they do not change is repeated as it is."""
    parts = [part for part in kept if part.action is _ACTIONS[grant.kind]]
    lines = [
        f"# left out, as no permission can depend on the client id safely: {part.pattern!r}"
        for part in parts
        if "%c" in part.pattern.split(".")
    ]
    if grant.exchange is not None:
        lines.append(_topic_command(row, grant.kind, grant.exchange, parts))
        return "\n".join(lines)
    lines += _permission_lines(grant.kind, row, topology, parts, intended)
    lines += _key_lines(grant.kind, row, topology, parts)
    return "\n".join(lines)


def _patterns(row: Row, parts: Iterable[Kept], *spaces: Space) -> list[KeyPattern]:
    """Return the parts in some spaces, bound to the user; those with a client id match nothing."""
    return [bind_key(part.pattern, row.user, None) for part in parts if part.space in spaces]


def _permission_lines(
    kind: str, row: Row, topology: Topology, parts: Sequence[Kept], intended: Sequence[Kept] | None
) -> Iterator[str]:
    names = [(part.space.family, bind_key(part.pattern, row.user, None)) for part in parts]
    # An exchange of the policy is one name; in patterns of names, `amq.` stands for queues the server names only.
    exchanges = {pattern.text for family, pattern in names if family == "exchange" and _is_plain(pattern)}
    patterns = [
        pattern for family, pattern in names if family == "queue" or (family == "exchange" and not _is_plain(pattern))
    ]
    if kind != "configure":
        exchanges |= {part.space.within for part in parts if part.space.family == "key"}
    more = [escaped(name) for name in sorted(exchanges)]
    if kind == "write" or exchanges:
        more += _own_queues(kind, row, topology, intended)
    elif kind == "configure":
        gateways = [one for one in _own_queues(kind, row, topology, intended) if one != SERVER_NAMED]
        if gateways:
            yield f"# a client that subscribes by MQTT or STOMP needs besides: {' or '.join(gateways)}"
    expression = names_expression(patterns, dict.fromkeys(more))
    old: str = getattr(row.permission, kind)
    if isinstance(NameUnion([regex_of(expression)]).uncovered(regex_of(old), newlines=False, empty=False), Covered):
        if not any(part.space.family == "key" for part in parts):
            yield f"# RabbitMQ cannot say less than {kind} {_quoted(old)}: a name may be a queue's or an exchange's"
        return
    left = {one: getattr(row.permission, one) for one in ("configure", "write", "read")} | {kind: expression}
    permission = Permission(**left)
    where = f"-p {argument(row.vhost)} {argument(row.user)}"
    if not any(one not in ("", "^$") for one in left.values()):
        yield f"rabbitmqctl clear_permissions {where}"
        return
    listed = " ".join(_quoted(one) for one in (permission.configure, permission.write, permission.read))
    yield f"rabbitmqctl set_permissions {where} {listed}"


def _own_queues(kind: str, row: Row, topology: Topology, intended: Sequence[Kept] | None) -> Iterator[str]:
    """Yield expressions for queues that are the client's own: who binds a queue needs write on it.

    Where nothing tells what is `intended`, a client that may make queues and bind them is taken to do so, and what it
    needs for it is left to it.
    """
    permission = row.permission
    read = regex_of(permission.read)
    if not any(names_match(read, name) for name in topology.exchanges):
        return
    if intended is not None and not any(
        part.action is Action.SUBSCRIBE and part.space.family == "key" for part in intended
    ):
        return  # it is to bind nothing
    asked = [regex_of(permission.configure), regex_of(permission.write), read]
    for name, expression in _OWN_QUEUES.items():
        if all(names_match(one, name) for one in asked):
            yield expression
    if kind == "write":
        own = [name for name in topology.queues if all(names_match(one, name) for one in asked)]
        if intended is not None:
            configured = [
                bind_key(part.pattern, row.user, None)
                for part in intended
                if part.action is Action.CONFIGURE and part.space.family == "queue"
            ]
            own = [name for name in own if any(names_match(one, name) for one in configured)]
        yield from (escaped(name) for name in own[:_MAX_OWN])


def _key_lines(kind: str, row: Row, topology: Topology, parts: Sequence[Kept]) -> Iterator[str]:
    """Yield topic permissions for exchanges of which not every key is intended and every key is permitted."""
    exchanges = dict.fromkeys(part.space.within for part in parts if part.space.family == "key")
    for name in exchanges:
        if name in row.topics:
            continue  # a grant of its own
        patterns = _patterns(row, parts, Space("key", name))
        if any(collapsed(pattern.words) == (SpecialWord.MANY,) for pattern in patterns):
            continue
        known = topology.exchanges.get(name)
        if known is not None and known.type not in ("topic", None):
            yield f"# RabbitMQ cannot limit the keys of {name!r}: it is no topic exchange but {known.type}"
            continue
        yield _topic_command(row, kind, name, [part for part in parts if part.space.within == name])


def _topic_command(row: Row, kind: str, exchange: str, parts: Sequence[Kept]) -> str:
    patterns = _patterns(row, parts, Space("key", exchange))
    known = row.topics.get(exchange)
    expressions = {"write": ".*", "read": ".*"} if known is None else {"write": known.write, "read": known.read}
    expressions[kind] = keys_expression(patterns) if kind == "write" else bindings_expression(patterns)
    words = ["-p", argument(row.vhost), argument(row.user), argument(exchange)]
    return " ".join(
        ["rabbitmqctl set_topic_permissions", *words, _quoted(expressions["write"]), _quoted(expressions["read"])]
    )


def _quoted(expression: str) -> str:
    return argument(expression) if expression else "''"


def _is_plain(pattern: KeyPattern) -> bool:
    return all(isinstance(word, str) for word in pattern.words)
