"""Topics that look like others: by case, by letters of other scripts, by characters that show nothing.

Accusing the wrong one is worse than missing one, so: with a policy, only publishes that it does not allow are compared,
with what the policy spells out and with topics that were allowed before. Without one, only differences that hardly
occur by accident count, the newcomer is accused, and never the client whose topic it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from topicwarden.engine.classify import OUTSIDE, UNIDENTIFIED, Classifier
from topicwarden.engine.lanes import Lane
from topicwarden.engine.names import Flag
from topicwarden.engine.publishes import Publishes
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.events import Client, EventBatch, Resource, ResourceKind
from topicwarden.patterns import skeleton
from topicwarden.policy import Place, PlaceIndex, space_of

_GENERATION: Final = 1 << 17
_KEPT: Final = 1 << 16
"""Answers kept of each of two questions."""

Principal = tuple[str, str | None, str | None, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """The first topic seen with a skeleton."""

    topic: Resource
    principal: Principal
    ordinal: int
    """The number of the event that showed it."""


class LookAlikes:
    """Remembers topics by skeleton, and says which others look like them. Bounded: the older half is forgotten."""

    def __init__(self, classifier: Classifier | None) -> None:
        self._classifier = classifier
        self._recent: dict[tuple[str, str], Seen] = {}
        self._older: dict[tuple[str, str], Seen] = {}
        self._spelled: list[int] = []
        """The rules behind the places of `_skeletons`."""
        places: list[Place] = []
        if classifier:
            for rule in classifier.book.rules:
                syntax, written = rule.place.space.syntax, rule.place.levels
                levels = [level if level in syntax.specials else skeleton(level) for level in written]
                folded = syntax.separator.join(levels)
                literal = any(level not in syntax.specials for level in levels)
                if literal and folded.count(syntax.separator) == len(written) - 1 and not syntax.problem(folded):
                    places.append(Place(rule.place.space, folded))
                    self._spelled.append(rule.number)
        self._skeletons = PlaceIndex(places)
        # A flood of publishes outside the policy asks again and again for the same names.
        self._folded = lru_cache(_KEPT)(skeleton)
        self._matching = lru_cache(_KEPT)(self._skeletons.match_name)

    # -- what was seen -----------------------------------------------------------------------------------------------

    def _seen(self, broker: str, topic: Resource, folded: str) -> Seen | None:
        key = (broker, _where(topic, folded))
        return self._recent.get(key) or self._older.get(key)

    def _register(self, client: Client, topic: Resource, ordinal: int) -> Seen | None:
        """Remember a topic if none like it is known; return the one that is."""
        folded = skeleton(topic.name)
        seen = self._seen(client.broker, topic, folded)
        if seen is None:
            if len(self._recent) >= _GENERATION:
                self._older, self._recent = self._recent, {}
            self._recent[client.broker, _where(topic, folded)] = Seen(topic, client.principal, ordinal)
        return seen

    # -- judging -----------------------------------------------------------------------------------------------------

    def judge(
        self, reporter: Reporter, lane: Lane, batch: EventBatch, publishes: Publishes, first_ordinal: int
    ) -> None:
        """TW205. `first_ordinal`: the number of the batch's first event."""
        whole = (lane.flags.take(publishes.resource) & Flag.CUT) == 0
        if publishes.verdict is None:
            self._remember(lane, publishes, whole, first_ordinal)
            chosen = np.flatnonzero(lane.suspect.take(publishes.resource))
        else:
            allowed = (publishes.verdict > OUTSIDE) & (publishes.verdict != UNIDENTIFIED)
            self._remember(lane, publishes, whole & allowed, first_ordinal)
            chosen = np.flatnonzero((publishes.verdict == OUTSIDE) & whole)
        if not len(chosen):
            return
        pairs = publishes.client[chosen].astype(np.int64) << 32 | publishes.resource[chosen]
        distinct, inverse = np.unique(pairs, return_inverse=True)
        models = [self._model(lane.client(pair >> 32), lane.resource(pair & 0xFFFFFFFF)) for pair in distinct.tolist()]
        never = np.iinfo(np.int64).max
        since = np.array([never if model is None else model[1] for model in models], np.int64)[inverse.ravel()]
        rows = publishes.rows[chosen]
        rows = rows[rows + first_ordinal > since]

        def describe(group: Group) -> Description:
            topic = lane.resource(int(batch.resource[group.first]))
            model = self._model(lane.client(group.client), topic)
            return (topic.label,), {"looks_like": model[0] if model else ""}

        reporter.report("TW205", lane, batch, rows, describe, part=batch.resource[rows].astype(np.int64))

    def _remember(self, lane: Lane, publishes: Publishes, which: np.ndarray, first_ordinal: int) -> None:
        """Register the topics of these publishes that this lane has not registered yet, in order."""
        fresh = np.flatnonzero(which & ~lane.registered.take(publishes.resource))
        if not len(fresh):
            return
        _, first = np.unique(publishes.resource[fresh], return_index=True)
        for index in np.sort(fresh[first]).tolist():
            number = int(publishes.resource[index])
            topic = lane.resource(number)
            client = lane.client(int(publishes.client[index]))
            seen = self._register(client, topic, first_ordinal + int(publishes.rows[index]))
            lane.registered[number] = True
            lane.suspect[number] = seen is not None and seen.topic != topic and _no_accident(topic, seen.topic)

    def _model(self, client: Client, topic: Resource) -> tuple[str, int] | None:
        """Return what a topic of this client looks like, and after which event that is so; None: nothing known."""
        folded = self._folded(topic.name)
        if self._classifier:
            spelled = self._spelled_out(self._classifier, client, topic, folded)
            if spelled is not None:
                return spelled, -1
        seen = self._seen(client.broker, topic, folded)
        if seen is None or seen.topic == topic:
            return None
        different = _different_levels(topic, seen.topic)
        if self._classifier:
            return None if self._named(self._classifier, topic, different) else (seen.topic.label, seen.ordinal)
        own = {client.user, client.client_id}
        levels = _levels(topic)
        if seen.principal == client.principal or (different and all(levels[index] in own for index in different)):
            return None
        return seen.topic.label, seen.ordinal

    def _spelled_out(self, classifier: Classifier, client: Client, topic: Resource, folded: str) -> str | None:
        """Return the policy's pattern that spells out what this topic only looks like."""
        levels = _levels(topic)
        separator = "/" if (space := space_of(topic)) is None else space.syntax.separator
        if folded.count(separator) != len(levels) - 1:
            return None
        found = self._matching(topic.kind, topic.within, folded)
        if not found.always and not found.bound:
            return None
        user = None if client.user is None else self._folded(client.user)
        numbers = found.for_client(user, self._folded(client.client_id))
        own = {"%u": client.user, "%c": client.client_id}
        for index in numbers:
            place = classifier.book.rules[self._spelled[index]].place
            syntax = place.space.syntax
            if syntax.rest in place.levels[:-1]:
                continue  # behind a wildcard for any number of levels there is no telling which level is which
            different = [
                i
                for i, level in enumerate(place.levels)
                if level not in (syntax.one, syntax.rest) and own.get(level, level) != levels[i]
            ]
            if different and not self._named(classifier, topic, different):
                return place.label
        return None

    @staticmethod
    def _named(classifier: Classifier, topic: Resource, different: list[int]) -> bool:
        """Whether some rule of the policy, whoever it is for, spells out these levels of the topic."""
        found = classifier.book.index.match(topic)
        for number in [*found.always, *(match.number for match in found.bound)]:
            place = classifier.book.rules[number].place
            levels, specials = place.levels, place.space.syntax.specials
            if all(i < len(levels) and levels[i] not in specials for i in different):
                return True
        return False


