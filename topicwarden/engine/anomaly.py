"""TopicAnomalyScore: how unusual each publish is, 0 to 100, from its name, its payload and the client's rate.

MITRE ATT&CK's analytic AN0003 (detection strategy DET0002, T1071.005) lists a TopicAnomalyScore among what has to be
tuned, from payload length, entropy and patterns of topic names, and gives no formula. Ours:

    score = 100 (1 - (1 - 0.75 name) (1 - 0.75 payload) (1 - 0.6 rate)), rounded to whole points

Each part is a sign between 0 and 1, and itself such a combination of its signs. This is the noisy-or of independent
causes (J. Pearl, Probabilistic Reasoning in Intelligent Systems, 1988, section 4.3.2): a weight is the probability that
a publish deserves a look for one part alone at its wildest. So one wild part alone is notable (60 to 75), two are
alarming (90 and more), and many faint signs do not add up to one. A part that cannot be measured is 0: what is not
known accuses nobody.

- *name*: `local_names`. Signs that lie in the name, and its distance from policy, baseline, and what many users do.
- *payload*: `usual_payloads`. Size, entropy and shape against the usual topic that the name is of.
- *rate*: how far the client is ahead of twice the usual peak rate (`backlog`), in units of ten seconds at that rate:
  `rate = log2(ahead / 1.5) / 2`, between 0 and 1. What was learnt never exceeds 1 (with n the most in ten seconds by
  the clock, any stretch of t holds at most n (t / 10 s + 2), see `learn.limits`), 1.5 is nothing yet, 6 is all of it:
  ten times the peak reaches that in fifteen seconds.

What is new about a name is forgiven once `USERS` users whose names nobody only claimed have published it. Users are
counted by bits of a 64 bit sketch, so that two may be taken for one, and never one for two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt

from topicwarden.engine.attempts import USUAL_RATE
from topicwarden.engine.backlog import ahead
from topicwarden.engine.clock import SECOND
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane, ScoreColumns
from topicwarden.engine.local_names import LocalNames, NameView
from topicwarden.engine.publishes import Publishes
from topicwarden.engine.reporter import Description, Group, Reporter
from topicwarden.engine.usual_payloads import Columns, Float64, UsualPayloads
from topicwarden.events import Client, EventBatch, Identity, Resource, Shape
from topicwarden.findings import TopicWords
from topicwarden.policy import Baseline, Payload, Policy

NAME: Final = 0.75
PAYLOAD: Final = 0.75
RATE: Final = 0.6
"""Weights of the parts."""
WINDOW_NS: Final = 10 * SECOND
"""What a peak rate was measured over."""
HEADROOM: Final = 2
"""How many times the usual peak nobody is ahead at."""
AHEAD: Final = 1.5
"""Windows ahead from which that is a sign, and how often this doubles until it is all of it."""
DOUBLINGS: Final = 2
MOST_AHEAD: Final = 8
"""Windows a client can be ahead; it is forgiven after as long without a publish."""
USERS: Final = 5
"""Users after whom something new is new no more."""
MAX_NOVELTIES: Final = 1 << 16
"""How many novelties are counted; later ones stay new."""


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of some publishes, and their parts; columns of equal length."""

    score: Int64
    """0 to 100."""
    name: Float64
    payload: Float64
    rate: Float64


