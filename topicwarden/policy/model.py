"""The intended set: roles, naming, payloads, thresholds, inventory, exceptions, as frozen models."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from topicwarden.events import Action, Client
from topicwarden.policy.exceptions import ExceptionRule
from topicwarden.policy.fields import (
    ByteRate,
    Count,
    DottedPattern,
    EventRate,
    LevelRegex,
    NamedDotted,
    NamePattern,
    Network,
    PlainDotted,
    PlainFilter,
    PlainNamedDotted,
    PolicyFilter,
    Port,
    PositiveSize,
    RoleName,
    Size,
    Text,
)
from topicwarden.policy.places import Place, place_of
from topicwarden.policy.strict import Strict, one_place
from topicwarden.policy.values import NANOSECONDS, Rate, RefusedError, address_within, shown

FORMAT = 1
"""Version of the policy language."""


def _placed(
    topic: str | None = None, exchange: str | None = None, key: str | None = None, queue: str | None = None
) -> Place:
    place = place_of(topic, exchange, key, queue)
    assert place is not None  # `shape_problem` has refused such a rule
    return place


class MemberSelector(Strict):
    """Which clients have a role: all keys given must match; names are globs (`*`, `?`), case-sensitive."""

    user: NamePattern | None = None
    """User name; never matches a client without one."""
    client: NamePattern | None = None
    """Client id: chosen by the client itself unless the broker binds it to the user."""
    vhost: NamePattern | None = None
    broker: NamePattern | None = None
    address: Network | None = None
    """Peer IP address or CIDR block."""
    tls_subject: NamePattern | None = None
    anonymous: bool = False
    """True: clients without a user name."""

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse a selector of everybody, and one of nobody."""
        if not keys:
            return RefusedError("a member selector is empty", "name at least one of user, client, address …")
        if "anonymous" in keys and "user" in keys:
            return RefusedError("a member cannot be anonymous and have a user name", "write two selectors")
        return None

    @field_validator("anonymous")
    @classmethod
    def _only_true(cls, value: bool) -> bool:
        if not value:
            raise RefusedError("anonymous can only be true", 'for clients with any user name write user: "*"')
        return value

    def matches(self, client: Client) -> bool:
        """Whether this client is selected; what is not known about it matches no key.

        User names match however far the broker vouches for them: `Client.identity` says that.
        """
        if self.anonymous and client.user is not None:
            return False
        for pattern, value in (
            (self.user, client.user),
            (self.client, client.client_id),
            (self.vhost, client.vhost),
            (self.broker, client.broker),
            (self.tls_subject, client.tls_subject),
        ):
            if pattern is not None and (value is None or not pattern.matches(value)):
                return False
        return self.address is None or address_within(client.address, self.address)

    def may_match(self, user: str | None, vhost: str | None, broker: str) -> bool:
        """Whether some client of this user could be selected; None stands for any."""
        if self.anonymous:
            return user is None
        return all(
            pattern is None or value is None or pattern.matches(value)
            for pattern, value in ((self.user, user), (self.vhost, vhost), (self.broker, broker))
        )


class _Limits(Strict):
    """How much may be published: events and bytes, each a GCRA policer."""

    rate: EventRate | None = None
    burst: Count | None = None
    """Messages at one instant; default: the whole amount of `rate`."""
    byte_rate: ByteRate | None = None
    byte_burst: PositiveSize | None = None
    """Bytes at one instant; default: the whole amount of `byte_rate`, and at least `max_size`."""

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse a burst of nothing."""
        for burst, rate in (("burst", "rate"), ("byte_burst", "byte_rate")):
            if burst in keys and rate not in keys:
                return RefusedError(f"{burst} without {rate} limits nothing", f"add {rate} or remove {burst}")
        return None

    @property
    def effective_burst(self) -> int | None:
        """`burst`, or its default; None when there is no `rate`."""
        return None if self.rate is None else self.burst or self.rate.default_burst

    @property
    def effective_byte_burst(self) -> int | None:
        """`byte_burst`, or its default; None when there is no `byte_rate`."""
        return None if self.byte_rate is None else self.byte_burst or self.byte_rate.default_burst


class PublishRule(_Limits):
    """A permission to publish, per member: to MQTT topics, or to an AMQP exchange by routing key."""

    topic: PolicyFilter | None = None
    exchange: Text | None = None
    key: DottedPattern | None = None
    max_size: Size | None = None
    """Largest payload in bytes."""

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse a rule for both protocols, or for none."""
        return one_place(keys, "a publish rule") or super().shape_problem(keys)

    @model_validator(mode="after")
    def _largest_message_fits(self) -> Self:
        if self.byte_burst is not None and self.max_size is not None and self.byte_burst < self.max_size:
            raise RefusedError(
                f"byte_burst {self.byte_burst} is smaller than max_size {self.max_size}: such a message never passes",
                "raise byte_burst or lower max_size",
            )
        return self

    @property
    def effective_byte_burst(self) -> int | None:
        """`byte_burst`, or its default; None when there is no `byte_rate`."""
        burst = super().effective_byte_burst
        return burst if burst is None or self.byte_burst is not None else max(burst, self.max_size or 0)

    @property
    def place(self) -> Place:
        """Where it lets its members publish."""
        return _placed(self.topic, self.exchange, self.key)


