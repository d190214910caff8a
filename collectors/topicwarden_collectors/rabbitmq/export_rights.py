"""What a policy's rules take of RabbitMQ's permissions, for one account, and what they cannot say.

Tried with 3.10.8. A permission is on a name, whether a queue or an exchange has it, and `read` on a queue is to consume
from it and to purge it, on an exchange to bind to it; `write` is to publish, and to bind the queue. A topic permission
restricts keys on exchanges of type topic; without one for an exchange every key is allowed, so each exchange has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from topicwarden.grants import Unsaid
from topicwarden.patterns import (
    TOPICS,
    Covered,
    KeyPattern,
    KeyUnion,
    KeyWord,
    LevelPattern,
    Special,
    SpecialWord,
    bind_key,
    key_matches,
    parse_binding,
)
from topicwarden.patterns.dotted import collapsed, split_key
from topicwarden.policy import MQTT_EXCHANGE, Place, Policy, Role
from topicwarden_collectors.rabbitmq import exchanges
from topicwarden_collectors.rabbitmq.export_expressions import (
    SERVER_NAMED,
    bindings_expression,
    escaped,
    keys_expression,
    names_expression,
)
from topicwarden_collectors.rabbitmq.permissions import Permission, TopicPermission

TYPES: Final[Mapping[str, str]] = {**exchanges.BUILT_IN, **exchanges.OBSERVING}
MQTT_QUEUES: Final = "mqtt-subscription-.*qos[01]"
"""Where the MQTT plugin keeps what a client subscribed to: client id between, one for each quality of service."""
STOMP_QUEUES: Final = "stomp-subscription-[A-Za-z0-9_-]{22}"
_WORDS: Final[Mapping[Special, SpecialWord]] = {
    Special.ONE: SpecialWord.ONE,
    Special.REST: SpecialWord.MANY,
    Special.NOTHING: SpecialWord.NOTHING,
}


@dataclass(slots=True)
class Notes:
    """What is not as the policy says, each told once however many accounts it is about."""

    unsaid: dict[Unsaid, None] = field(default_factory=dict)
    denied_more: dict[Unsaid, None] = field(default_factory=dict)

    def more(self, what: str, where: str = "") -> None:
        """Note what the export allows besides, or does not limit."""
        self.unsaid[Unsaid(what, where)] = None

    def less(self, what: str, where: str) -> None:
        """Note what the policy allows and the export denies."""
        self.denied_more[Unsaid(what, where)] = None


@dataclass(slots=True)
class _Name:
    """One of the three permissions on names."""

    patterns: list[KeyPattern] = field(default_factory=list)
    """Of queues, and of exchanges to configure."""
    exchanges: dict[str, None] = field(default_factory=dict)
    """Written out."""
    more: dict[str, None] = field(default_factory=dict)
    """Expressions for queues that the server and its gateways name."""

    @property
    def expression(self) -> str:
        return names_expression(self.patterns, [*map(escaped, self.exchanges), *self.more])


@dataclass(slots=True)
class _Keys:
    """What may be done with the keys of one exchange."""

    write: list[KeyPattern] = field(default_factory=list)
    read: list[KeyPattern] = field(default_factory=list)


class AccountRights:
    """The permissions that one account's roles come to."""

    def __init__(self, user: str, notes: Notes, *, stomp: bool = False) -> None:
        self.user = user
        self._notes = notes
        self._stomp = stomp
        self._configure, self._write, self._read = _Name(), _Name(), _Name()
        self._keys: dict[str, _Keys] = {}
        self._binds = False
        self._own: list[KeyPattern] = []
        """Queues that it may configure."""
        self._queue_rules: list[tuple[str, KeyPattern, str]] = []
        """Permission, queues and place in the policy, for each rule about queues."""

    def add(self, name: str, role: Role) -> None:
        """Add what a role permits."""
        where = f"roles.{name}"
        for number, publish in enumerate(role.publish):
            self._publish(publish.place, f"{where}.publish[{number}]")
        for number, subscribe in enumerate(role.subscribe):
            self._subscribe(subscribe.place, f"{where}.subscribe[{number}]")
        consumed: list[KeyPattern] = []
        for number, consume in enumerate(role.consume):
            at = f"{where}.consume[{number}]"
            queues = self._bound(consume.place, at)
            if queues is not None:
                consumed.append(queues)
                self._read.patterns.append(queues)
                self._queue_rules.append(("read", queues, at))
                self._notes.more("who may consume from a queue may purge it, too", at)
        for number, configure in enumerate(role.configure):
            self._declare(configure.place, consumed, f"{where}.configure[{number}]")

    def _publish(self, place: Place, where: str) -> None:
        exchange, keys = self._keyed(place, where)
        if keys is None:
            return
        kind = TYPES.get(exchange)
        if kind not in (None, "topic") and not _everything(keys):
            what = f"RabbitMQ cannot limit publishing to keys of {exchange!r}, a {kind} exchange"
            if exchange == exchanges.DEFAULT:
                what = f"RabbitMQ cannot limit publishing to some queues by the default exchange ({place.pattern!r})"
            self._notes.less(f"{what}: it is denied whole", where)
            return
        self._write.exchanges[exchange] = None
        self._keys.setdefault(exchange, _Keys()).write.append(keys)
        if not _everything(keys):
            self._limited(exchange, kind, where)
            self._notes.more("routing keys in CC and BCC headers are not checked before RabbitMQ 4.0.3")

    def _subscribe(self, place: Place, where: str) -> None:
        exchange, keys = self._keyed(place, where)
        if keys is None:
            return
        kind = TYPES.get(exchange)
        if exchange == exchanges.DEFAULT:
            self._notes.less("RabbitMQ lets nobody bind to the default exchange", where)
            return
        if kind not in (None, "topic") and not _everything(keys):
            self._notes.less(
                f"RabbitMQ cannot limit binding to keys of {exchange!r}, a {kind} exchange: it is denied whole", where
            )
            return
        if any(word in ("*", "#") for word in keys.words):
            self._notes.less("as a binding key a word '*' or '#' is a wildcard: binding to it is denied", where)
        if place.space.family == "topic":
            queues = MQTT_QUEUES
            self._notes.more(
                "to subscribe by MQTT is to configure, write and read queues named mqtt-subscription-CLIENTqos1: by "
                "AMQP, members reach those of all other MQTT clients as well",
                where,
            )
        else:
            queues = STOMP_QUEUES if self._stomp else SERVER_NAMED
            self._binds = True
        for names in (self._configure, self._write, self._read):
            names.more.update(dict.fromkeys([queues, SERVER_NAMED] if self._binds else [queues]))
        self._read.exchanges[exchange] = None
        self._keys.setdefault(exchange, _Keys()).read.append(keys)
        if not _everything(keys):
            self._limited(exchange, kind, where)

    def _declare(self, place: Place, consumed: Sequence[KeyPattern], where: str) -> None:
        names = self._bound(place, where)
        if names is None:
            return
        self._configure.patterns.append(names)
        queue = place.space.family == "queue"
        other = "exchanges" if queue else "queues"
        self._notes.more(f"'configure' is on names: it is also to declare and delete {other} of these names", where)
        if queue:
            self._own.append(names)
            self._queue_rules.append(("write", names, where))
            if not isinstance(KeyUnion(consumed).uncovered(names), Covered):
                self._notes.less("RabbitMQ lets only those purge a queue who may consume from it", where)

    def _limited(self, exchange: str, kind: str | None, where: str) -> None:
        if kind is None:
            self._notes.more(
                f"keys are limited on topic exchanges only: if {exchange!r} is of another type, every key is allowed",
                where,
            )

    # Patterns ---------------------------------------------------------------------------------------------------------

    def _keyed(self, place: Place, where: str) -> tuple[str, KeyPattern | None]:
        """Return an exchange and what is meant of its keys, None for nothing."""
        if place.space.family != "topic":
            return place.space.within, self._bound(place, where)
        if "%c" in place.levels:
            self._no_client_id(where)
            return MQTT_EXCHANGE, None
        pattern = TOPICS.bind(place.pattern, self.user, None)
        assert isinstance(pattern, LevelPattern)  # those of TOPICS are
        if "%u" in place.levels and "." in self.user:
            self._notes.less(f"a level of a topic cannot be {self.user!r}: RabbitMQ reads a '.' as a '/'", where)
            return MQTT_EXCHANGE, None
        if any(isinstance(level, str) and "." in level for level in pattern.levels):
            self._notes.more("RabbitMQ reads a '.' in an MQTT topic as a '/', and allows both", where)
        if pattern.levels[0] in (Special.ONE, Special.REST):
            self._notes.more("for RabbitMQ, wildcards at the first level match what begins with '$', too", where)
        key = _as_key(pattern)
        return MQTT_EXCHANGE, None if SpecialWord.NOTHING in key.words else key

    def _bound(self, place: Place, where: str) -> KeyPattern | None:
        """Return a pattern for this user; None when it matches nothing or cannot be written."""
        if "%c" in place.levels:
            self._no_client_id(where)
            return None
        pattern = bind_key(place.pattern, self.user, None)
        return None if SpecialWord.NOTHING in pattern.words else pattern

    def _no_client_id(self, where: str) -> None:
        self._notes.less(
            "a permission cannot depend on the client id safely: before RabbitMQ 4.2.4 a client named '.*' would get "
            "everything that {client_id} stands in",
            where,
        )

    # What comes of it -------------------------------------------------------------------------------------------------

    def permission(self) -> Permission:
        """Return the permissions on names."""
        if self._binds:
            # What may be bound is what is one's own: queues that the server names, and those one may declare.
            self._write.patterns += [queues for queues in self._own if queues not in self._write.patterns]
            for permission, _, where in self._queue_rules:
                if permission == "write":
                    self._notes.more("members may also publish to exchanges named like these queues", where)
        return Permission(self._configure.expression, self._write.expression, self._read.expression)

    def topic_permissions(self, named: Iterable[str]) -> dict[str, TopicPermission]:
        """Return the topic permission of each exchange; `named`: the exchanges that the policy names.

        Those that the names of queues reach as well get one that allows no key.
        """
        rows = {exchange: keys for exchange, keys in self._keys.items() if TYPES.get(exchange) in (None, "topic")}
        for exchange in named:
            for permission, queues, where in self._queue_rules:
                if exchange in TYPES or not key_matches(queues, exchange):
                    continue
                if permission == "write" and not self._binds:
                    continue
                keys = self._keys.get(exchange, _Keys())
                if keys.read if permission == "read" else keys.write:
                    continue
                rows.setdefault(exchange, _Keys())
                does = "bind to" if permission == "read" else "publish to"
                self._notes.more(
                    f"exchange {exchange!r} is named like a queue: unless it is a topic exchange, "
                    f"members may {does} it",
                    where,
                )
        self._tell_of_rows(rows)
        return {
            exchange: TopicPermission(keys_expression(keys.write), bindings_expression(keys.read))
            for exchange, keys in sorted(rows.items())
        }

    def _tell_of_rows(self, rows: Mapping[str, _Keys]) -> None:
        limited = [exchange for exchange, keys in rows.items() if keys.write and not any(map(_everything, keys.write))]
        if limited and (self._configure.more or self._own):
            self._notes.more(
                "keys are checked when a client publishes: one that may declare a queue can have its messages "
                "dead-lettered to an exchange that it may write to, with any key"
            )
        if self._write.exchanges and self._read.exchanges:
            self._notes.more(
                "who may bind to one exchange and publish to another may bind the two: what comes to the first then "
                "goes to the second, too"
            )
        for exchange, keys in rows.items():
            mixed = any(_mixed_run(pattern) for pattern in keys.read)
            if mixed and len(keys.read) > 1:
                self._notes.less(
                    f"a binding key of {exchange!r} must be within one of the policy's patterns: what only several "
                    "of them allow together is denied",
                    "",
                )


