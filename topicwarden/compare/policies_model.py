"""What a change of a policy comes to, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from topicwarden.events import Action, Client
from topicwarden.policy import MemberSelector, Place, Policy, PolicyLines, PublishRule


class Effect(StrEnum):
    """What a change does to what is let pass."""

    LOOSER = "looser"
    """More passes than before."""
    TIGHTER = "tighter"
    EITHER = "either"
    """Some things pass that did not, others no longer do, or it cannot be told."""
    NONE = "none"
    """Nothing by itself; what follows from it is told by itself."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two policies."""

    policy: Policy
    name: str
    """Its file, for people."""
    lines: PolicyLines | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Where a part of a policy stands."""

    file: str
    line: int | None
    path: str
    """`roles.sensor.publish[0]`."""


@dataclass(frozen=True, slots=True)
class Permission:
    """One permission of a role."""

    role: str
    kind: str
    """The section it stands in: `publish`, `subscribe`, `consume`, `configure`."""
    number: int
    """Its place there, from 0."""
    action: Action
    place: Place
    rule: PublishRule | None = None
    """With its limits; None for all but publishes."""
    implied: bool = False
    """Written nowhere: queues that the server names come with a permission to bind."""


@dataclass(frozen=True, slots=True)
class Example:
    """A client, and a name, that show a difference."""

    client: Client
    name: str


@dataclass(frozen=True, slots=True)
class Difference:
    """A permission of one policy that goes beyond all that the other one allows."""

    permission: Permission
    written: Written
    members: Sequence[MemberSelector]
    """The selectors of the role through which somebody gains (or loses) by it."""
    example: Example
    """A shortest name that one policy lets this client use and the other does not."""


@dataclass(frozen=True, slots=True)
class LimitChange:
    """Another limit on what may be published."""

    role: str
    permission: Permission | None
    """None: the limit on all publishes of a member together."""
    what: str
    """`rate`, `byte_rate` or `max_size`."""
    old: str | None
    """In words; None: unlimited."""
    new: str | None
    effect: Effect
    written: Written
    example: Example | None = None
    """Whose limit changes and where, when the rule itself is not what changed."""
    members: Sequence[MemberSelector] = ()
    """The selectors that the example's client was made for."""


@dataclass(frozen=True, slots=True)
class Other:
    """A change of anything else."""

    section: str
    """`roles`, `members`, `naming`, `payload`, `thresholds`, `inventory`, `exceptions`."""
    what: str
    """In words, names left out: `new role`, `max_entropy`."""
    subject: str
    """The name or pattern it is about; '' for none."""
    old: str | None
    new: str | None
    effect: Effect
    written: Written
    client: Client | None = None
    """Somebody it makes a difference for."""
    member: MemberSelector | None = None
    """The selector by which clients join or leave a role."""


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A question that could not be decided."""

    question: str
    """In words, without names: `newly allowed`, `newly denied`, `limits`, `members`."""
    role: str
    permission: Permission | None
    reason: str
    written: Written


@dataclass(frozen=True, slots=True)
class PolicyDiff:
    """All that a change of a policy comes to."""

    old: str
    new: str
    allows: Sequence[Difference]
    denies: Sequence[Difference]
    limits: Sequence[LimitChange]
    others: Sequence[Other]
    unanswered: Sequence[Unanswered]

    @property
    def opens(self) -> bool:
        """Whether anything passes that did not before, or may do so."""
        effects = {change.effect for change in self.limits} | {change.effect for change in self.others}
        return bool(self.allows or self.unanswered or effects & {Effect.LOOSER, Effect.EITHER})

    @property
    def empty(self) -> bool:
        """Whether nothing changes at all."""
        return not (self.allows or self.denies or self.limits or self.others or self.unanswered)