class Scorer:
    """Scores publishes. Bounded, like what it keeps in lanes."""

    def __init__(self, policy: Policy | None, baseline: Baseline | None, words: TopicWords) -> None:
        self.baseline = baseline
        self._naming = bool(policy and policy.naming)
        self._names = LocalNames(policy, baseline, words)
        self._payloads = UsualPayloads(policy.payload if policy else Payload(), baseline)
        self._cost: Int64 | None = None
        if baseline is not None and baseline.rates:
            peaks = {rate.place: rate.peak for rate in baseline.rates}
            # Whose usual rate is not known may be as fast as the fastest.
            fastest = max(peaks.values())
            each = [fastest, *(peaks.get(topic.place, fastest) for topic in baseline.topics)]
            self._cost = np.array([max(1, round(SECOND / (HEADROOM * peak))) for peak in each], np.int64)
        self._numbers: dict[bytes, int] = {}
        self._users = np.zeros(1, np.uint64)
        """Of each novelty: the bits of the users seen."""
        self._common = np.zeros(1, bool)
        """Of each novelty: whether it is new no more."""
        self.uncounted = 0
        """Novelties for which there was no room."""

    def score(self, lane: Lane, batch: EventBatch, publishes: Publishes, steady_ns: Int64) -> Scores:
        """Return the scores of a batch's publishes, and learn from them. `steady_ns`: of every row of the batch."""
        columns = lane.scores
        assert columns is not None  # the engine makes its lanes for scoring
        self._view_names(lane, columns, publishes.resource)
        rows = publishes.rows
        usual = columns.usual.take(publishes.resource)
        name = self._name_signs(lane, columns, publishes)
        payload = self._payloads.signs(
            Columns(
                usual, batch.size[rows], batch.entropy[rows], batch.shape[rows], lane.flags.take(publishes.resource)
            )
        )
        rate = np.zeros(len(rows))
        if self._cost is not None:
            slot = lane.base.take(publishes.client) + USUAL_RATE
            most = MOST_AHEAD * WINDOW_NS
            count = batch.count[rows].astype(np.int64)
            cost = np.minimum(self._cost.take(usual), most)
            cost = np.where(count > most // cost, most, cost * count)
            before = ahead(slot, steady_ns[rows], cost, most, lane.slots.tat)
            fast = np.flatnonzero(before > AHEAD * WINDOW_NS)
            if len(fast):
                rate[fast] = np.minimum(np.log2(before[fast] / (AHEAD * WINDOW_NS)) / DOUBLINGS, 1)
        score = np.rint(100 * (1 - (1 - NAME * name) * (1 - PAYLOAD * payload) * (1 - RATE * rate)))
        return Scores(score.astype(np.int64), name, payload, rate)

    def score_names(self, lane: Lane, batch: EventBatch, rows: Int64) -> Int64:
        """Return what the names of subscriptions would score: nothing else is known of them. It learns nothing."""
        columns = lane.scores
        assert columns is not None  # the engine makes its lanes for scoring
        resource = batch.resource[rows]
        self._view_names(lane, columns, resource)
        return np.rint(100 * NAME * columns.name.take(resource)).astype(np.int64)

    def view(self, lane: Lane, resource: Resource, number: int) -> NameView:
        """Judge a name; `number`: its own in the lane, where its naming was inspected."""
        return self._names.view(resource, breaks_rule=self._naming and bool(lane.naming[number]))

    def _view_names(self, lane: Lane, columns: ScoreColumns, resource: npt.NDArray[np.uint32]) -> None:
        """Make sure that what is to be said of the names themselves is known for a column of resources."""
        known = columns.scored.take(resource)
        if known.all():
            return
        for number in np.unique(resource[~known]).tolist():
            view = self.view(lane, lane.resource(number), number)
            columns.name[number], columns.firm[number] = view.sign, view.firm
            columns.usual[number] = view.topic
            columns.novelty[number] = self._number(view.novelty)
            columns.scored[number] = True

    def _number(self, novelty: bytes) -> int:
        """Return the number of something new; 0 for nothing, and for what there is no room for."""
        if not novelty:
            return 0
        number = self._numbers.get(novelty)
        if number is None:
            if len(self._numbers) >= MAX_NOVELTIES:
                self.uncounted += 1
                return 0
            number = self._numbers[novelty] = len(self._numbers) + 1
            if number >= len(self._users):
                self._users = np.concatenate([self._users, np.zeros_like(self._users)])
                self._common = np.concatenate([self._common, np.zeros_like(self._common)])
        return number

    def _name_signs(self, lane: Lane, columns: ScoreColumns, publishes: Publishes) -> Float64:
        """Return the signs of the names, less where what is new about one has become common by that row."""
        signs = columns.name.take(publishes.resource)
        novelty = columns.novelty.take(publishes.resource)
        new = np.flatnonzero(novelty)
        if not len(new):
            return signs
        since = self._count_users(lane, columns, publishes, novelty, new)
        common = new[self._common.take(novelty[new])]
        signs[common] = columns.firm.take(publishes.resource[common])
        for number, position in since.items():
            still = new[(novelty[new] == number) & (new < position)]
            signs[still] = columns.name.take(publishes.resource[still])
        return signs

    def _count_users(
        self, lane: Lane, columns: ScoreColumns, publishes: Publishes, novelty: npt.NDArray[np.int32], new: Int64
    ) -> dict[int, int]:
        """Note who published what is new; returns from which position on a novelty is common that was not before."""
        client = publishes.client[new]
        unknown = ~columns.known_client.take(client)
        for number in np.unique(client[unknown]).tolist() if unknown.any() else ():
            columns.user_bit[number] = bit_of(lane.client(number))
            columns.known_client[number] = True
        bit = columns.user_bit.take(client)
        fresh = new[(bit != 0) & (self._users.take(novelty[new]) & bit == 0) & ~self._common.take(novelty[new])]
        since: dict[int, int] = {}
        if not len(fresh):
            return since
        pairs = np.stack([novelty[fresh].astype(np.uint64), columns.user_bit.take(publishes.client[fresh])])
        _, first = np.unique(pairs, axis=1, return_index=True)
        for position in fresh[np.sort(first)].tolist():
            number = int(novelty[position])
            if self._common[number]:
                continue
            self._users[number] |= columns.user_bit[publishes.client[position]]
            if int(self._users[number]).bit_count() >= USERS:
                self._common[number] = True
                since[number] = position
        return since

    def words(self, lane: Lane, batch: EventBatch, row: int, scores: Scores, position: int) -> dict[str, str]:
        """Say of one publish why it is unusual, and what could not be measured."""
        number = int(batch.resource[row])
        view = self.view(lane, lane.resource(number), number)
        topic = self.baseline.topics[view.topic - 1] if self.baseline is not None and view.topic else None
        size, entropy, shape = int(batch.size[row]), float(batch.entropy[row]), Shape(int(batch.shape[row]))
        resource = lane.resource(number)
        why = self._names.why(resource, view, common=float(scores.name[position]) <= view.firm)
        if scores.payload[position] > 0:
            why += self._payloads.words(view.topic, size, entropy, shape, topic)
        if scores.rate[position] > 0 and self._cost is not None:
            why.append(
                f"far ahead of twice the usual peak of {SECOND / HEADROOM / int(self._cost[view.topic]):.3g} a second"
            )
        missing = [] if view.measured else ["distance of the name"]
        if shape is Shape.UNKNOWN and size < 0:
            missing.append("payload")
        elif shape is Shape.UNKNOWN:
            missing.append("shape of the payload")
        if self._cost is None:
            missing.append("rate")
        return {"why": "; ".join(why) or "several faint signs", "not_measured": ", ".join(missing) or "nothing"}


def bit_of(client: Client) -> int:
    """Return the bit by which a client's user is counted; 0 where whoever likes can act under many names."""
    if client.user is None or client.identity in (Identity.CLAIMED, Identity.ANONYMOUS):
        return 0
    name = f"{client.broker}\0{client.vhost or ''}\0{client.user}"
    return 1 << (crc32(name.encode("utf-8", "surrogatepass")) & 63)


def judge_anomaly(
    reporter: Reporter,
    scorer: Scorer,
    threshold: int,
    lane: Lane,
    batch: EventBatch,
    publishes: Publishes,
    steady_ns: Int64,
) -> Scores:
    """TW420: a score at or above the threshold. Returns the scores of all publishes, in their order."""
    scores = scorer.score(lane, batch, publishes, steady_ns)
    high = np.flatnonzero(scores.score >= threshold)
    if len(high):

        def describe(group: Group) -> Description:
            place = int(np.searchsorted(publishes.rows, group.first))
            highest = int(scores.score[np.searchsorted(publishes.rows, group.rows)].max())
            return (), {
                "score": int(scores.score[place]),
                "score_name": round(float(scores.name[place]), 3),
                "score_payload": round(float(scores.payload[place]), 3),
                "score_rate": round(float(scores.rate[place]), 3),
                "max_score": highest,
                "threshold": threshold,
                **scorer.words(lane, batch, group.first, scores, place),
            }

        reporter.report("TW420", lane, batch, publishes.rows[high], describe)
    return scores
