"""What the policy intends for one client, in the spaces in which its broker decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from topicwarden.events import Action
from topicwarden.grants import Grants
from topicwarden.patterns import Answer, Names, NameUnion, literal_key
from topicwarden.policy import Place, Policy, Space

EXCHANGES = Space("exchange")
OWN_QUEUES = Place(Space("queue"), "amq.*")
"""What `Role` adds for queues that the server names."""


class Unions:
    """Unions of names, each built once, asked about the names there can be in a space.

    Line feeds in routing keys are left out: that `$` admits one at the end is a finding of its own (TW113).
    """

    def __init__(self) -> None:
        self._built: dict[tuple[Names, ...], NameUnion] = {}

    def of(self, names: Sequence[Names]) -> NameUnion:
        """Return the union of these sets."""
        key = tuple(dict.fromkeys(names))
        found = self._built.get(key)
        if found is None:
            if len(self._built) >= 1 << 12:
                self._built.clear()
            found = self._built[key] = NameUnion(key)
        return found

    def uncovered(self, space: Space, by: Sequence[Names], *wanted: Names) -> Answer:
        """Say whether every name of a space that is in all of `wanted` is in one of `by`, with a witness if not."""
        return ask(self.of(by), space, *wanted)


def ask(union: NameUnion, space: Space, *wanted: Names) -> Answer:
    """Say the same of a union at hand. Queues and exchanges have names, a routing key may be empty."""
    return union.uncovered(*wanted, newlines=False, empty=space.family == "key")


@dataclass(frozen=True, slots=True)
class Intended:
    """One permission of the policy, bound to a client."""

    role: str
    action: Action
    place: Place
    """As the policy has it."""
    carried: Place
    """As the broker has it, `%u` and `%c` still in it."""
    kindest: Names
    """Bound to the client's user name and any client id: a client chooses its own."""
    exactly: Names
    """Bound to this client's user name and client id."""


class Intent:
    """What a client's roles let it do."""

    def __init__(
        self, policy: Policy | None, grants: Grants, roles: Sequence[str], user: str | None, client_id: str
    ) -> None:
        """`roles`: those it could have; without a policy nothing is intended."""
        self.permissions: list[Intended] = []
        if policy is None:
            return
        for name in roles:
            for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE):
                for place in policy.roles[name].places(action):
                    carried = grants.carried(place)
                    syntax = carried.space.syntax
                    self.permissions.append(
                        Intended(
                            name,
                            action,
                            place,
                            carried,
                            carried.for_any_client(user),
                            syntax.bind(carried.pattern, user, client_id),
                        )
                    )

    @cached_property
    def _names(self) -> dict[tuple[Action, Space], list[Names]]:
        found: dict[tuple[Action, Space], list[Names]] = {}
        for one in self.permissions:
            found.setdefault((one.action, one.carried.space), []).append(one.kindest)
            exchange = one.carried.exchange
            # MQTT topics have an exchange only at brokers that carry them as keys.
            if one.carried.space.family == "key" and exchange is not None:
                found.setdefault((one.action, EXCHANGES), []).append(literal_key(exchange))
        return found

    def names(self, action: Action, space: Space) -> Sequence[Names]:
        """Return what is intended in a space, as sets of names."""
        return self._names.get((action, space), ())

    def mentions(self, action: Action, space: Space) -> bool:
        """Whether anything in a space is intended."""
        return (action, space) in self._names