class SubscribeRule(Strict):
    """A permission to subscribe to every filter whose topics all match `topic`; or to bind queues to an exchange.

    The latter with every binding key whose routing keys all match `key`.
    """

    topic: PolicyFilter | None = None
    exchange: Text | None = None
    key: DottedPattern | None = None

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse a rule for both protocols, or for none."""
        return one_place(keys, "a subscribe rule")

    @property
    def place(self) -> Place:
        """What it lets its members receive."""
        return _placed(self.topic, self.exchange, self.key)


class ConsumeRule(Strict):
    """A permission to consume from queues."""

    queue: NamedDotted

    @property
    def place(self) -> Place:
        """The queues."""
        return _placed(queue=self.queue)


class ConfigureRule(Strict):
    """A permission to declare, purge and delete queues, or to declare and delete exchanges."""

    queue: NamedDotted | None = None
    exchange: NamedDotted | None = None

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse a rule for both, or for none."""
        if len({"queue", "exchange"} & set(keys)) != 1:
            return RefusedError("a configure rule names queues or exchanges, one of the two", "write queue: PATTERN")
        return None

    @property
    def place(self) -> Place:
        """The queues or exchanges."""
        return _placed(exchange=self.exchange, queue=self.queue)


class Role(_Limits):
    """Who, and what they may do; the limits hold for all publishes of one member together."""

    members: Annotated[tuple[MemberSelector, ...], Field(min_length=1)]
    publish: tuple[PublishRule, ...] = ()
    subscribe: tuple[SubscribeRule, ...] = ()
    consume: tuple[ConsumeRule, ...] = ()
    configure: tuple[ConfigureRule, ...] = ()

    @property
    def receives(self) -> list[Place]:
        """What a member may subscribe to, bind to or consume from.

        Whoever may bind needs a queue for it, and one that the server names (`amq.gen-…`; clients cannot choose names
        that begin with `amq.`) is as good as its bindings: it comes with the permission.
        """
        consumed = [rule.place for rule in self.consume]
        return [*(rule.place for rule in self.subscribe), *consumed, *self._own_queues]

    @property
    def configures(self) -> list[Place]:
        """What a member may declare, purge and delete; queues that the server names come with a permission to bind."""
        return [*(rule.place for rule in self.configure), *self._own_queues]

    def places(self, action: Action) -> list[Place]:
        """Return where a member may do this: PUBLISH, SUBSCRIBE (to receive in any way) or CONFIGURE."""
        match action:
            case Action.PUBLISH:
                return [rule.place for rule in self.publish]
            case Action.SUBSCRIBE:
                return self.receives
            case Action.CONFIGURE:
                return self.configures
            case _:
                raise ValueError(f"a policy says nothing of {action.name}")

    @property
    def _own_queues(self) -> list[Place]:
        return [_placed(queue="amq.*")] if any(rule.exchange is not None for rule in self.subscribe) else []

    @property
    def effective_byte_burst(self) -> int | None:
        """`byte_burst`, or its default, at least the largest `max_size` of the rules; None when no `byte_rate`."""
        burst = super().effective_byte_burst
        if burst is None or self.byte_burst is not None:
            return burst
        return max([burst, *(rule.max_size or 0 for rule in self.publish)])

    def has_member(self, client: Client) -> bool:
        """Whether any of the selectors matches."""
        return any(member.matches(client) for member in self.members)


class Within(Strict):
    """The names a naming rule is about."""

    topic: PlainFilter | None = None
    exchange: Text | None = None
    key: PlainDotted | None = None
    queue: PlainNamedDotted | None = None

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:
        """Refuse several kinds of names at once, or none."""
        return one_place(keys, "a naming rule", "queue")

    @property
    def place(self) -> Place:
        """The names."""
        return _placed(self.topic, self.exchange, self.key, self.queue)


