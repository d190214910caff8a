"""From violating rows to findings: grouped by column, so that a flood of violations costs little more than a few."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from topicwarden.engine.behind import ProcessFinder
from topicwarden.engine.exceptions import Acceptance
from topicwarden.engine.grouping import Int64, group_rows
from topicwarden.engine.lanes import Lane
from topicwarden.events import Certainty, EventBatch, Outcome
from topicwarden.findings import Ledger, Scalar

MAX_CAUSES: Final = 2000
"""How many causes of one code are told apart; later ones are counted together, so no flood hides other findings."""

Evidence = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Group:
    """The violating rows of one client (and one `part`) in a batch, as a detector's `describe` sees them."""

    client: int
    """The client's number in the lane."""
    part: int
    """What the detector split the rows by."""
    first: int
    """The first of the group's rows in the batch."""
    rows: Int64
    """All of them, in order."""


Description = tuple[tuple[str, ...], Evidence]
Describe = Callable[[Group], Description]


def nothing_more(_: Group) -> Description:
    """Describe a group whose code and client say it all."""
    return (), {}


class Reporter:
    """Writes violations into the ledger."""

    def __init__(self, ledger: Ledger, acceptance: Acceptance, processes: ProcessFinder | None = None) -> None:
        """`processes` names the processes behind what is reported; None: no host is observed."""
        self._processes = processes
        self._ledger = ledger
        self._acceptance = acceptance
        self._causes: dict[str, set[object]] = {}

    def report(
        self,
        code: str,
        lane: Lane,
        batch: EventBatch,
        rows: Int64,
        describe: Describe = nothing_more,
        *,
        part: Int64 | None = None,
        count: Int64 | None = None,
        witnesses: bool = True,
        anonymous: bool = False,
    ) -> None:
        """Record violating rows.

        `rows`: numbers of rows in the batch, ascending. `part`: what else than the client tells causes apart, at least
        0. `count`: how many events of each row violate; None: all it stands for. `describe` gives scope and evidence of
        a group. `anonymous`: the finding is about `describe`'s scope, not about a client.
        """
        if not len(rows):
            return
        counts = batch.count[rows].astype(np.int64) if count is None else count
        parts = np.zeros(len(rows), np.int64) if part is None else part
        accepted = self._acceptance.of_rows(code, lane, batch, rows, counts)
        # By principal: a client that comes back from another port is the same cause, and its rows stay in order.
        principal = lane.logins if anonymous else lane.base
        width = int(parts.max()) + 1
        key = (principal[batch.client[rows]] * width + parts) * (self._acceptance.kinds) + accepted
        order, starts = group_rows(key)
        ends = np.append(starts[1:], len(rows))
        ordered = rows[order]
        time, number = batch.time_ns[ordered], counts[order]
        first_ns, last_ns = np.minimum.reduceat(time, starts), np.maximum.reduceat(time, starts)
        totals = np.add.reduceat(number, starts)
        certainty = np.where(batch.outcome[ordered] == Outcome.UNKNOWN, 0, batch.certainty[ordered])
        weakest = np.minimum.reduceat(certainty, starts)
        names = self._witnesses(lane, batch, ordered, number, starts) if witnesses else [{}] * len(starts)
        # In order of first sight, so that the ledger does not depend on how clients are numbered.
        for i in np.argsort(ordered[starts], kind="stable").tolist():
            head = int(order[starts[i]])
            group = Group(
                int(batch.client[rows[head]]), int(parts[head]), int(rows[head]), ordered[starts[i] : ends[i]]
            )
            client = lane.client(group.client)
            scope, evidence = describe(group)
            about = None if anonymous else client
            cause = (client.broker, None if about is None else about.principal, scope)
            known = self._causes.setdefault(code, set())
            witness = names[i]
            if cause not in known:
                if len(known) < MAX_CAUSES:
                    known.add(cause)
                else:
                    about, scope, evidence = None, ("further clients",), {"further": "counted together"}
                    witness = {client.user or client.client_id: int(totals[i])}
            finding = self._ledger.record(
                code,
                broker=client.broker,
                client=about,
                scope=scope,
                first_ns=int(first_ns[i]),
                last_ns=int(last_ns[i]),
                count=int(totals[i]),
                certainty=Certainty(int(weakest[i])),
                witnesses=witness,
                evidence=evidence,
                accepted=self._acceptance.reasons[int(accepted[head])],
            )
            if self._processes is not None and finding is not None and about is not None:
                self._processes.ask(finding, lane, batch, group.rows)

    @staticmethod
    def _witnesses(
        lane: Lane, batch: EventBatch, ordered: Int64, number: Int64, starts: Int64
    ) -> Sequence[Mapping[str, int]]:
        """Return each group's resources by first sight, with how many events each."""
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(ordered)))
        resource = batch.resource[ordered].astype(np.int64)
        order, firsts = group_rows(group * (len(lane.topic_class) + 1) + resource)
        times = np.add.reduceat(number[order], firsts)
        head = order[firsts]
        names: list[dict[str, int]] = [{} for _ in starts]
        entries = lane.tables.resources.entries
        by_sight = np.argsort(head, kind="stable")
        for g, r, n in zip(
            group[head][by_sight].tolist(), resource[head][by_sight].tolist(), times[by_sight].tolist(), strict=True
        ):
            entry = entries[r]
            if entry is not None and entry.label:
                kept = names[g]
                kept[entry.label] = kept.get(entry.label, 0) + n
        return names
