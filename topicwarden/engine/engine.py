"""The engine: batches of events in, findings out. Pure: no I/O, and no time but that of the events.

What is found does not depend on how the events are cut into batches, as long as no bounded table overflows; when one
does, TW902 says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from topicwarden.engine.anomaly import Scorer, Scores, judge_anomaly
from topicwarden.engine.attempts import (
    CLIENT_SLOTS,
    judge_clients,
    judge_denials,
    judge_intended,
    judge_logins,
)
from topicwarden.engine.classify import FREE, Classifier
from topicwarden.engine.exceptions import Acceptance
from topicwarden.engine.grants import GrantJudge
from topicwarden.engine.grouping import Int64
from topicwarden.engine.hosts import HostJudge, HostOptions
from topicwarden.engine.lanes import UNCLASSIFIED, Lane
from topicwarden.engine.lookalike import LookAlikes
from topicwarden.engine.names import NameInspector
from topicwarden.engine.novelty import TopicMemory, judge_novelty
from topicwarden.engine.observing import report_clock, report_notices, report_overflow, report_uncounted
from topicwarden.engine.publishes import (
    Publishes,
    RateJudge,
    classify_topics,
    decide,
    inspect_names,
    judge_names,
    judge_payloads,
    judge_roles,
    judge_unsafe_names,
)
from topicwarden.engine.reporter import Reporter
from topicwarden.engine.rulebook import RuleBook
from topicwarden.engine.subscribes import ReachJudge, everything
from topicwarden.events import Action, EventBatch, Outcome, Tables
from topicwarden.findings import Catalogue, Change, Finding, Ledger, load_topic_words
from topicwarden.hosts.join import Joined
from topicwarden.policy import Baseline, Payload, Policy, Thresholds

MAX_LANES: Final = 64
"""Sources whose state is kept at a time; a source is a run of batches over the same tables."""


class Engine:
    """Judges events against a policy, or, without one, by what is suspicious in itself."""

    def __init__(
        self,
        catalogue: Catalogue,
        policy: Policy | None,
        *,
        baseline: Baseline | None = None,
        hosts: HostOptions | None = None,
        scoring: bool = False,
    ) -> None:
        """Build an engine. `hosts`: what is known of hosts; None: none is observed.

        `scoring`: whether each publish gets a TopicAnomalyScore; with a baseline or with hosts it always does.
        """
        _keep_memory()
        self.ledger = Ledger(catalogue)
        self.policy = policy
        payload = policy.payload if policy else Payload()
        self._thresholds = policy.thresholds if policy else Thresholds()
        self._payload = payload
        self._inspector = NameInspector(policy.naming if policy else (), payload, self._thresholds)
        self._acceptance = Acceptance(policy.exceptions if policy else (), catalogue)
        self._classifier = Classifier(RuleBook(policy)) if policy else None
        self._rates = RateJudge(self._classifier) if self._classifier else None
        self._reaches = ReachJudge(self._classifier) if self._classifier else None
        self._grants = GrantJudge(self.ledger, policy, self._acceptance)
        self._hosts = HostJudge(self.ledger, self._acceptance, policy, baseline, hosts) if hosts else None
        self._reporter = Reporter(self.ledger, self._acceptance, self._hosts.finder if self._hosts else None)
        self._look_alikes = LookAlikes(self._classifier)
        self._memory = TopicMemory()
        scoring = scoring or baseline is not None or hosts is not None
        self._scorer = Scorer(policy, baseline, load_topic_words()) if scoring else None
        self._lanes: dict[int, Lane] = {}
        self._events = 0
        self._uncounted = (0, 0)
        """Causes and novelties that there was no room for, as far as they were told."""

    def step(self, batch: EventBatch) -> list[tuple[Change, Finding]]:
        """Judge one batch; return the findings that are new or grew enough to say so again."""
        lane = self._lane(batch.tables)
        lane.begin(batch)
        report_notices(self.ledger, batch)
        self._grants.judge(batch.changes)
        if self._hosts:
            self._hosts.take(lane, batch)
        if len(batch):
            self._judge(lane, batch)
            self._events += len(batch)
        if self._hosts:
            self._hosts.step()
        self._acceptance.report_expired(self.ledger)
        report_overflow(self.ledger, lane, batch)
        novelties = self._scorer.uncounted if self._scorer else 0
        report_uncounted(self.ledger, lane, batch, "findings", self._uncounted[0], self.ledger.overflow)
        report_uncounted(self.ledger, lane, batch, "novel names", self._uncounted[1], novelties)
        self._uncounted = (self.ledger.overflow, novelties)
        return self.ledger.take_news()

    def advance(self, now_ns: int | None) -> list[tuple[Change, Finding]]:
        """Note that it is now `now_ns` for the sources (None: nothing more will come); return findings as `step` does.

        Only what is judged of hosts waits for others to catch up; all else is judged in `step`.
        """
        if self._hosts:
            self._hosts.advance(now_ns)
            self._acceptance.report_expired(self.ledger)
        return self.ledger.take_news()

    @property
    def not_asked(self) -> Sequence[str]:
        """Codes of the rules about hosts that could not be asked, for want of an inventory, its tools or a baseline."""
        return self._hosts.not_asked if self._hosts else ()

    def joined(self) -> Joined | None:
        """Return how many broker sessions were joined to processes; None when no host was observed."""
        return self._hosts.joined() if self._hosts else None

    def _lane(self, tables: Tables) -> Lane:
        lane = self._lanes.pop(id(tables), None) or Lane(tables, scoring=self._scorer is not None)
        self._lanes[id(tables)] = lane
        if len(self._lanes) > MAX_LANES:
            del self._lanes[next(iter(self._lanes))]
        return lane

    def _judge(self, lane: Lane, batch: EventBatch) -> None:
        reporter = self._reporter
        self._classify_clients(lane, batch)
        steady_ns, back = lane.clock.advance(batch.time_ns)
        report_clock(self.ledger, lane, batch, back)
        denied = batch.outcome == Outcome.DENIED
        accepted = ~denied
        published = batch.action == Action.PUBLISH
        subscribed = batch.action == Action.SUBSCRIBE
        configured = batch.action == Action.CONFIGURE

        publishes = np.flatnonzero(published & accepted)
        others = subscribed | configured
        named, made = publishes, publishes
        if others.any():
            # Judged together, so that findings do not depend on where batches end.
            named = np.flatnonzero((published | others) & accepted)
            made = np.flatnonzero((published | configured) & accepted)
        inspect_names(self._inspector, lane, batch.resource[named])
        judge_names(reporter, self._inspector, lane, batch, made)
        judge_unsafe_names(reporter, self._inspector, lane, batch, named)
        scores = self._judge_publishes(lane, batch, publishes, steady_ns)
        if self._hosts and scores is not None:
            self._hosts.unusual(lane, batch, publishes, scores.score)
        if len(named) > len(publishes):
            subscriptions = np.flatnonzero(subscribed & accepted)
            self._judge_subscriptions(lane, batch, subscriptions)
            if self._hosts and self._scorer:
                self._hosts.unusual(lane, batch, subscriptions, self._scorer.score_names(lane, batch, subscriptions))
            self._judge_reach(lane, batch, np.flatnonzero(configured & accepted), Action.CONFIGURE)
        if self._classifier:
            judge_clients(reporter, self._classifier, lane, batch, accepted)
        if denied.any():
            judge_denials(reporter, self._thresholds, lane, batch, denied, steady_ns)
            judge_logins(reporter, self._thresholds, lane, batch, denied, steady_ns)
            if self._classifier and self._reaches:
                rows = np.flatnonzero(published & denied)
                resource = batch.resource[rows]
                classify_topics(self._classifier, lane, resource)
                verdict = decide(self._classifier, lane, batch.client[rows], resource)
                refused = np.flatnonzero(others & denied)
                judge_intended(reporter, self._classifier, self._reaches, lane, batch, rows, verdict, refused)

    def _classify_clients(self, lane: Lane, batch: EventBatch) -> None:
        unknown = lane.identity.take(batch.client) == UNCLASSIFIED
        if not unknown.any():
            return
        for number in np.unique(batch.client[unknown]).tolist():
            client = lane.client(number)
            identity, slots = 0, 0
            if self._classifier:
                identity = self._classifier.identity_of(client)
                slots = self._classifier.identities[identity].slots
                lane.user_hash[number] = self._classifier.name_hash(client.user)
                lane.client_hash[number] = self._classifier.name_hash(client.client_id)
            lane.identity[number] = identity
            lane.base[number], lane.logins[number], lane.rates[number] = lane.hold(
                number,
                [
                    (("client", client.principal), CLIENT_SLOTS),
                    (("login", client.broker, client.address, client.user), 1),
                    (("rates", client.principal, identity), slots),
                ],
            )

    def _judge_publishes(self, lane: Lane, batch: EventBatch, rows: Int64, steady_ns: Int64) -> Scores | None:
        """Judge publishes; returns their scores, row by row, where they are scored."""
        if not len(rows):
            return None
        reporter = self._reporter
        client, resource = batch.client[rows], batch.resource[rows]
        verdict = None
        if self._classifier:
            classify_topics(self._classifier, lane, resource)
            verdict = decide(self._classifier, lane, client, resource)
        stale = self._grants.judge_stale(reporter, lane, batch, rows)
        if verdict is not None and len(stale):
            verdict[stale] = FREE
        publishes = Publishes(rows, client, resource, verdict)
        if self._classifier and self._rates:
            judge_roles(reporter, self._classifier, lane, batch, publishes)
            self._rates.judge(reporter, lane, batch, publishes, steady_ns)
        self._look_alikes.judge(reporter, lane, batch, publishes, self._events)
        judge_novelty(reporter, self._memory, self._thresholds, lane, batch, publishes, steady_ns)
        judge_payloads(reporter, self._payload, lane, batch, publishes)
        if self._scorer is None:
            return None
        threshold = self._thresholds.anomaly_score
        return judge_anomaly(reporter, self._scorer, threshold, lane, batch, publishes, steady_ns)

    def _judge_subscriptions(self, lane: Lane, batch: EventBatch, rows: Int64) -> None:
        if self._classifier:
            self._judge_reach(lane, batch, rows, Action.SUBSCRIBE)
            return
        wide = [everything(lane.resource(number)) for number in batch.resource[rows].tolist()]
        self._reporter.report("TW240", lane, batch, rows[np.array(wide, bool)])

    def _judge_reach(self, lane: Lane, batch: EventBatch, rows: Int64, action: Action) -> None:
        if self._reaches and self._classifier:
            roles = np.array([bool(own.roles) for own in self._classifier.identities])
            rows = rows[roles.take(lane.identity.take(batch.client[rows]))]
            self._reaches.judge(self._reporter, lane, batch, rows, action)


def _keep_memory() -> None:
    """Make the allocator keep the memory of a batch's arrays for the next batch.

    glibc gives back what is free above a threshold, and every batch then faults its pages in anew: 2 000 page faults
    and 40 % of the time for 65 536 events. Freeing one block of up to 32 MiB raises that threshold to twice the block's
    size (mallopt(3), M_MMAP_THRESHOLD); the block itself is never touched. Elsewhere this does nothing.
    """
    np.empty(30 << 20, np.uint8)
