"""Clients that stand for all: the few that suffice to show whatever a change of a policy allows or denies.

A client is known by its user name, client id, virtual host, broker, certificate and address, and a policy looks at each
only through its selectors' patterns and through `%u` and `%c`. So there are finitely many kinds of values (see
`policies_names`), and to prove that a rule of one policy goes beyond another policy, far fewer are enough:

1. The other policy's permissions are the union over the roles that a client has there. A client that fewer of its
   selectors match has fewer of them, and the rule admits it no less. So of the values that the rule's own selector
   admits, only those count that are matched by as few of the other policy's patterns as can be: all others show
   nothing that these do not.
2. For `%u` and `%c`, a name that no pattern spells out shows all there is to show. Say that some client named `n` shows
   a name the rule matches and the other policy's patterns do not. Put a fresh name for `n` where the rule has the
   placeholder, and fresh levels for the rule's wildcards. Another pattern that matched the new name could only do so by
   wildcards and placeholders there, and would have matched the old one too. The same goes for two names that could be
   equal: different ones show more.
3. Three things bend this. A name that can be no level (it holds a separator or a wildcard) makes a placeholder match
   nothing: a client without a user name may be less than any that has one. Where a topic begins with a placeholder, a
   name that begins with `$` escapes the wildcards of the first level. And selectors may leave no choice: one that
   spells a name out, or several that only a few names satisfy. Such names are looked at one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice, product
from typing import Final

from topicwarden.compare.policies_names import representatives
from topicwarden.events import Action, Client, Identity
from topicwarden.policy import MemberSelector, Policy
from topicwarden.policy.values import address_within

ACTIONS: Final = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)
_MOST_CLIENTS: Final = 256
"""Clients looked at for one selector; more would take patterns that overlap in every combination."""
_USER, _CLIENT, _VHOST, _BROKER, _SUBJECT, _ADDRESS = range(6)
_MAPPED: Final = int(IPv6Address("::ffff:0:0"))
_ANONYMOUS: Final = True
"""Among the patterns of user names, the one that selects clients without."""

Needs = tuple[int, ...]
"""For each of a client's properties, which patterns (as bits) must match it, or are looked at."""


@dataclass(frozen=True, slots=True)
class _Value:
    """One value of one property."""

    text: str | None
    holds: int
    """The patterns that match it, as bits."""
    fresh: bool = True
    topic_level: bool = True
    """Whether it can be a level of a topic."""
    word: bool = True
    """Whether it can be a word of a key."""
    dollar: bool = False
    """Whether it begins with `$`, where that matters."""


