"""Judging what the broker refused, and who is not known at all."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.engine.classify import OUTSIDE, UNIDENTIFIED, Classifier
from topicwarden.engine.gcra import police
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.engine.publishes import roles_of
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.engine.rulebook import message_limit
from topicwarden.engine.subscribes import ReachJudge
from topicwarden.events import Action, EventBatch
from topicwarden.policy import Rate, Thresholds

DENIALS: Final = 0
"""Offset from a client's first slot of the meter for denials."""
NEW_TOPICS: Final = 1
USUAL_RATE: Final = 2
"""Offset of the meter for how far the client is ahead of what is usual."""
CLIENT_SLOTS: Final = 3
ACTING: Final = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)
"""What needs a permission."""


def above(
    slot: Int64, steady_ns: Int64, rate: Rate, tat: Int64, count: Int64 | None, factor: Int64 | None = None
) -> Int64:
    """Return how many events of each row come faster than a threshold, which allows its whole amount at once.

    `factor`: how many times that amount, row by row.
    """
    limit = message_limit(rate, rate.amount)
    assert limit is not None
    cost, depth = np.full(len(slot), limit.message_ns), np.full(len(slot), limit.limit_ns)
    return police(slot, steady_ns, cost, depth if factor is None else depth * factor, tat, count)


def counts_of(batch: EventBatch, rows: Int64) -> Int64 | None:
    """Return the rows' counts, None when all are 1."""
    count = batch.count[rows].astype(np.int64)
    return None if (count == 1).all() else count


def judge_denials(
    reporter: Reporter,
    thresholds: Thresholds,
    lane: Lane,
    batch: EventBatch,
    denied: npt.NDArray[np.bool_],
    steady_ns: Int64,
) -> None:
    """TW301: a client is refused again and again."""
    rows = np.flatnonzero(denied & np.isin(batch.action, ACTING))
    if not len(rows):
        return
    slot = lane.base.take(batch.client[rows]) + DENIALS
    excess = above(slot, steady_ns[rows], thresholds.denials, lane.slots.tat, counts_of(batch, rows))
    over = excess > 0
    reporter.report(
        "TW301",
        lane,
        batch,
        rows[over],
        lambda _: ((), {"threshold": str(thresholds.denials)}),
        count=excess[over],
    )


def judge_logins(
    reporter: Reporter,
    thresholds: Thresholds,
    lane: Lane,
    batch: EventBatch,
    denied: npt.NDArray[np.bool_],
    steady_ns: Int64,
) -> None:
    """TW302: logins fail again and again, from one address with one user name."""
    rows = np.flatnonzero(denied & ((batch.action == Action.AUTHENTICATE) | (batch.action == Action.CONNECT)))
    if not len(rows):
        return
    slot = lane.logins.take(batch.client[rows])
    excess = above(slot, steady_ns[rows], thresholds.login_failures, lane.slots.tat, counts_of(batch, rows))
    over = excess > 0

    def describe(group: Group) -> Description:
        client = lane.client(group.client)
        address, user = client.address or "an unknown address", client.user
        evidence = {
            "address": address,
            "user": "(none)" if user is None else user,
            "threshold": str(thresholds.login_failures),
            "last_client_id": lane.client(int(batch.client[group.rows[-1]])).client_id,
        }
        return (address, "" if user is None else f"={user}"), evidence

    reporter.report("TW302", lane, batch, rows[over], describe, count=excess[over], witnesses=False, anonymous=True)


def judge_intended(
    reporter: Reporter,
    classifier: Classifier,
    reaches: ReachJudge,
    lane: Lane,
    batch: EventBatch,
    rows: Int64,
    verdict: npt.NDArray[np.int32],
    others: Int64,
) -> None:
    """TW303: the policy allows what the broker refused.

    `rows` and `verdict`: refused publishes; `others`: refused subscriptions and declarations.
    """
    by_policy = verdict > OUTSIDE
    by_policy &= verdict != UNIDENTIFIED
    # A topic the source cut is not judged, so it is not known to be allowed.
    by_policy &= lane.topic_class.take(batch.resource[rows]) != 0
    chosen = [rows[by_policy]]
    if len(others):
        columns = (batch.client[others].tolist(), batch.resource[others].tolist(), batch.action[others].tolist())
        allowed = [
            lane.identity[client] > 0
            and bool(classifier.identities[int(lane.identity[client])].roles)
            and reaches.reach(
                int(lane.identity[client]), Action(action), lane.client(client), lane.resource(resource)
            ).allowed
            for client, resource, action in zip(*columns, strict=True)
        ]
        chosen.append(others[np.array(allowed, bool)])
    both = np.sort(np.concatenate(chosen))
    reporter.report(
        "TW303",
        lane,
        batch,
        both,
        lambda group: (
            (Action(group.part).name.lower(),),
            {"action": Action(group.part).name.lower(), "roles": roles_of(classifier, lane, group.client)},
        ),
        part=batch.action[both].astype(np.int64),
    )


def judge_clients(
    reporter: Reporter, classifier: Classifier, lane: Lane, batch: EventBatch, accepted: npt.NDArray[np.bool_]
) -> None:
    """TW230: a client that is in no role does something; TW901 when the source does not know who it is."""
    identity = lane.identity.take(batch.client)
    roleless = np.array([number > 0 and not own.roles for number, own in enumerate(classifier.identities)])
    suspects = roleless.take(identity)
    if suspects.any():
        acting = np.isin(batch.action, (Action.CONNECT, *ACTING))
        rows = np.flatnonzero(suspects & accepted & acting)

        def describe(group: Group) -> Description:
            last = lane.client(int(batch.client[group.rows[-1]]))
            return (), {"identity": lane.client(group.client).identity.value, "last_address": last.address or "unknown"}

        reporter.report("TW230", lane, batch, rows, describe)
    if not identity.all():
        acting = np.isin(batch.action, ACTING)
        rows = np.flatnonzero((identity == 0) & accepted & acting)
        reporter.report(
            "TW901",
            lane,
            batch,
            rows,
            lambda _: (
                ("user name not known",),
                {"what": "the user name of a client is not known to the source, so its roles are not either"},
            ),
        )
