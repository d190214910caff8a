"""What the policy intends for one client, in the spaces in which its broker decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from topicwarden.events import Action
from topicwarden.grants import Grants
from topicwarden.patterns import (
    KEYS,
    TOPICS,
    Answer,
    KeyPattern,
    LevelPattern,
    Names,
    NameUnion,
    Syntax,
    literal_key,
)
from topicwarden.policy import Place, Policy, Space

EXCHANGES = Space("exchange")
QUEUES = Space("queue")
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


class Template:
    """A pattern with placeholders, parsed once and bound often."""

    def __init__(self, place: Place) -> None:
        self.syntax = place.space.syntax
        self._parsed: LevelPattern | KeyPattern = self.syntax.bind(place.pattern, _USER, _CLIENT)
        self._levels = _levels(self._parsed)
        self.is_plain = _USER not in self._levels and _CLIENT not in self._levels

    def bound(self, user: object, client_id: object) -> Names:
        """Return the pattern with these levels in the place of `%u` and `%c` (see `level_of`)."""
        if self.is_plain:
            return self._parsed
        values: dict[object, object] = {_USER: user, _CLIENT: client_id}
        levels: tuple[Any, ...] = tuple([values.get(level, level) for level in self._levels])
        if isinstance(self._parsed, LevelPattern):
            return LevelPattern(self._parsed.text, levels)
        return KeyPattern(self._parsed.text, levels)


def level_of(syntax: Syntax, pattern: str, user: str | None = None, client_id: str | None = None) -> object:
    """Return what one level of a pattern is for a client, as `Syntax.bind` has it."""
    return _levels(syntax.bind(pattern, user, client_id))[0]


_USER: Final = "\x01u"
_CLIENT: Final = "\x01c"
"""Names that stand for a client's own while a pattern is bound to nobody yet; no policy can spell them."""


def _levels(pattern: LevelPattern | KeyPattern) -> tuple[object, ...]:
    return pattern.levels if isinstance(pattern, LevelPattern) else pattern.words


class Intentions:
    """A policy's permissions as one broker carries them, ready to be bound to its clients."""

    def __init__(self, policy: Policy | None, grants: Grants) -> None:
        """Without a policy nothing is intended."""
        self._roles: dict[str, list[tuple[Action, Place, Place, Template]]] = {}
        self._needed: dict[str, list[tuple[Action, Space, Names]]] = {}
        """What the broker asks for besides, by role."""
        for name, role in () if policy is None else policy.roles.items():
            listed = self._roles[name] = []
            needed = self._needed[name] = []
            for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE):
                for place in role.places(action):
                    carried = grants.carried(place)
                    listed.append((action, place, carried, Template(carried)))
                    needed += [one for one in grants.needed(action, place) if one not in needed]

    def of(self, roles: Sequence[str], user: str | None, client_id: str) -> Intent:
        """Bind the permissions of these roles to a client."""
        names = {
            syntax.separator: (
                level_of(syntax, "%u", user),
                level_of(syntax, "%c", None, client_id),
                level_of(syntax, syntax.one),
            )
            for syntax in (TOPICS, KEYS)
        }
        found: list[Intended] = []
        for name in roles:
            for action, place, carried, template in self._roles[name]:
                own, own_id, any_id = names[template.syntax.separator]
                exactly = template.bound(own, own_id)
                kindest = exactly if template.is_plain else template.bound(own, any_id)
                found.append(Intended(name, action, place, carried, kindest, exactly))
        return Intent(found, [one for name in roles for one in self._needed[name]])


class Intent:
    """What a client's roles let it do."""

    def __init__(self, permissions: Sequence[Intended], needed: Sequence[tuple[Action, Space, Names]] = ()) -> None:
        """`needed`: what the broker asks for besides, so that the permissions can be used."""
        self.permissions = permissions
        self._needed = needed

    @cached_property
    def _names(self) -> dict[tuple[Action, Space], list[Names]]:
        found: dict[tuple[Action, Space], list[Names]] = {}
        for one in self.permissions:
            found.setdefault((one.action, one.carried.space), []).append(one.kindest)
            exchange = one.carried.exchange
            # MQTT topics have an exchange only at brokers that carry them as keys.
            if one.carried.space.family == "key" and exchange is not None:
                found.setdefault((one.action, EXCHANGES), []).append(literal_key(exchange))
        for action, space, names in self._needed:
            found.setdefault((action, space), []).append(names)
        return found

    def names(self, action: Action, space: Space) -> Sequence[Names]:
        """Return what is intended in a space, as sets of names."""
        return self._names.get((action, space), ())

    def mentions(self, action: Action, space: Space) -> bool:
        """Whether anything in a space is intended."""
        return (action, space) in self._names
