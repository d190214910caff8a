"""Changes of grants, judged against the policy as they happen; and what clients still do after a right was revoked.

Which rights a change gives or takes is worked out by the source, on names that exist at the broker. Here each is asked
of the policy. A grantee is a user, not a client: where the policy's answer depends on a client id or an address, the
kindest answer counts, so that nobody is accused of what some client of that user may do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from topicwarden.engine.exceptions import Acceptance
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.events import Action, Client, EventBatch, GrantChange, Resource, ResourceKind, Right
from topicwarden.findings import Ledger, Scalar
from topicwarden.patterns import Covered
from topicwarden.policy import Place, Policy, Role, pattern_of, space_of

SECOND: Final = 1_000_000_000
MAX_REVOKED: Final = 1 << 14
"""Revoked rights that are remembered; the oldest are forgotten."""

_Holder = tuple[str, str | None, str | None]
"""Broker, virtual host, user."""


class GrantJudge:
    """Judges changes of grants, and remembers what was revoked."""

    def __init__(self, ledger: Ledger, policy: Policy | None, acceptance: Acceptance) -> None:
        self._ledger = ledger
        self._policy = policy
        self._acceptance = acceptance
        self._revoked: dict[tuple[_Holder, Resource], int] = {}
        """When the right to publish there was revoked, ns."""
        self._holders: dict[_Holder, int] = {}
        """How many revoked rights each holder has in `_revoked`."""

    def judge(self, changes: Sequence[GrantChange]) -> None:
        """TW110 for every change, TW111 for powers over the broker, TW101 and TW103 where the policy differs."""
        for change in changes:
            self._remember(change)
            grantee = change.grantee
            told = _told(change)
            self._record("TW110", change, change.what, told)
            if change.powers:
                powers = ", ".join(change.powers)
                self._record("TW111", change, powers, {"powers": powers, **told})
            if self._policy is None or grantee.user is None:
                continue
            roles = self._roles(self._policy, grantee)
            excess = [right for right in change.gained if not _intended(roles, grantee, right)]
            if excess:
                self._record("TW101", change, change.what, told, excess)
            missing = [right for right in change.lost if _intended(roles, grantee, right)]
            if missing:
                self._record("TW103", change, change.what, told, missing)

    def _record(
        self,
        code: str,
        change: GrantChange,
        changed: str,
        evidence: dict[str, Scalar],
        rights: Sequence[Right] = (),
    ) -> None:
        """Record a finding about a change. `changed`: what it is told apart by, and what an exception may name."""
        self._ledger.record(
            code,
            broker=change.grantee.broker,
            client=change.grantee,
            scope=(changed,),
            first_ns=change.time_ns,
            last_ns=change.time_ns,
            certainty=change.certainty,
            witnesses={right.words: 1 for right in rights} or None,
            evidence={**evidence, "last_unlisted": change.unlisted} if rights and change.unlisted else evidence,
            accepted=self._acceptance.of_change(code, change.grantee, changed, change.time_ns),
        )

    @staticmethod
    def _roles(policy: Policy, grantee: Client) -> list[Role]:
        """Return the roles that some client of this user may have."""
        return [
            role
            for role in policy.roles.values()
            if any(member.may_match(grantee.user, grantee.vhost, grantee.broker) for member in role.members)
        ]

    # -- after a revocation ------------------------------------------------------------------------------------------

    def _remember(self, change: GrantChange) -> None:
        holder = _holder(change.grantee)
        for right in change.gained:
            if right.action is Action.PUBLISH and self._revoked.pop((holder, right.resource), None) is not None:
                self._forget(holder)
        for right in change.lost:
            if right.action is not Action.PUBLISH:
                continue
            if self._revoked.pop((holder, right.resource), None) is None:
                self._holders[holder] = self._holders.get(holder, 0) + 1
            self._revoked[holder, right.resource] = change.time_ns
            if len(self._revoked) > MAX_REVOKED:
                oldest = next(iter(self._revoked))
                del self._revoked[oldest]
                self._forget(oldest[0])

    def _forget(self, holder: _Holder) -> None:
        self._holders[holder] -= 1
        if not self._holders[holder]:
            del self._holders[holder]

    def judge_stale(self, reporter: Reporter, lane: Lane, batch: EventBatch, rows: Int64) -> Int64:
        """TW207: publishes that were accepted although the right had been revoked; returns their places in `rows`."""
        if not self._holders:
            return _NONE
        numbers = np.unique(batch.client[rows])
        concerned = [number for number in numbers.tolist() if _holder(lane.client(number)) in self._holders]
        if not concerned:
            return _NONE
        candidates = np.flatnonzero(np.isin(batch.client[rows], concerned))
        since = np.array(
            [
                self._since(_holder(lane.client(client)), lane.resource(resource))
                for client, resource in zip(
                    batch.client[rows[candidates]].tolist(), batch.resource[rows[candidates]].tolist(), strict=True
                )
            ],
            np.int64,
        )
        late = batch.time_ns[rows[candidates]] > since
        stale, since = candidates[late], since[late]
        after = dict(zip(rows[stale].tolist(), (batch.time_ns[rows[stale]] - since).tolist(), strict=True))

        def describe(group: Group) -> Description:
            seconds = [after[row] / SECOND for row in group.rows.tolist()]
            return (), {"max_seconds": round(max(seconds), 3), "min_seconds": round(min(seconds), 3)}

        reporter.report("TW207", lane, batch, rows[stale], describe)
        return stale

    def _since(self, holder: _Holder, resource: Resource) -> int:
        """Return when the right to publish there was revoked; the end of time when it was not."""
        times = [
            time
            for about in (resource, _exchange_of(resource))
            if about is not None and (time := self._revoked.get((holder, about))) is not None
        ]
        return min(times, default=_NEVER)


_NONE: Final[Int64] = np.zeros(0, np.int64)
_NEVER: Final = np.iinfo(np.int64).max


def _holder(client: Client) -> _Holder:
    return (client.broker, client.vhost, client.user)


def _told(change: GrantChange) -> dict[str, Scalar]:
    """Return what is known of the change itself as evidence: the latest counts."""
    by = change.by.user if change.by is not None else None
    evidence: dict[str, Scalar] = {"what": change.what, "last_by": by or "(the broker does not say)"}
    if change.grantee.vhost is not None:
        evidence["vhost"] = change.grantee.vhost
    if change.before is not None:
        evidence["last_before"] = change.before or "(none)"
    if change.after is not None:
        evidence["last_after"] = change.after or "(none)"
    return evidence


def _exchange_of(resource: Resource) -> Resource | None:
    """Return the exchange that a publish to this resource goes through; None when it goes through none."""
    space = space_of(resource)
    exchange = None if space is None else Place(space, resource.name).exchange
    return None if exchange is None else Resource(ResourceKind.EXCHANGE, exchange)


def _intended(roles: Sequence[Role], grantee: Client, right: Right) -> bool:
    """Whether some role lets some client of this user do what the right is for.

    A right on an exchange is intended as soon as anything in it is: which keys, topic permissions say.
    """
    resource = right.resource
    for role in roles:
        places = role.places(right.action)
        if resource.kind is ResourceKind.EXCHANGE and right.action is not Action.CONFIGURE:
            if any(place.exchange == resource.name for place in places):
                return True
            continue
        space, wanted = space_of(resource), pattern_of(resource)
        if space is None or wanted is None:
            return True  # nothing that could be judged
        patterns = [place.for_any_client(grantee.user) for place in places if place.space == space]
        if isinstance(space.syntax.union(patterns).uncovered(wanted), Covered):
            return True
    return False
