"""Judging publishes: may this client publish there, how fast, how much, and does the payload look as it should."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from topicwarden.engine.classify import MISSING, NOT_JUDGED, OUTSIDE, Classifier
from topicwarden.engine.gcra import police
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import UNCLASSIFIED, Lane
from topicwarden.engine.names import Flag, NameInspector
from topicwarden.engine.payload import entropy_threshold
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.engine.rulebook import Limit
from topicwarden.events import EventBatch, Shape
from topicwarden.policy import Payload


@dataclass(frozen=True, slots=True)
class Publishes:
    """The publishes of one batch that were not refused, as columns."""

    rows: Int64
    """Their rows in the batch."""
    client: npt.NDArray[np.uint32]
    resource: npt.NDArray[np.uint32]
    verdict: npt.NDArray[np.int32] | None
    """Verdict numbers; None without a policy."""


def roles_of(classifier: Classifier, lane: Lane, client: int) -> str:
    """Return the names of a client's roles for people."""
    roles = classifier.identities[int(lane.identity[client])].roles
    return ", ".join(classifier.book.roles[role].name for role in roles) or "none"


def decide(
    classifier: Classifier, lane: Lane, client: npt.NDArray[np.uint32], resource: npt.NDArray[np.uint32]
) -> npt.NDArray[np.int32]:
    """Return the verdict number of each (client, resource) pair of two columns; both must have been classified."""
    owned = np.zeros(len(client), np.uint8)
    if classifier.book.compares_user:
        owned |= (lane.owner_user.take(resource) == lane.user_hash.take(client)).view(np.uint8)
    if classifier.book.compares_client:
        owned |= (lane.owner_client.take(resource) == lane.client_hash.take(client)).view(np.uint8) << np.uint8(1)
    verdict = classifier.decide(lane.identity.take(client), lane.topic_class.take(resource), owned)
    if not verdict.all():
        missing = np.flatnonzero(verdict == MISSING)
        pairs = client[missing].astype(np.int64) << 32 | resource[missing]
        distinct, inverse = np.unique(pairs, return_inverse=True)
        numbers = []
        for pair in distinct.tolist():
            who, topic = pair >> 32, lane.resource(pair & 0xFFFFFFFF)
            numbers.append(classifier.decide_pair(int(lane.identity[who]), topic, lane.client(who)))
        verdict[missing] = np.array(numbers, np.int32)[inverse.ravel()]
    return verdict


def classify_topics(classifier: Classifier, lane: Lane, resource: npt.NDArray[np.uint32]) -> None:
    """Make sure that every resource of a column of publishes has its topic class."""
    unknown = lane.topic_class.take(resource) == UNCLASSIFIED
    if not unknown.any():
        return
    for number in np.unique(resource[unknown]).tolist():
        entry = lane.resource(number)
        if entry.truncated:
            lane.topic_class[number] = NOT_JUDGED
            continue
        lane.topic_class[number], lane.owner_user[number], lane.owner_client[number] = classifier.topic_of(entry)


def inspect_names(inspector: NameInspector, lane: Lane, resource: npt.NDArray[np.uint32]) -> None:
    """Make sure that what is to be said of the names themselves is known for a column of resources."""
    known = lane.inspected.take(resource)
    if known.all():
        return
    for number in np.unique(resource[~known]).tolist():
        lane.flags[number], lane.naming[number], lane.unsafe[number] = inspector.inspect(lane.resource(number))
        lane.inspected[number] = True


def judge_unsafe_names(
    reporter: Reporter, inspector: NameInspector, lane: Lane, batch: EventBatch, rows: Int64
) -> None:
    """TW206: a name that is not safe to show, too long, or too deep; `rows`: publishes and subscriptions."""
    unsafe = lane.unsafe.take(batch.resource[rows])
    if not unsafe.any():
        return

    def describe(group: Group) -> Description:
        kind, problem = inspector.unsafe(lane.resource(int(batch.resource[group.first])))
        return (kind,), {"problem": problem}

    bad = np.flatnonzero(unsafe)
    reporter.report("TW206", lane, batch, rows[bad], describe, part=unsafe[bad].astype(np.int64))


def judge_roles(
    reporter: Reporter, classifier: Classifier, lane: Lane, batch: EventBatch, publishes: Publishes
) -> None:
    """TW201: allowed by no role."""
    assert publishes.verdict is not None
    outside = publishes.verdict == OUTSIDE
    if outside.any():
        reporter.report(
            "TW201",
            lane,
            batch,
            publishes.rows[outside],
            lambda group: ((), {"roles": roles_of(classifier, lane, group.client)}),
        )