def _where(topic: Resource, folded: str) -> str:
    """Return a skeleton with where it counts; one string, because the collector of garbage does not look at strings."""
    # Skeletons hold no control characters.
    return folded if topic.kind is ResourceKind.TOPIC else f"{topic.kind:d}\0{topic.within}\0{folded}"


def _levels(topic: Resource) -> list[str]:
    space = space_of(topic)
    return [topic.name] if space is None else space.syntax.levels(topic.name)


def _different_levels(one: Resource, other: Resource) -> list[int]:
    """Return the levels in which two names of equally many levels differ; all of the first one's otherwise."""
    levels, others = _levels(one), _levels(other)
    if len(levels) != len(others):
        return list(range(len(levels)))
    return [index for index, (a, b) in enumerate(zip(levels, others, strict=True)) if a != b]


def _no_accident(topic: Resource, other: Resource) -> bool:
    """Whether two names with one skeleton differ in a way that identifiers and words do not differ by accident.

    Identifiers made of digits and letters of both cases can be equal but for case, or for 1 and l, and still be two.
    """
    levels, others = _levels(topic), _levels(other)
    if len(levels) != len(others):
        return True
    return all(
        a == b
        or not (a + b).isascii()
        or not (a + b).isprintable()
        or (a.lower() == b.lower() and not any(character.isdigit() for character in a))
        for a, b in zip(levels, others, strict=True)
    )
