"""The plain, obvious score: one publish after the other, every pattern tried on every name, no arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

import numpy as np

from topicwarden.engine.anomaly import bit_of
from topicwarden.engine.payload import entropy_threshold
from topicwarden.events import Action, Client, EventBatch, Outcome, Resource, ResourceKind, Shape
from topicwarden.findings import TopicWords
from topicwarden.patterns import matches
from topicwarden.policy import Baseline, Payload, Place, Policy, UsualLevel, UsualTopic, level_shape, space_of

SECOND = 1_000_000_000
WINDOW = 10 * SECOND


def either(*signs: float) -> float:
    return 1 - math.prod(1 - sign for sign in signs)


class AnomalyOracle:
    def __init__(self, policy: Policy | None, baseline: Baseline | None, words: TopicWords) -> None:
        self.policy, self.baseline, self.words = policy, baseline, words
        self.payload = policy.payload if policy else Payload()
        topics = baseline.topics if baseline else ()
        granted = [rule.place for role in (policy.roles.values() if policy else ()) for rule in role.publish]
        named = [rule.within.place for rule in (policy.naming if policy else ())]
        self.patterns: list[tuple[Place, tuple[UsualLevel, ...], UsualTopic | None]] = [
            *((place, (), None) for place in (*granted, *named)),
            *((topic.place, topic.levels, topic) for topic in topics),
        ]
        self.covered = {topic.place.space.family: baseline.learnt.covered for topic in topics} if baseline else {}
        self.covered.update({place.space.family: 1.0 for place in granted})
        self.seen: dict[object, set[int]] = {}
        self.level: dict[object, int] = {}
        self.newest: int | None = None

    def scores(self, batches: Iterable[EventBatch]) -> list[tuple[int, float, float, float]]:
        found = []
        for batch in batches:
            for row in range(len(batch)):
                client = batch.tables.clients.entries[int(batch.client[row])]
                resource = batch.tables.resources.entries[int(batch.resource[row])]
                assert client is not None
                assert resource is not None
                time = int(batch.time_ns[row])
                if batch.action[row] == Action.PUBLISH and batch.outcome[row] != Outcome.DENIED:
                    name, topic = self.name(client, resource)
                    size, entropy = int(batch.size[row]), float(batch.entropy[row])
                    shape = Shape(int(batch.shape[row]))
                    payload = self.payloads(resource, topic, size, entropy, shape)
                    rate = self.rate(client, topic, time, int(batch.count[row]))
                    score = round(100 * (1 - (1 - 0.75 * name) * (1 - 0.75 * payload) * (1 - 0.6 * rate)))
                    found.append((score, name, payload, rate))
        return found

    # -- name ---------------------------------------------------------------------------------------------------------

    def name(self, client: Client, resource: Resource) -> tuple[float, UsualTopic | None]:
        space = space_of(resource)
        if space is None or resource.made_up:
            return 0.0, None
        levels = resource.name.split(space.syntax.separator)
        if resource.truncated:
            return self.said(levels, set()), None
        tried = [self.along(pattern, levels) for pattern in self.patterns if pattern[0].space == space]
        admitted = [one for one in tried if one[0] is not None]
        depth = max((one[1] for one in tried), default=0)
        # Open levels written alike count as one, so that the same way is not told apart by who wrote it.
        best = min(
            admitted or [one for one in tried if one[1] == depth] or [(None, 0, frozenset(), 0.0, None, None)],
            key=lambda one: (one[3], one[5] is None, -len(one[2]), sorted(one[2])),
        )
        spelled, odd, odd_level, topic = best[2], best[3], best[4], best[5]
        firm = [self.said(levels, spelled)]
        if self.breaks_rule(resource, levels):
            firm.append(0.6)
        relative: float = odd
        novelty: object = None
        written = [level if place in spelled else None for place, level in enumerate(levels)]
        if odd_level is not None:
            novelty = (space, tuple(written[:odd_level]), "shape", level_shape(levels[odd_level]))
        covered = self.covered.get(space.family, 0.0)
        if not admitted:
            topic = None
            if covered:
                leaves, word = 0.3, None
                if depth < len(levels):
                    word = levels[depth]
                    leaves = 0.7 / (1 + 0.35 * depth)
                    if self.words.random(word):
                        leaves = either(leaves, 0.6)
                relative = either(relative, leaves * covered)
                novelty = (space, tuple(written[:depth]), "word", word)
            readable = [level for level in levels if re.search("[^\\W\\d_]", level) and not self.words.random(level)]
            if resource.within != "amq.default" and not readable and any(map(self.words.random, levels)):
                firm.append(0.7)
        if novelty is not None:
            users = self.seen.setdefault(novelty, set())
            if bit_of(client):
                users.add(bit_of(client))
            if len(users) >= 5:
                relative = 0.0
        return either(either(*firm), relative), topic

    def along(
        self, pattern: tuple[Place, tuple[UsualLevel, ...], UsualTopic | None], levels: list[str]
    ) -> tuple[bool | None, int, frozenset[int], float, int | None, UsualTopic | None]:
        """Return whether the pattern admits the name (None: no), how deep, what is spelled, how odd, and where."""
        place, _, topic = pattern
        syntax, wanted = place.space.syntax, place.levels
        spelled: set[int] = set()
        odd, odd_level = 0.0, None
        for depth, level in enumerate(levels):
            if depth < len(wanted) and wanted[depth] == syntax.rest:
                return True, depth, frozenset(spelled), odd, odd_level, None
            if depth == len(wanted):
                return None, depth, frozenset(spelled), odd, odd_level, topic
            if wanted[depth] in syntax.specials:
                usual = self.described(place, depth)
                sign = 0.0 if usual is None else self.oddness(usual, level)
                if sign > odd:
                    odd, odd_level = sign, depth
            elif wanted[depth] == level:
                spelled.add(depth)
            else:
                return None, depth, frozenset(spelled), odd, odd_level, topic
        ends = len(wanted) == len(levels)
        rest = wanted[len(levels) : len(levels) + 1] == [syntax.rest]
        return (
            (True if ends or rest else None),
            len(levels),
            frozenset(spelled),
            odd,
            odd_level,
            topic if ends else None,
        )

    def described(self, place: Place, depth: int) -> UsualLevel | None:
        """Return what the first pattern that begins alike says of an open level."""
        syntax = place.space.syntax

        def plain(levels: list[str]) -> list[str]:
            return [syntax.one if level in syntax.specials else level for level in levels]

        for other, described, _ in self.patterns:
            if (
                other.space == place.space
                and described
                and plain(other.levels)[: depth + 1] == plain(place.levels[: depth + 1])
            ):
                return described[plain(other.levels)[:depth].count(syntax.one)]
        return None

    def oddness(self, usual: UsualLevel, level: str) -> float:
        if usual.shapes and level_shape(level) not in usual.shapes:
            return 0.7 if self.words.random(level) else 0.25
        return 0.3 if len(level) > 2 * usual.length.high + 8 else 0.0

    def said(self, levels: list[str], spelled: Iterable[int]) -> float:
        found: dict[str, float] = {}
        for place, level in enumerate(levels):
            if place not in spelled:
                found.update(self.words.suspicious(level))
        return min(0.95, either(*found.values()))

    def breaks_rule(self, resource: Resource, levels: list[str]) -> bool:
        for rule in self.policy.naming if self.policy else ():
            within = rule.within.topic
            if within is None or resource.kind is not ResourceKind.TOPIC or not matches(within, resource.name):
                continue
            if any(not re.fullmatch(p, level) for p, level in zip(rule.levels, levels, strict=False)):
                return True
            return len(levels) < len(rule.levels) or (len(levels) > len(rule.levels) and not rule.more)
        return False

    # -- payload ------------------------------------------------------------------------------------------------------

    def payloads(self, resource: Resource, topic: UsualTopic | None, size: int, entropy: float, shape: Shape) -> float:
        topics = self.baseline.topics if self.baseline else ()
        everywhere = {one for other in topics for one in other.shown_shapes}
        usual = set(topic.shown_shapes) if topic else everywhere
        shaped = signs_of(usual).get(shape, 0.0)
        if topic is None and everywhere:
            plain = {Shape.BASE64: 0.7, Shape.HEX: 0.6}.get(shape, 0.0)
            shaped = plain / 2 if shape in everywhere else max(plain, 0.8 * shaped) if plain else 0.0
        in_topics = resource.kind is ResourceKind.TOPIC and not resource.truncated
        most = 7.2 if self.payload.max_entropy is None else self.payload.max_entropy
        random = (
            (shape is Shape.BINARY or (shape is Shape.UNKNOWN and entropy > 0))
            and Shape.BINARY not in usual
            and size >= self.payload.min_size_for_entropy
            and bool(np.float32(entropy) > entropy_threshold(np.array([size]), most)[0])
        )
        forbidden = random and self.payload.max_entropy is not None
        if in_topics and shape in (Shape.BASE64, Shape.HEX):
            forbidden |= any(matches(f, resource.name) for f in self.payload.no_encoded)
        if in_topics and shape is Shape.BINARY:
            forbidden |= any(matches(f, resource.name) for f in self.payload.text_only)
        signs = [0.95 if forbidden else shaped]
        if random and not forbidden:
            signs.append(0.7)
        sizes = [one.size for one in topics]
        if topic is not None and topic.size is not None:
            signs += [large(size, topic.size.high, 0.9), small(size, topic.size.low)]
        elif topic is None and sizes and all(sizes):
            signs.append(large(size, max(one.high for one in sizes if one is not None), 0.45))
        if topic is not None and topic.entropy is not None and size >= 16 and entropy > topic.entropy.high + 0.5:
            signs.append(0.8 * min((entropy - topic.entropy.high - 0.5) / 1.5, 1))
        return either(*signs)

    # -- rate ---------------------------------------------------------------------------------------------------------

    def rate(self, client: Client, topic: UsualTopic | None, time: int, count: int) -> float:
        rates = self.baseline.rates if self.baseline else ()
        if not rates:
            return 0.0
        # The scenarios' clocks are never set back here.
        peak = next((r.peak for r in rates if topic is not None and r.place == topic.place), max(r.peak for r in rates))
        most = 8 * WINDOW
        cost = min(max(1, round(SECOND / (2 * peak))) * count, most)
        self.level[client.principal] = min(max(self.level.get(client.principal, 0), time) + cost, time + most)
        ahead = (self.level[client.principal] - time) / WINDOW
        return min(math.log2(ahead / 1.5) / 2, 1.0) if ahead > 1.5 else 0.0


def signs_of(usual: set[Shape]) -> dict[Shape, float]:
    said = usual - {Shape.EMPTY}
    if not said:
        table = {Shape.BASE64: 0.7, Shape.HEX: 0.6}
    elif said == {Shape.JSON}:
        table = {Shape.BASE64: 0.95, Shape.HEX: 0.85, Shape.BINARY: 0.6, Shape.TEXT: 0.25}
    elif said <= {Shape.JSON, Shape.TEXT}:
        table = {Shape.BASE64: 0.8, Shape.HEX: 0.6, Shape.BINARY: 0.6, Shape.JSON: 0.15}
    else:
        table = {Shape.BASE64: 0.5, Shape.HEX: 0.4, Shape.TEXT: 0.2, Shape.JSON: 0.15}
    return {shape: sign for shape, sign in table.items() if shape not in said}


def large(size: int, high: int, weight: float) -> float:
    high = max(high, 16)
    return weight * min(math.log2(size / (2 * high)) / 4, 1) if size > 2 * high else 0.0


def small(size: int, low: int) -> float:
    return 0.3 * min(math.log2(low / (4 * size)) / 6, 1) if 0 < 4 * size < low else 0.0