def judge_names(reporter: Reporter, inspector: NameInspector, lane: Lane, batch: EventBatch, rows: Int64) -> None:
    """TW204: a name that breaks a naming rule; `rows`: publishes, and declarations of queues."""
    if len(inspector.problems) == 1:
        return
    naming = lane.naming.take(batch.resource[rows])
    bad = naming != 0
    if bad.any():

        def describe(group: Group) -> Description:
            problem = inspector.problems[group.part]
            evidence = {"within": problem.within, "problem": problem.text, "expected": problem.expected}
            return (problem.within, str(problem.level)), evidence

        reporter.report("TW204", lane, batch, rows[bad], describe, part=naming[bad].astype(np.int64))


def judge_payloads(reporter: Reporter, payload: Payload, lane: Lane, batch: EventBatch, publishes: Publishes) -> None:
    """TW222, TW223 and TW224: what a payload looks like."""
    rows = publishes.rows
    if payload.max_entropy is not None:
        entropy, size, shape = batch.entropy[rows], batch.size[rows], batch.shape[rows]
        floor = payload.min_size_for_entropy
        candidates = (entropy > 0) & (size >= floor) & ((shape == Shape.BINARY) | (shape == Shape.UNKNOWN))
        chosen = np.flatnonzero(candidates)
        chosen = chosen[entropy[chosen] > entropy_threshold(size[chosen], payload.max_entropy)]

        def describe_random(group: Group) -> Description:
            sizes, entropies = batch.size[group.rows], batch.entropy[group.rows]
            return (), {
                "max_entropy": round(float(entropies.max()), 3),
                "min_entropy": round(float(entropies.min()), 3),
                "min_size": int(sizes.min()),
                "max_size": int(sizes.max()),
                "limit": payload.max_entropy if payload.max_entropy is not None else 8.0,
            }

        reporter.report("TW222", lane, batch, rows[chosen], describe_random)
    if payload.text_only or payload.no_encoded:
        flags, shape = lane.flags.take(publishes.resource), batch.shape[rows]
        encoded = ((flags & Flag.NO_ENCODED) != 0) & ((shape == Shape.BASE64) | (shape == Shape.HEX))
        if encoded.any():
            reporter.report(
                "TW223",
                lane,
                batch,
                rows[encoded],
                lambda group: (
                    (Shape(group.part).name.lower(),),
                    {"encoding": Shape(group.part).name.lower(), **_sizes(batch, group)},
                ),
                part=shape[encoded].astype(np.int64),
            )
        binary = ((flags & Flag.TEXT_ONLY) != 0) & (shape == Shape.BINARY)
        if binary.any():
            reporter.report("TW224", lane, batch, rows[binary], lambda group: ((), _sizes(batch, group)))


def _sizes(batch: EventBatch, group: Group) -> dict[str, int]:
    known = batch.size[group.rows]
    known = known[known >= 0]
    return {"min_size": int(known.min()), "max_size": int(known.max())} if len(known) else {}


