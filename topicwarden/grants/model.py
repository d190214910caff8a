"""The plain form of a broker's grants.

A reader asks the broker's configuration one question: what may *this* client do? The answer is, for each action and
each space of names, an ordered list of rules of which the first that matches decides. Users, groups, roles, priorities,
defaults and variables are gone by then: the reader has expanded them as its broker does. Nothing after a reader knows a
broker's quirks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from topicwarden.events import Action, Certainty, Client, Resource
from topicwarden.patterns import Names, names_match
from topicwarden.policy import Place, Space


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a grant stands in the broker's configuration. Equal origins are one grant."""

    source: str
    """File or address."""
    line: int | None
    """1-based; None where the source has no lines."""
    text: str
    """The grant in the broker's own words, on one line, such as `topic readwrite plant/#` or `write '^invoices'`."""
    holder: str = ""
    """To whom the configuration gives it, in words: `user 'billing'`, `role 'sensor'`, `every client`."""

    @property
    def where(self) -> str:
        """`file:12`, or the file alone."""
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True, slots=True)
class Rule:
    """Allows or denies every name of a set."""

    allow: bool
    names: Names
    origin: Origin
    certainty: Certainty = Certainty.EXACT
    """INFERRED where the broker may decide otherwise than what could be tried out."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What a broker would say to one name."""

    allowed: bool | None
    """None: it cannot be told."""
    rule: Rule | None
    """The rule that decides; None: no rule matches, and the name is denied."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in the order in which the broker looks at them: the first that matches decides, no match is a denial.

    A broker that allows by default has a last rule for `Anything`.
    """

    rules: tuple[Rule, ...] = ()

    def decide(self, name: str) -> Decision:
        """Say what becomes of a name."""
        for rule in self.rules:
            match names_match(rule.names, name):
                case True:
                    return Decision(rule.allow, rule)
                case None:
                    return Decision(None, rule)
        return Decision(False, None)


NOTHING = Rules()


@dataclass(frozen=True, slots=True)
class Rights:
    """All one client may do."""

    by: Mapping[tuple[Action, Space], Rules]
    """PUBLISH, SUBSCRIBE (to receive, by whatever means: subscribe, bind, consume) and CONFIGURE. A space that is not
    here allows nothing. Where a broker decides about an exchange first and then about keys in it, both spaces are here:
    `Space("exchange")` says which exchanges, `Space("key", exchange)` which keys of those that exist."""

    def rules(self, action: Action, space: Space) -> Rules:
        """Return the rules for an action in a space."""
        return self.by.get((action, space), NOTHING)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a grant that only the reader can know, already as a finding."""

    code: str
    origin: Origin
    client: Client | None = None
    witness: str | None = None
    evidence: Mapping[str, str | int | float] = field(default_factory=dict)
    """What the catalogue's title of that code asks for."""


@dataclass(frozen=True, slots=True)
class Path:
    """Something a client can reach although no rule of its own for it says so."""

    action: Action
    space: Space
    names: Names
    how: str
    """The way, in words: `its own exchange bound to orders`; continues "by way of"."""
    origin: Origin
    certainty: Certainty = Certainty.EXACT
    queue: str | None = None
    """The queue it is received from, where that is how: whoever intends the queue intends what flows into it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A part of a grant that the policy intends as well."""

    action: Action
    space: Space
    pattern: str
    """In the space's own syntax; `%u` and `%c` where the policy has them."""


class Grants(Protocol):
    """What one broker (or one listener of it, where each has its own rules) would allow."""

    @property
    def broker(self) -> str:
        """The operator's name for it."""
        ...

    @property
    def kind(self) -> str:
        """`mosquitto`, `rabbitmq` …"""
        ...

    @property
    def title(self) -> str:
        """What was read, for people: `acl_file /etc/mosquitto/acl (listener 8883)`."""
        ...

    @property
    def accounts(self) -> Sequence[Client]:
        """Whom the configuration names: broker, protocol, user (None: anonymous), virtual host; client id ''."""
        ...

    @property
    def closed(self) -> bool:
        """Whether nobody but the accounts can connect."""
        ...

    @property
    def origins(self) -> Sequence[Origin]:
        """Every grant of the configuration, whoever has it."""
        ...

    @property
    def faults(self) -> Sequence[Fault]:
        """What is wrong with the grants by the broker's own rules, policy or not."""
        ...

    @property
    def blind_spots(self) -> Sequence[str]:
        """What cannot be told from what was read, each a sentence without full stop."""
        ...

    def rights(self, client: Client) -> Rights | None:
        """Return what a client (user, client id, virtual host) may do; None when it cannot connect at all."""
        ...

    def paths(self, client: Client) -> Sequence[Path]:
        """Return what a client can reach in indirect ways."""
        ...

    def carried(self, place: Place) -> Place:
        """Return how this broker carries a place of the policy: RabbitMQ has MQTT topics as keys of an exchange."""
        ...

    def needed(self, action: Action, place: Place) -> Sequence[tuple[Action, Space, Names]]:
        """Return what else a client must be allowed at this broker to use a permission of the policy.

        RabbitMQ gives an MQTT client that subscribes a queue, with the client's own permissions.
        """
        ...

    def instead(
        self, origin: Origin, client: Client, kept: Sequence[Kept], intended: Sequence[Kept] | None = None
    ) -> str:
        """Return the smallest grant in the broker's own syntax that leaves a client what the policy intends of a grant.

        One or more lines; nothing `kept`: the words that take the grant away. `intended`: all that the policy intends
        for the client, for brokers where one thing asks for another; None: not known.
        """
        ...


@dataclass(frozen=True, slots=True)
class Unsaid:
    """Something of a policy that the target's grants cannot express."""

    what: str
    """One sentence without full stop."""
    where: str = ""
    """`roles.sensor.publish[0]`."""


@dataclass(frozen=True, slots=True)
class Export:
    """A policy in a broker's own syntax."""

    target: str
    files: Mapping[str, str]
    """By file name; the first is the main one, which `Broker.grants` reads."""
    unsaid: Sequence[Unsaid]
    denied_more: Sequence[Unsaid] = ()
    """What the policy allows and the export does not, because the target cannot without allowing more."""


class Verdict(StrEnum):
    """What a running broker said to a witness."""

    ALLOWED = "allowed"
    DENIED = "denied"
    NOT_TRIED = "not tried"


class Probe(Protocol):
    """Asks a running broker, as a client."""

    def ask(self, client: Client, action: Action, resource: Resource) -> tuple[Verdict, str]:
        """Try it out without harm; returns what the broker said, and why in words. Raises nothing."""
        ...

    def close(self) -> None:
        """End all connections."""
        ...
