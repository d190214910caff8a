"""Topics nobody had used before: how fast one client makes them up."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import numpy as np

from topicwarden.engine.attempts import NEW_TOPICS, above
from topicwarden.engine.clock import SECOND
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.engine.publishes import Publishes
from topicwarden.engine.reporter import Reporter
from topicwarden.events import EventBatch
from topicwarden.policy import Thresholds

GRACE_NS: Final = 600 * SECOND
"""While a source has been observed for less than this, every topic looks new."""
GRACE_FACTOR: Final = 10
_BITS: Final = 27


class TopicMemory:
    """Remembers topics for ever in 16 MiB: a Bloom filter of two bits a name (Bloom 1970).

    It never takes a known topic for a new one; with ten million names about one new topic in fifty is taken for known.
    Unlike the tables it forgets nothing, so a topic that comes back after months is not news.
    """

    def __init__(self) -> None:
        self._bits = bytearray(1 << (_BITS - 3))

    def is_new(self, broker: str, topic: str) -> bool:
        """Whether the topic was never asked about before; from now on it was."""
        name = f"{len(broker)}:{broker}{topic}".encode("utf-8", "surrogatepass")
        number = int.from_bytes(blake2b(name, digest_size=8).digest(), "little")
        new = False
        for position in (number & ((1 << _BITS) - 1), number >> (64 - _BITS)):
            byte, bit = position >> 3, 1 << (position & 7)
            if not self._bits[byte] & bit:
                self._bits[byte] |= bit
                new = True
        return new


def judge_novelty(
    reporter: Reporter,
    memory: TopicMemory,
    thresholds: Thresholds,
    lane: Lane,
    batch: EventBatch,
    publishes: Publishes,
    steady_ns: Int64,
) -> None:
    """TW213: a client invents topics faster than the threshold."""
    fresh = np.flatnonzero(~lane.published.take(publishes.resource))
    if not len(fresh):
        return
    _, first = np.unique(publishes.resource[fresh], return_index=True)
    fresh = np.sort(fresh[first])
    lane.published[publishes.resource[fresh]] = True
    is_new = [
        not lane.resource(resource).made_up and memory.is_new(lane.client(client).broker, lane.resource(resource).label)
        for client, resource in zip(publishes.client[fresh].tolist(), publishes.resource[fresh].tolist(), strict=True)
    ]
    fresh = fresh[np.array(is_new, bool)]
    rows = publishes.rows[fresh]
    slot = lane.base.take(publishes.client[fresh]) + NEW_TOPICS
    factor = np.where(steady_ns[rows] - lane.clock.first_ns < GRACE_NS, GRACE_FACTOR, 1)
    # One topic is one invention, however many equal events the row stands for.
    over = above(slot, steady_ns[rows], thresholds.new_topics, lane.slots.tat, None, factor) > 0
    reporter.report(
        "TW213",
        lane,
        batch,
        rows[over],
        lambda _: ((), {"threshold": str(thresholds.new_topics)}),
        count=np.ones(int(over.sum()), np.int64),
    )
