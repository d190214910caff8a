"""Judging subscriptions: does a topic filter reach further than any role of the client allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from topicwarden.engine.classify import Classifier
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.engine.publishes import roles_of
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.events import Client, EventBatch, Resource
from topicwarden.patterns import (
    Covered,
    FilterUnion,
    LevelPattern,
    Witness,
    bind,
    filter_problem,
    overlap,
    parse,
    strip_share,
)

_MAX_KNOWN: Final = 1 << 16
_MAX_UNIONS: Final = 1 << 12
_BUDGET: Final = 200_000
"""Filter levels looked at for one subscription: a tenth of a second at worst, for an answer kept afterwards."""


@dataclass(frozen=True, slots=True)
class Reach:
    """What the policy says of one subscription."""

    code: str | None
    """TW202, TW203, or None when it is allowed or cannot be judged."""
    allowed: bool = False
    witness: str = ""
    """For TW203: a topic that the filter gets and no role allows."""
    certain: bool = True


_UNJUDGED: Final = Reach(None)
_ALLOWED: Final = Reach(None, allowed=True)


class SubscriptionJudge:
    """Decides subscriptions one by one and remembers the answers; they are rare beside publishes."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._known: dict[tuple[int, str, str | None, str], Reach] = {}
        self._unions: dict[tuple[int, str | None, str], tuple[list[LevelPattern], FilterUnion]] = {}

    def reach(self, identity: int, client: Client, resource: Resource) -> Reach:
        """Say how far a subscription by a client of this identity class reaches; only for clients with a role."""
        if resource.truncated:
            return _UNJUDGED
        key = (identity, resource.name, client.user, client.client_id)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = self._reach(identity, client, strip_share(resource.name)[1])
        return found

    def _reach(self, identity: int, client: Client, wanted: str) -> Reach:
        if filter_problem(wanted) is not None:
            return _UNJUDGED  # no broker grants such a filter, so nothing is received
        allowed, union = self._union(identity, client)
        answer = union.uncovered(wanted, budget=_BUDGET)
        if isinstance(answer, Covered):
            return _ALLOWED
        if not isinstance(answer, Witness):
            return _UNJUDGED
        pattern = parse(wanted)
        if any(overlap(pattern, other) is not None for other in allowed):
            return Reach("TW203", witness=answer.topic)
        return Reach("TW202")

    def _union(self, identity: int, client: Client) -> tuple[list[LevelPattern], FilterUnion]:
        key = (identity, client.user, client.client_id)
        found = self._unions.get(key)
        if found is None:
            if len(self._unions) >= _MAX_UNIONS:
                self._unions.clear()
            book = self._classifier.book
            roles = self._classifier.identities[identity].roles
            filters = {topic for role in roles for topic in book.roles[role].subscribe}
            patterns = [bind(topic, client.user, client.client_id) for topic in sorted(filters)]
            found = self._unions[key] = (patterns, FilterUnion(patterns))
        return found

    def judge(self, reporter: Reporter, lane: Lane, batch: EventBatch, rows: Int64) -> None:
        """TW202 and TW203 for rows of subscriptions that were not refused, by clients with a role."""
        if not len(rows):
            return
        pairs = batch.client[rows].astype(np.int64) << 32 | batch.resource[rows]
        distinct, inverse = np.unique(pairs, return_inverse=True)
        reaches = [
            self.reach(int(lane.identity[pair >> 32]), lane.client(pair >> 32), lane.resource(pair & 0xFFFFFFFF))
            for pair in distinct.tolist()
        ]
        outside = np.array([reach.code == "TW202" for reach in reaches])[inverse.ravel()]
        reporter.report(
            "TW202",
            lane,
            batch,
            rows[outside],
            lambda group: ((), {"roles": roles_of(self._classifier, lane, group.client)}),
        )
        wider = np.array([reach.code == "TW203" for reach in reaches])[inverse.ravel()]
        by_resource = {pair & 0xFFFFFFFF: reach for pair, reach in zip(distinct.tolist(), reaches, strict=True)}

        def describe(group: Group) -> Description:
            # One finding a filter: each has its own proof.
            resource = int(batch.resource[group.first])
            reach = self.reach(int(lane.identity[group.client]), lane.client(group.client), lane.resource(resource))
            evidence = {
                "beyond": reach.witness or by_resource[resource].witness,
                "roles": roles_of(self._classifier, lane, group.client),
            }
            return (lane.resource(resource).name,), evidence

        chosen = rows[wider]
        reporter.report("TW203", lane, batch, chosen, describe, part=batch.resource[chosen].astype(np.int64))


def everything(wanted: str) -> bool:
    """Whether a filter asks for all topics, or all of the broker's own: `#`, `+/#`, `+/+/#`, `$SYS/#`, `$SYS/+/#`."""
    levels = strip_share(wanted)[1].split("/")
    if levels[-1] != "#":
        return False
    if levels[0] in ("$SYS", "$CONTROL"):
        levels = levels[1:]
    return all(level == "+" for level in levels[:-1])