class RateJudge:
    """TW211, TW212 and TW221: the limits of rules and roles."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        rules = classifier.book.rules
        self._message_ns: Int64 = np.array([r.messages.message_ns if r.messages else 1 for r in rules], np.int64)
        self._message_limit: Int64 = np.array([r.messages.limit_ns if r.messages else 0 for r in rules], np.int64)
        self._any_messages = any(r.messages for r in rules)
        self._any_bytes = any(r.bytes for r in rules)
        self._any_sizes = any(r.max_size is not None for r in rules)

    def judge(self, reporter: Reporter, lane: Lane, batch: EventBatch, publishes: Publishes, steady_ns: Int64) -> None:
        """Police one batch's publishes. `steady_ns`: steady time of every row of the batch."""
        assert publishes.verdict is not None
        classifier, verdict, rows = self._classifier, publishes.verdict, publishes.rows
        if self._any_messages:
            rule = classifier.message_rule.take(verdict)
            column = classifier.message_column.take(verdict)
            chosen = np.flatnonzero(rule >= 0)
            slot = lane.rates.take(publishes.client[chosen]) + column[chosen]
            rule = rule[chosen]
            cost, limit = self._message_ns.take(rule), self._message_limit.take(rule)
            self._police("TW211", reporter, lane, batch, rows[chosen], steady_ns, slot, cost, limit, rule)
        if self._any_bytes:
            rule = classifier.byte_rule.take(verdict)
            column = classifier.byte_column.take(verdict)
            size = batch.size[rows]
            chosen = np.flatnonzero((rule >= 0) & (size > 0))
            rule, size = rule[chosen], size[chosen]
            slot = lane.rates.take(publishes.client[chosen]) + column[chosen]
            cost, limit = np.ones(len(rule), np.int64), np.zeros(len(rule), np.int64)
            for number in np.unique(rule).tolist():
                by_bytes = classifier.book.rules[number].bytes
                assert by_bytes is not None
                mine = rule == number
                cost[mine], limit[mine] = by_bytes.bytes_ns(size[mine]), by_bytes.limit_ns
            self._police("TW212", reporter, lane, batch, rows[chosen], steady_ns, slot, cost, limit, rule)
        self._judge_roles(reporter, lane, batch, publishes, steady_ns)
        if self._any_sizes:
            most = classifier.max_size.take(verdict)
            large = np.flatnonzero(batch.size[rows] > most)
            if len(large):
                # Size limits are few numbers, though possibly large ones.
                limits, part = np.unique(most[large], return_inverse=True)
                reporter.report(
                    "TW221",
                    lane,
                    batch,
                    rows[large],
                    lambda group: (
                        (str(limits[group.part]),),
                        {"limit": int(limits[group.part]), "max_size": int(batch.size[group.rows].max())},
                    ),
                    part=part.ravel(),
                )

    def _judge_roles(
        self, reporter: Reporter, lane: Lane, batch: EventBatch, publishes: Publishes, steady_ns: Int64
    ) -> None:
        """Police what roles say of all publishes of one client together, wherever they go."""
        identities = self._classifier.identities
        if not any(own.messages or own.bytes for own in identities):
            return
        identity = lane.identity.take(publishes.client)
        rules = len(self._message_ns)
        for number, own in enumerate(identities):
            if own.messages is None and own.bytes is None:
                continue
            chosen = np.flatnonzero(identity == number)
            if not len(chosen):
                continue
            base, rows = lane.rates.take(publishes.client[chosen]), publishes.rows[chosen]
            part = np.full(len(chosen), rules + number)
            if own.messages is not None:
                cost = np.full(len(chosen), own.messages.message_ns)
                limit = np.full(len(chosen), own.messages.limit_ns)
                self._police("TW211", reporter, lane, batch, rows, steady_ns, base, cost, limit, part)
            if own.bytes is not None:
                size = batch.size[rows]
                sized = np.flatnonzero(size > 0)
                cost, limit = own.bytes.bytes_ns(size[sized]), np.full(len(sized), own.bytes.limit_ns)
                self._police(
                    "TW212", reporter, lane, batch, rows[sized], steady_ns, base[sized] + 1, cost, limit, part[sized]
                )

    def _police(
        self,
        code: str,
        reporter: Reporter,
        lane: Lane,
        batch: EventBatch,
        rows: Int64,
        steady_ns: Int64,
        slot: Int64,
        cost: Int64,
        limit: Int64,
        part: Int64,
    ) -> None:
        """Police rows that have a limit, and report those above it. `part`: rule number, or more for a role's limit."""
        if not len(rows):
            return
        count = batch.count[rows].astype(np.int64)
        times = None if (count == 1).all() else count
        excess = police(slot, steady_ns[rows], cost, limit, lane.slots.tat, times)
        over = np.flatnonzero(excess)
        if not len(over):
            return
        by_bytes = code == "TW212"

        def describe(group: Group) -> Description:
            limit, scope = self._limit(group.part, by_bytes)
            evidence: dict[str, str | int | float] = {"rule": " ".join(scope), "limit": limit.text}
            if by_bytes:
                evidence["max_size"] = int(batch.size[group.rows].max())
            return scope, evidence

        reporter.report(code, lane, batch, rows[over], describe, part=part[over], count=excess[over])

    def _limit(self, part: int, by_bytes: bool) -> tuple[Limit, tuple[str, ...]]:
        """Return the limit and the finding's scope for a rule's number, or that of an identity class behind them."""
        book = self._classifier.book
        if part < len(book.rules):
            rule = book.rules[part]
            limit = rule.bytes if by_bytes else rule.messages
            scope: tuple[str, ...] = (rule.role, rule.place.label)
        else:
            own = self._classifier.identities[part - len(book.rules)]
            limit = own.bytes if by_bytes else own.messages
            scope = (", ".join(book.roles[role].name for role in own.roles), "all its publishes")
        assert limit is not None
        return limit, scope