class NamingRule(Strict):
    """How names are built under a branch: one regular expression per level, each matching the whole level."""

    within: Within
    levels: Annotated[tuple[LevelRegex, ...], Field(min_length=1, max_length=128)]
    more: bool = False
    """Whether levels deeper than those listed are allowed; they are not looked at."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        place = self.within.place
        syntax, wanted, name = place.space.syntax, place.levels, shown(place.pattern)
        # Behind a wildcard for any number of levels, nothing can be said of their places.
        fixed = wanted[: wanted.index(syntax.rest)] if syntax.rest in wanted else wanted
        open_end = len(fixed) < len(wanted)
        if len(fixed) > len(self.levels) and not self.more:
            raise RefusedError(
                f"names within {name} have more levels than the {len(self.levels)} described",
                "describe every level, or add more: true",
            )
        if not open_end and len(fixed) < len(self.levels):
            raise RefusedError(
                f"names within {name} have {len(fixed)} levels, never {len(self.levels)}",
                f"end the pattern in {syntax.separator}{syntax.rest} or describe fewer levels",
            )
        for number, (level, pattern) in enumerate(zip(fixed, self.levels, strict=False)):
            if level != syntax.one and re.fullmatch(pattern, level) is None:
                raise RefusedError(
                    f"levels[{number}] {shown(pattern)} never matches {shown(level)}, "
                    f"the level of every name within {name}",
                    "levels count from the first level of the whole name",
                )
        return self


class Payload(Strict):
    """What payloads may look like. No payload is ever stored."""

    max_entropy: Annotated[float, Field(ge=0, le=8)] | None = None
    """Bits per byte; None: not checked."""
    min_size_for_entropy: Annotated[Size, Field(ge=1)] = 64
    """Smaller payloads are not judged by entropy: their figure means nothing."""
    text_only: tuple[PlainFilter, ...] = ()
    """Topics whose payloads must be printable text or JSON."""
    no_encoded: tuple[PlainFilter, ...] = ()
    """Topics where a payload that is base64 or hexadecimal as a whole is suspicious."""


class Thresholds(Strict):
    """What is too much of something, per client. Rates here allow their whole amount at once."""

    denials: EventRate = Rate(10, 60 * NANOSECONDS)
    login_failures: EventRate = Rate(5, 60 * NANOSECONDS)
    new_topics: EventRate = Rate(100, 60 * NANOSECONDS)
    max_name_length: Annotated[int, Field(ge=1, le=65535)] = 255
    """Bytes of UTF-8 in a name. AMQP 0-9-1 has no longer ones: RabbitMQ 3.10.8 takes a longer MQTT topic, and then ends
    the connection of every AMQP client that it delivers the message to, again and again."""
    max_levels: Annotated[int, Field(ge=1, le=65536)] = 16
    anomaly_score: Annotated[int, Field(ge=1, le=100)] = 70
    """Score of a publish (docs/baseline.md) from which it is a finding."""


class InventoryBroker(Strict):
    """A broker that is meant to be there."""

    address: Text
    """Host name, IP address or network (`10.2.0.0/16`)."""
    ports: Annotated[tuple[Port, ...], Field(min_length=1)]
    name: Text | None = None
    """What we call the broker (`--broker`), where it is watched too."""
    host: Text | None = None
    """The host it runs on, by the name that the host's own telemetry uses: joins of loopback connections need it."""


class InventoryTool(Strict):
    """A program that may talk to brokers: on these hosts, run by these users, started by these; empty means any."""

    process: NamePattern
    """File name of the program, without its folder."""
    hosts: tuple[NamePattern, ...] = ()
    users: tuple[NamePattern, ...] = ()
    parents: tuple[NamePattern, ...] = ()
    """File names of programs that start it (`cron`, `gitlab-runner`); where the parent is not known it does not fit."""


class InventoryHost(Strict):
    """A host and the addresses it has: for telemetry that tells no local end of a connection, as auditd's does not."""

    name: Text
    """As the host's own telemetry spells it."""
    addresses: Annotated[tuple[Text, ...], Field(min_length=1)]
    """IP addresses."""

    @field_validator("addresses")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ip_address(text)
            except ValueError:
                raise RefusedError(f"{shown(text)} is no IP address", "such as 10.0.0.7 or fd00::7") from None
        return value


class Inventory(Strict):
    """The approved brokers and tools, and hosts whose addresses have to be known."""

    brokers: tuple[InventoryBroker, ...] = ()
    tools: tuple[InventoryTool, ...] = ()
    hosts: tuple[InventoryHost, ...] = ()


class Policy(Strict):
    """The whole of a policy file."""

    topicwarden: int
    """Version of the policy language: 1."""
    roles: Mapping[RoleName, Role] = {}
    naming: tuple[NamingRule, ...] = ()
    payload: Payload = Payload()
    thresholds: Thresholds = Thresholds()
    inventory: Inventory = Inventory()
    exceptions: tuple[ExceptionRule, ...] = ()

    @field_validator("topicwarden")
    @classmethod
    def _readable(cls, value: int) -> int:
        if value != FORMAT:
            raise RefusedError(f"this topicwarden reads version {FORMAT} of the policy language, not {value}")
        return value

    def roles_of(self, client: Client) -> list[str]:
        """Return the names of the roles this client has, in the file's order."""
        return [name for name, role in self.roles.items() if role.has_member(client)]