class Clients:
    """All kinds of clients that two policies can tell apart."""

    def __init__(self, *policies: Policy) -> None:
        self._selectors = [m for policy in policies for role in policy.roles.values() for m in role.members]
        self._places = [
            place for policy in policies for role in policy.roles.values() for a in ACTIONS for place in role.places(a)
        ]
        self.complete = True
        """Whether all kinds of values were found; they are too many where hundreds of patterns overlap."""
        self._numbers: list[dict[object, int]] = [{} for _ in range(6)]
        for selector in self._selectors:
            for number, key in _keys(selector):
                self._numbers[number].setdefault(key, len(self._numbers[number]))
        self._values = [self._users, self._ids, *map(self._others, (_VHOST, _BROKER, _SUBJECT)), self._addresses]
        self._by_pattern: list[dict[int, list[_Value]]] = [{} for _ in range(6)]
        """The values that each pattern matches, by its bit."""
        for number, values in enumerate(self._values):
            for value in values:
                for bit in _bits(value.holds):
                    self._by_pattern[number].setdefault(bit, []).append(value)
        self._pruned: dict[tuple[int, int, int], list[_Value]] = {}

    def needs(self, selector: MemberSelector) -> Needs:
        """Return what a client must have for this selector to match it."""
        found = [0] * 6
        for number, key in _keys(selector):
            found[number] |= 1 << self._numbers[number][key]
        return tuple(found)

    def looked_at(self, selectors: Iterable[MemberSelector]) -> Needs:
        """Return all that these selectors look at."""
        found = [0] * 6
        for selector in selectors:
            for number, bits in enumerate(self.needs(selector)):
                found[number] |= bits
        return tuple(found)

    def standing_for(self, needs: Sequence[Needs], against: Needs) -> tuple[list[Client], bool]:
        """Return clients that stand for all with all these needs, against roles that look at `against`.

        And whether these are all; no clients at all where no client has these needs.
        """
        chosen = []
        for number in range(6):
            needed = 0
            for one in needs:
                needed |= one[number]
            chosen.append(self._least(number, needed, against[number]))
        count = 1
        for values in chosen:
            count *= len(values)
        clients = [_client(*(value.text for value in values)) for values in islice(product(*chosen), _MOST_CLIENTS)]
        return clients, self.complete and count <= _MOST_CLIENTS

    def stands_alone(self, name: str | None) -> bool:
        """Whether a user name or client id is like no other: some pattern spells it out, or it is special."""
        return name is None or name in self._levels or not _is_level(name) or "." in name or name.startswith("$")

    def _least(self, number: int, needed: int, against: int) -> list[_Value]:
        """Return the values of a property that satisfy what is needed, without those that others stand for."""
        key = (number, needed, against)
        found = self._pruned.get(key)
        if found is None:
            found = self._pruned[key] = []
            first = next(_bits(needed), None)
            could = self._values[number] if first is None else self._by_pattern[number].get(first, [])
            fits = [value for value in could if value.holds & needed == needed]
            fits.sort(key=lambda value: ((value.holds & against).bit_count(), not value.fresh))
            named = self._uses({_USER: "%u", _CLIENT: "%c"}.get(number, ""))
            for value in fits:
                if not any(_stands_for(kept, value, against, named) for kept in found):
                    found.append(value)
        return found

    @cached_property
    def _levels(self) -> frozenset[str]:
        return frozenset(level for place in self._places for level in place.levels)

    def _uses(self, placeholder: str) -> bool:
        return bool(placeholder) and placeholder in self._levels

    @cached_property
    def _dollar_matters(self) -> bool:
        return any(place.space.family == "topic" and place.levels[0] in ("%u", "%c") for place in self._places)

    @cached_property
    def _users(self) -> list[_Value]:
        anonymous = self._numbers[_USER].get(_ANONYMOUS)
        nobody = _Value(None, 0 if anonymous is None else 1 << anonymous, topic_level=False, word=False)
        # A name of a user that is also that of a client would be less than two names.
        taken = self._levels.union(self._globs(_CLIENT))
        return [*self._named(_USER, taken, ("someone", "somebody", "anyone")), nobody]

    @cached_property
    def _ids(self) -> list[_Value]:
        taken = self._levels | {value.text for value in self._users if value.text is not None}
        return self._named(_CLIENT, taken, ("some-client", "a-client", "the-client"))

    def _named(self, number: int, literals: frozenset[str], fillers: Sequence[str]) -> list[_Value]:
        """Return the names that can stand in a placeholder."""
        globs = self._globs(number)
        apart = [f"*{character}*" for character in "/+#\0." if any(character in glob for glob in globs)]
        if self._dollar_matters:
            apart.append("$*")
        names, complete = representatives(
            globs, apart=apart, literals=literals, fillers=[*fillers, *_numbered(fillers[0])]
        )
        self.complete = self.complete and complete
        values = []
        for name in names:
            text = name.text or ""
            level, dollar = _is_level(text), self._dollar_matters and text.startswith("$")
            values.append(_Value(text, name.holds, name.fresh, level, bool(text) and "." not in text, dollar))
        return values

    def _others(self, number: int) -> list[_Value]:
        """Return virtual hosts, brokers or certificates' subjects. Only brokers are always known; none is empty."""
        globs = self._globs(number)
        filler = {_VHOST: "some-vhost", _BROKER: "some-broker", _SUBJECT: "CN=somebody"}[number]
        names, complete = representatives(globs, fillers=[filler, *_numbered(filler)])
        self.complete = self.complete and complete
        unknown = [] if number == _BROKER else [_Value(None, 0)]
        return unknown + [_Value(name.text, name.holds, name.fresh) for name in names if name.text]

    def _globs(self, number: int) -> dict[str, int]:
        return {key: bit for key, bit in self._numbers[number].items() if isinstance(key, str)}

    @property
    def _addresses(self) -> list[_Value]:
        """Return one address for each set of networks that some address is in: they only change at networks' ends."""
        networks = [key for key in self._numbers[_ADDRESS] if isinstance(key, (IPv4Network, IPv6Network))]
        points = {str(point) for network in networks for point in _ends(network)}
        values: dict[int, _Value] = {0: _Value(None, 0)}
        for address in sorted(points, key=lambda text: (":" in text, text)):
            holds = sum(
                1 << self._numbers[_ADDRESS][network] for network in networks if address_within(address, network)
            )
            values.setdefault(holds, _Value(address, holds))
        return list(values.values())


def _keys(selector: MemberSelector) -> Iterator[tuple[int, object]]:
    """Yield what a selector looks at, as (property, pattern)."""
    for number, glob in (
        (_USER, selector.user),
        (_CLIENT, selector.client),
        (_VHOST, selector.vhost),
        (_BROKER, selector.broker),
        (_SUBJECT, selector.tls_subject),
    ):
        if glob is not None:
            yield number, f"{glob}"
    if selector.anonymous:
        yield _USER, _ANONYMOUS
    if selector.address is not None:
        yield _ADDRESS, selector.address


def _stands_for(kept: _Value, value: _Value, against: int, named: bool) -> bool:
    """Whether one value shows all that the other does."""
    if kept.holds & against & ~value.holds:
        return False
    if not named:
        return True
    return (
        kept.fresh
        and kept.topic_level >= value.topic_level
        and kept.word >= value.word
        and (kept.dollar == value.dollar or not value.topic_level)
    )


def _is_level(name: str) -> bool:
    return bool(name) and not any(character in name for character in "/+#\0")


def _bits(number: int) -> Iterator[int]:
    """Yield the bits that are set, lowest first."""
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _numbered(word: str) -> list[str]:
    return [f"{word}-{number}" for number in range(2, 20)]


def _ends(network: IPv4Network | IPv6Network) -> Iterator[IPv4Address | IPv6Address]:
    """Yield a network's first address and the one behind its last, as both versions see them."""
    first, behind = int(network.network_address), int(network.broadcast_address) + 1
    if isinstance(network, IPv4Network):
        yield from (IPv4Address(point) for point in (first, behind) if point < 1 << 32)
        first, behind = first + _MAPPED, behind + _MAPPED
    yield from (IPv6Address(point) for point in (first, behind) if point < 1 << 128)


def _client(
    user: str | None,
    client_id: str | None,
    vhost: str | None,
    broker: str | None,
    subject: str | None,
    addr: str | None,
) -> Client:
    return Client(
        broker=broker or "",
        protocol="mqtt",
        client_id=client_id or "",
        user=user,
        address=addr,
        tls_subject=subject,
        vhost=vhost,
        identity=Identity.ANONYMOUS if user is None else Identity.VERIFIED,
    )