def exchanges_of(policy: Policy) -> list[str]:
    """Return the exchanges that a policy names."""
    named: dict[str, None] = {}
    for role in policy.roles.values():
        keyed = [rule.exchange for rule in role.publish] + [rule.exchange for rule in role.subscribe]
        named.update((exchange, None) for exchange in keyed if exchange is not None)
        for rule in role.configure:
            if rule.exchange is not None:
                words = parse_binding(rule.exchange, placeholders=True).words
                named.update([(rule.exchange, None)] if all(isinstance(word, str) for word in words) else [])
    return list(named)


def _as_key(pattern: LevelPattern) -> KeyPattern:
    """Return a topic filter as the MQTT plugin has it: `/` becomes `.`, and a literal level stays one."""
    words: list[KeyWord] = []
    for level in pattern.levels:
        if isinstance(level, Special):
            words.append(_WORDS[level])
        else:
            words += split_key(level) or [""]
    return KeyPattern(pattern.text, tuple(words))


def _everything(pattern: KeyPattern) -> bool:
    return collapsed(pattern.words) == (SpecialWord.MANY,)


def _mixed_run(pattern: KeyPattern) -> bool:
    """Whether `*` and `#` stand side by side, so that other patterns may fill what is missing to a `#` alone."""
    words = collapsed(pattern.words)
    return any(a is SpecialWord.ONE and b is SpecialWord.MANY for a, b in pairwise(words))
