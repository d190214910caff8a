"""The intended set: roles, naming, payloads, thresholds, inventory, exceptions, as frozen models."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from topicwarden.events import Client
from topicwarden.patterns import Covered, filter_problem, matches, strip_share, uncovered
from topicwarden.policy.fields import (
    ByteRate,
    Count,
    Day,
    DottedPattern,
    EventRate,
    LevelRegex,
    NamePattern,
    Network,
    PlainFilter,
    PolicyFilter,
    Port,
    PositiveSize,
    RoleName,
    Size,
    Text,
    near,
)
from topicwarden.policy.values import NANOSECONDS, Rate, RefusedError, address_within, shown

FORMAT = 1
"""Version of the policy language."""


class Strict(BaseModel):
    """What people write by hand: no unknown keys, frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def shape_problem(cls, keys: Collection[str]) -> RefusedError | None:  # noqa: ARG003 - for those that override it
        """Say why these keys cannot stand together in one mapping, or None; looks at no value."""
        return None

    @model_validator(mode="after")
    def _check_shape(self) -> Self:
        problem = self.shape_problem(self.model_fields_set)
        if problem is not None:
            raise problem
        return self


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
        hint = "write topic: FILTER, or exchange: NAME and key: PATTERN"
        if "topic" in keys and ("exchange" in keys or "key" in keys):
            return RefusedError("a publish rule names a topic or an exchange, not both", hint)
        if "topic" not in keys and not ("exchange" in keys and "key" in keys):
            return RefusedError("a publish rule does not say where to", hint)
        return super().shape_problem(keys)

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


class SubscribeRule(Strict):
    """A permission to subscribe to every filter whose topics all match `topic`."""

    topic: PolicyFilter


class ConsumeRule(Strict):
    """A permission to consume from queues."""

    queue: DottedPattern


class Role(_Limits):
    """Who, and what they may do; the limits hold for all publishes of one member together."""

    members: Annotated[tuple[MemberSelector, ...], Field(min_length=1)]
    publish: tuple[PublishRule, ...] = ()
    subscribe: tuple[SubscribeRule, ...] = ()
    consume: tuple[ConsumeRule, ...] = ()

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

    topic: PlainFilter


class NamingRule(Strict):
    """How names are built under a branch: one regular expression per level, each matching the whole level."""

    within: Within
    levels: Annotated[tuple[LevelRegex, ...], Field(min_length=1, max_length=128)]
    more: bool = False
    """Whether levels deeper than those listed are allowed; they are not looked at."""

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        wanted = self.within.topic.split("/")
        open_end = wanted[-1] == "#"
        fixed = wanted[:-1] if open_end else wanted
        if len(fixed) > len(self.levels) and not self.more:
            raise RefusedError(
                f"names within {shown(self.within.topic)} have more levels than the {len(self.levels)} described",
                "describe every level, or add more: true",
            )
        if not open_end and len(fixed) < len(self.levels):
            raise RefusedError(
                f"names within {shown(self.within.topic)} have {len(fixed)} levels, never {len(self.levels)}",
                "end the filter in /# or describe fewer levels",
            )
        for number, (level, pattern) in enumerate(zip(fixed, self.levels, strict=False)):
            if level != "+" and re.fullmatch(pattern, level) is None:
                raise RefusedError(
                    f"levels[{number}] {shown(pattern)} never matches {shown(level)}, "
                    f"the level of every name within {shown(self.within.topic)}",
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
    max_name_length: Annotated[int, Field(ge=1, le=65535)] = 256
    """Bytes of UTF-8 in a topic name or filter."""
    max_levels: Annotated[int, Field(ge=1, le=65536)] = 16


class InventoryBroker(Strict):
    """A broker that is meant to be there."""

    address: Text
    """Host name or IP address."""
    ports: Annotated[tuple[Port, ...], Field(min_length=1)]


class InventoryTool(Strict):
    """A program that may talk to brokers: on these hosts, run by these users; empty means any."""

    process: NamePattern
    hosts: tuple[NamePattern, ...] = ()
    users: tuple[NamePattern, ...] = ()


class Inventory(Strict):
    """The approved brokers and tools."""

    brokers: tuple[InventoryBroker, ...] = ()
    tools: tuple[InventoryTool, ...] = ()


class ExceptionRule(Strict):
    """A finding somebody accepted for a while. When it has expired, that is a finding."""

    finding: str
    """Code or dotted name."""
    client: NamePattern
    """Client id: chosen by the client itself unless the broker binds it to the user."""
    user: NamePattern | None = None
    """User name; None: any, and none."""
    topic: PlainFilter | None = None
    """Only for topics matched by this filter; None: any."""
    reason: Text
    until: Day
    """The last day on which it holds, UTC."""

    @field_validator("finding")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        known: Collection[str] | None = (info.context or {}).get("known_findings")
        if known is not None and value.lower() not in {name.lower() for name in known}:
            raise RefusedError(f"no finding is called {shown(value)}", near(value, known, "run topicwarden explain"))
        if not re.fullmatch(r"TW[0-9]{3}|[a-z-]+\.[a-z-]+", value, re.IGNORECASE | re.ASCII):
            raise RefusedError(
                f"a finding is a code (TW201) or a dotted name (publish.outside-policy), not {shown(value)}"
            )
        return value

    @property
    def until_ns(self) -> int:
        """The first nanosecond (since the epoch, UTC) at which it holds no more."""
        return int(datetime.combine(self.until + timedelta(days=1), time(), UTC).timestamp()) * NANOSECONDS

    def covers(self, code: str, name: str, client: Client | None, topic: str | None) -> bool:
        """Whether it accepts the finding with this code and dotted name; its end date is not looked at.

        `topic` may be a topic filter with wildcards, when the finding is about a subscription: then all its topics must
        match.
        """
        if self.finding.lower() not in (code.lower(), name.lower()):
            return False
        if client is None or not self.client.matches(client.client_id):
            return False
        if self.user is not None and (client.user is None or not self.user.matches(client.user)):
            return False
        if self.topic is None:
            return True
        if topic is None:
            return False
        wanted = strip_share(topic)[1]
        if "+" not in wanted and "#" not in wanted:
            return matches(self.topic, wanted)
        return filter_problem(wanted) is None and isinstance(uncovered(wanted, [self.topic]), Covered)


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
