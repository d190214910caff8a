"""Finds the process behind each client that a finding accuses, now or once the host's telemetry has come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from topicwarden.engine.clock import SECOND
from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.events import Client, EventBatch
from topicwarden.findings import Finding, Ledger
from topicwarden.hosts.join import Joiner, Sureness

MAX_OPEN: Final = 4096
"""Questions that wait for an answer; the oldest are dropped."""
MAX_ASKED: Final = 32
"""Connections of one finding that are asked about."""
PATIENCE_NS: Final = 10 * SECOND
"""How long a host's telemetry may be late while we watch; at the end everything is asked once more."""


@dataclass(slots=True)
class _Question:
    finding: Finding
    client: Client
    time_ns: int
    tried: bool = False
    """Whether it was asked after the host's telemetry had its time."""


class ProcessFinder:
    """Asks the joiner for the processes behind findings."""

    def __init__(self, ledger: Ledger, joiner: Joiner) -> None:
        self.dropped = 0
        """Questions given up because too many were open."""
        self._ledger = ledger
        self._joiner = joiner
        self._asked: dict[int, set[Client]] = {}
        """Clients already asked about, by the finding's identity: the ledger keeps findings for good."""
        self._open: dict[int, _Question] = {}
        self._number = 0

    def ask(self, finding: Finding, lane: Lane, batch: EventBatch, rows: Int64) -> None:
        """Ask for the clients of a finding's rows, each connection once."""
        asked = self._asked.setdefault(id(finding), set())
        if len(asked) >= MAX_ASKED:
            return
        numbers, firsts = np.unique(batch.client[rows], return_index=True)
        for number, first in zip(numbers.tolist(), firsts.tolist(), strict=True):
            client = lane.client(number)
            if client.port is None or client in asked or len(asked) >= MAX_ASKED:
                continue
            asked.add(client)
            question = _Question(finding, client, int(batch.time_ns[rows[first]]))
            if not self._answered(question, wait=True):
                self._number += 1
                self._open[self._number] = question
                if len(self._open) > MAX_OPEN:
                    del self._open[next(iter(self._open))]
                    self.dropped += 1

    def again(self, now_ns: int | None) -> None:
        """Ask again what is still open; None: for the last time.

        Until the host's telemetry has had its time, only a sure answer counts: a likely one could be taken back.
        """
        for number, question in list(self._open.items()):
            young = now_ns is not None and question.time_ns > now_ns - PATIENCE_NS
            if (young or not question.tried or now_ns is None) and self._answered(question, wait=young):
                del self._open[number]
            question.tried = not young
        if now_ns is None:
            self._open.clear()

    def _answered(self, question: _Question, *, wait: bool) -> bool:
        found = self._joiner.process_of(question.client, question.time_ns)
        if found is None or (wait and found.sureness is not Sureness.EXACT):
            return False
        self._ledger.attribute(question.finding, found)
        return True
