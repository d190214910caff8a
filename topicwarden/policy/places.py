"""Places: what a policy's patterns and an event's resource have in common, whatever the protocol.

A space is where names of one kind live and can be compared: all topics, the keys of one exchange, all queues, all
exchanges. A place is a pattern in a space. So rules about topics, keys and queues are judged by the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from topicwarden.events import Resource, ResourceKind
from topicwarden.patterns import (
    KEYS,
    NO_MATCHES,
    TOPICS,
    Answer,
    BoundMatch,
    Covered,
    Matches,
    Pattern,
    Syntax,
    binding_problem,
    filter_problem,
    literal_key,
    strip_share,
)
from topicwarden.patterns.syntax import Index

Family = Literal["topic", "key", "queue", "exchange"]

MQTT_EXCHANGE: Final = "amq.topic"
"""Where RabbitMQ's MQTT plugin puts topics unless `mqtt.exchange` says otherwise (3.10.8)."""

_FAMILIES: Final[dict[ResourceKind, Family]] = {
    ResourceKind.TOPIC: "topic",
    ResourceKind.KEY: "key",
    ResourceKind.BINDING: "key",
    ResourceKind.QUEUE: "queue",
    ResourceKind.EXCHANGE: "exchange",
}


@dataclass(frozen=True, slots=True)
class Space:
    """Where names of one kind live and can be compared."""

    family: Family
    within: str = ""
    """The exchange, for keys."""

    @property
    def syntax(self) -> Syntax:
        """How names here are built."""
        return TOPICS if self.family == "topic" else KEYS


@dataclass(frozen=True, slots=True)
class Place:
    """A pattern in a space; `%u` and `%c` may stand for levels."""

    space: Space
    pattern: str

    @property
    def label(self) -> str:
        """How people are shown it."""
        match self.space.family:
            case "topic":
                return self.pattern
            case "key":
                return f"exchange {self.space.within}, key {self.pattern}"
            case family:
                return f"{family} {self.pattern}"

    @property
    def levels(self) -> list[str]:
        """The pattern's levels as written."""
        return self.space.syntax.levels(self.pattern)

    @property
    def exchange(self) -> str | None:
        """The exchange through which a publish to this place goes, in a broker that has exchanges."""
        match self.space.family:
            case "topic":
                return MQTT_EXCHANGE
            case "key":
                return self.space.within
            case _:
                return None

    def for_any_client(self, user: str | None) -> Pattern:
        """Return the pattern with this user name bound and any client id."""
        syntax = self.space.syntax
        levels = [syntax.one if level == "%c" else level for level in self.levels]
        return syntax.bind(syntax.separator.join(levels), user, None)


def place_of(topic: str | None, exchange: str | None, key: str | None, queue: str | None) -> Place | None:
    """Return the place that a policy's keys name; None when there is none."""
    if topic is not None:
        return Place(Space("topic"), topic)
    if queue is not None:
        return Place(Space("queue"), queue)
    if exchange is not None:
        return Place(Space("exchange"), exchange) if key is None else Place(Space("key", exchange), key)
    return None


def space_of(resource: Resource) -> Space | None:
    """Return where a resource's name lives; None for what is no name."""
    return _space(resource.kind, resource.within)


@lru_cache(4096)
def _space(kind: ResourceKind, within: str) -> Space | None:
    family = _FAMILIES.get(kind)
    return None if family is None else Space(family, within)


def pattern_of(resource: Resource) -> Pattern | None:
    """Return what is asked for: the filter or binding key with its wildcards, or the name itself.

    None when the name was cut or is not valid, so that no broker would take it.
    """
    if resource.truncated:
        return None
    match resource.kind:
        case ResourceKind.TOPIC:
            wanted = strip_share(resource.name)[1]
            return None if filter_problem(wanted) is not None else TOPICS.parse(wanted)
        case ResourceKind.BINDING:
            return None if binding_problem(resource.name) is not None else KEYS.parse(resource.name)
        case ResourceKind.KEY | ResourceKind.QUEUE | ResourceKind.EXCHANGE:
            return literal_key(resource.name)
        case _:
            return None


def covers(place: Place, resource: Resource) -> bool:
    """Whether everything the resource stands for is in the place (which holds no placeholders)."""
    wanted = pattern_of(resource)
    if wanted is None or space_of(resource) != place.space:
        return False
    syntax = place.space.syntax
    answer: Answer = syntax.union([syntax.parse(place.pattern)]).uncovered(wanted)
    return isinstance(answer, Covered)


class PlaceIndex:
    """Many places at once: which of them hold a name. Place i is number i."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.places = tuple(places)
        by_space: dict[Space, list[int]] = {}
        for number, place in enumerate(self.places):
            by_space.setdefault(place.space, []).append(number)
        # By kind of resource and not by space, which takes longer to look up than a topic to match.
        self._indexes: dict[tuple[ResourceKind, str], tuple[Index, list[int]]] = {}
        for space, numbers in by_space.items():
            index = space.syntax.index([self.places[number].pattern for number in numbers])
            for kind, family in _FAMILIES.items():
                if family == space.family:
                    self._indexes[kind, space.within] = (index, numbers)

    def __len__(self) -> int:
        return len(self.places)

    def match(self, resource: Resource) -> Matches:
        """Say which places hold the resource's name, taken literally, and for which clients."""
        return self.match_name(resource.kind, resource.within, resource.name)

    def match_name(self, kind: ResourceKind, within: str, name: str) -> Matches:
        """Say the same of a name that no resource has been built for."""
        found = self._indexes.get((kind, within))
        if found is None:
            return NO_MATCHES
        index, numbers = found
        matches = index.match(name)
        if len(numbers) == len(self.places):  # one space only: the index's numbers are ours
            return matches
        return Matches(
            tuple(numbers[number] for number in matches.always),
            tuple(BoundMatch(numbers[match.number], match.constraints) for match in matches.bound),
        )
