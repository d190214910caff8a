"""The policy as the engine needs it: rules with numbers, limits in nanoseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import numpy as np

from topicwarden.engine.gcra import MAX_LIMIT
from topicwarden.engine.grouping import Int64
from topicwarden.events import Action
from topicwarden.policy import MemberSelector, Place, PlaceIndex, Policy, Rate


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate with its burst, for `gcra.police`."""

    rate: Rate
    limit_ns: int
    """What may be spent at once."""
    text: str
    """As people read it: `10/s`, `4096 bytes/s`."""

    @property
    def generosity(self) -> tuple[Fraction, int]:
        """Smaller is more generous: ns for one unit, then the depth of the burst."""
        return Fraction(self.rate.per_ns, self.rate.amount), -self.limit_ns

    @property
    def message_ns(self) -> int:
        """What one message costs."""
        return min(self.rate.emission_interval_ns, MAX_LIMIT - 1)

    def bytes_ns(self, size: Int64) -> Int64:
        """Return what messages of these sizes (bytes, at least 1) cost; no more than `limit_ns` + 1."""
        divisor = gcd(self.rate.per_ns, self.rate.amount)
        per_ns, amount = self.rate.per_ns // divisor, self.rate.amount // divisor
        cost: Int64 = size * np.int64(per_ns) // np.int64(amount)
        large = np.flatnonzero(size > (1 << 62) // per_ns)
        if len(large):
            exact = {value: min(self.rate.cost_ns(value), MAX_LIMIT) for value in set(size[large].tolist())}
            cost[large] = [exact[value] for value in size[large].tolist()]
        np.clip(cost, 1, self.limit_ns + 1, out=cost)
        return cost


def message_limit(rate: Rate | None, burst: int | None) -> Limit | None:
    """Return the limit that lets `burst` messages pass at once; None when there is no rate."""
    if rate is None or burst is None:
        return None
    return Limit(rate, min(burst * rate.emission_interval_ns, MAX_LIMIT - 1), str(rate))


def byte_limit(rate: Rate | None, burst: int | None) -> Limit | None:
    """Return the limit that lets `burst` bytes pass at once; None when there is no rate."""
    if rate is None or burst is None:
        return None
    amount, _, unit = str(rate).partition("/")
    return Limit(rate, min(rate.cost_ns(burst), MAX_LIMIT - 1), f"{amount} bytes/{unit}")


@dataclass(frozen=True, slots=True)
class PublishRule:
    """One entry of a role's `publish`."""

    number: int
    role: str
    place: Place
    messages: Limit | None
    bytes: Limit | None
    max_size: int | None


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role, with its publish rules by number."""

    name: str
    members: Sequence[MemberSelector]
    rules: tuple[int, ...]
    places: Mapping[Action, tuple[Place, ...]]
    """What it may subscribe to or consume (SUBSCRIBE), declare and delete (CONFIGURE)."""
    messages: Limit | None
    bytes: Limit | None


class RuleBook:
    """All roles and publish rules of a policy, numbered in the order written."""

    def __init__(self, policy: Policy) -> None:
        self.rules: list[PublishRule] = []
        self.roles: list[RoleView] = []
        for name, role in policy.roles.items():
            first = len(self.rules)
            for rule in role.publish:
                self.rules.append(
                    PublishRule(
                        number=len(self.rules),
                        role=name,
                        place=rule.place,
                        messages=message_limit(rule.rate, rule.effective_burst),
                        bytes=byte_limit(rule.byte_rate, rule.effective_byte_burst),
                        max_size=rule.max_size,
                    )
                )
            self.roles.append(
                RoleView(
                    name=name,
                    members=role.members,
                    rules=tuple(range(first, len(self.rules))),
                    places={Action.SUBSCRIBE: tuple(role.receives), Action.CONFIGURE: tuple(role.configures)},
                    messages=message_limit(role.rate, role.effective_burst),
                    bytes=byte_limit(role.byte_rate, role.effective_byte_burst),
                )
            )
        self.index = PlaceIndex([rule.place for rule in self.rules])
        levels = {level for place in self.index.places for level in place.levels}
        self.compares_user, self.compares_client = "%u" in levels, "%c" in levels
        """Whether a publish rule has a level that must equal the user name, the client id."""
        self.asks_user = any(
            member.user is not None or member.anonymous for role in self.roles for member in role.members
        ) or any(
            "%u" in place.levels
            for place in [*self.index.places, *(p for role in self.roles for ps in role.places.values() for p in ps)]
        )
        """Whether anything in it depends on user names."""

    def over_all(self, roles: tuple[int, ...]) -> tuple[Limit | None, Limit | None]:
        """Return the limits on messages and bytes over all publishes of a client with these roles.

        Each role that grants publishes has a say, and the most generous governs: one without a limit lifts it.
        """
        views = [self.roles[role] for role in roles if self.roles[role].rules]
        return (
            most_generous([view.messages for view in views]),
            most_generous([view.bytes for view in views]),
        )


def most_generous(limits: Sequence[Limit | None]) -> Limit | None:
    """Return the limit that allows most: none when one of them is none, else the fastest, then the deepest."""
    present = [limit for limit in limits if limit is not None]
    if not limits or len(present) < len(limits):
        return None
    return min(present, key=lambda limit: limit.generosity)
