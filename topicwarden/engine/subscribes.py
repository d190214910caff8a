"""Judging subscriptions, bindings and declarations: does what is asked for reach further than any role allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from topicwarden.engine.classify import Classifier
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.engine.publishes import roles_of
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.events import Action, Client, EventBatch, Resource, ResourceKind
from topicwarden.patterns import Covered, Pattern, Witness, strip_share
from topicwarden.patterns.syntax import Union
from topicwarden.policy import MQTT_EXCHANGE, Space, pattern_of, space_of

_MAX_KNOWN: Final = 1 << 16
_MAX_UNIONS: Final = 1 << 12
_BUDGET: Final = 200_000
"""Filter levels looked at for one subscription: a tenth of a second at worst, for an answer kept afterwards."""
_OUTSIDE: Final = {Action.SUBSCRIBE: "TW202", Action.CONFIGURE: "TW208"}


@dataclass(frozen=True, slots=True)
class Reach:
    """What the policy says of one subscription, binding or declaration."""

    code: str | None
    """TW202, TW203, TW208, or None when it is allowed or cannot be judged."""
    allowed: bool = False
    witness: str = ""
    """For TW203: something that is received and that no role allows."""


_UNJUDGED: Final = Reach(None)
_ALLOWED: Final = Reach(None, allowed=True)


class ReachJudge:
    """Decides subscriptions and declarations one by one and remembers the answers; they are rare beside publishes."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._known: dict[tuple[int, Action, Resource, str | None, str], Reach] = {}
        self._unions: dict[tuple[int, Action, Space, str | None, str], tuple[list[Pattern], Union]] = {}

    def reach(self, identity: int, action: Action, client: Client, resource: Resource) -> Reach:
        """Say how far a request by a client of this identity class reaches; only for clients with a role."""
        key = (identity, action, resource, client.user, client.client_id)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = self._reach(identity, action, client, resource)
        return found

    def _reach(self, identity: int, action: Action, client: Client, resource: Resource) -> Reach:
        space, wanted = space_of(resource), pattern_of(resource)
        if space is None or wanted is None:
            return _UNJUDGED  # cut short, or nothing that a broker would grant
        allowed, union = self._union(identity, action, space, client)
        answer = union.uncovered(wanted, budget=_BUDGET)
        if isinstance(answer, Covered):
            return _ALLOWED
        if not isinstance(answer, Witness):
            return _UNJUDGED
        if action is Action.SUBSCRIBE and any(space.syntax.overlap(wanted, other) is not None for other in allowed):
            kind = ResourceKind.TOPIC if resource.kind is ResourceKind.TOPIC else ResourceKind.KEY
            return Reach("TW203", witness=Resource(kind, answer.topic, within=resource.within).label)
        return Reach(_OUTSIDE[action])

    def _union(self, identity: int, action: Action, space: Space, client: Client) -> tuple[list[Pattern], Union]:
        key = (identity, action, space, client.user, client.client_id)
        found = self._unions.get(key)
        if found is None:
            if len(self._unions) >= _MAX_UNIONS:
                self._unions.clear()
            book = self._classifier.book
            roles = self._classifier.identities[identity].roles
            places = {place for role in roles for place in book.roles[role].places[action] if place.space == space}
            texts = sorted(place.pattern for place in places)
            patterns = [space.syntax.bind(text, client.user, client.client_id) for text in texts]
            found = self._unions[key] = (patterns, space.syntax.union(patterns))
        return found

    def judge(self, reporter: Reporter, lane: Lane, batch: EventBatch, rows: Int64, action: Action) -> None:
        """TW202 and TW203, or TW208, for rows of one action that were not refused, by clients with a role."""
        if not len(rows):
            return
        pairs = batch.client[rows].astype(np.int64) << 32 | batch.resource[rows]
        distinct, inverse = np.unique(pairs, return_inverse=True)
        reaches = [
            self.reach(
                int(lane.identity[pair >> 32]), action, lane.client(pair >> 32), lane.resource(pair & 0xFFFFFFFF)
            )
            for pair in distinct.tolist()
        ]
        code = _OUTSIDE[action]
        outside = np.array([reach.code == code for reach in reaches])[inverse.ravel()]
        reporter.report(
            code,
            lane,
            batch,
            rows[outside],
            lambda group: ((), {"roles": roles_of(self._classifier, lane, group.client)}),
        )
        wider = np.array([reach.code == "TW203" for reach in reaches])[inverse.ravel()]
        by_resource = {pair & 0xFFFFFFFF: reach for pair, reach in zip(distinct.tolist(), reaches, strict=True)}

        def describe(group: Group) -> Description:
            # One finding a filter: each has its own proof.
            number = int(batch.resource[group.first])
            resource = lane.resource(number)
            reach = self.reach(int(lane.identity[group.client]), action, lane.client(group.client), resource)
            evidence = {
                "beyond": reach.witness or by_resource[number].witness,
                "roles": roles_of(self._classifier, lane, group.client),
            }
            return (resource.label,), evidence

        chosen = rows[wider]
        reporter.report("TW203", lane, batch, chosen, describe, part=batch.resource[chosen].astype(np.int64))


def everything(resource: Resource) -> bool:
    """Whether a subscription asks for all there is: all topics, the broker's own, or all of everybody's exchange.

    `#`, `+/#`, `+/+/#`, `$SYS/#`, `$SYS/+/#`; and every key of RabbitMQ's `amq.topic`, where MQTT's topics go, or of
    `amq.rabbitmq.trace`, `.event` and `.log`. All of an application's own exchange is nothing unusual.
    """
    if resource.kind is ResourceKind.BINDING:
        shared = resource.within == MQTT_EXCHANGE or resource.within.startswith("amq.rabbitmq.")
        words = resource.name.split(".")
        return shared and "#" in words and all(word in ("*", "#") for word in words)
    if resource.kind is not ResourceKind.TOPIC:
        return False
    levels = strip_share(resource.name)[1].split("/")
    if levels[-1] != "#":
        return False
    if levels[0] in ("$SYS", "$CONTROL"):
        levels = levels[1:]
    return all(level == "+" for level in levels[:-1])
