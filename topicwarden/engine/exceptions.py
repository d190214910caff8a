"""The policy's exceptions: which violations somebody accepted, and which acceptances have run out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from topicwarden.engine.grouping import Int64
from topicwarden.engine.lanes import Lane
from topicwarden.events import Client, EventBatch, Resource
from topicwarden.findings import Catalogue, Ledger
from topicwarden.policy import ExceptionRule

_MAX_KNOWN: Final = 1 << 16


@dataclass(slots=True)
class _Expired:
    """Uses of an exception after its last day, since they were last reported."""

    client: Client
    count: int
    first_ns: int
    last_ns: int


class Acceptance:
    """Answers, row by row, which exception accepts a violation. Only ever looks at violating rows."""

    def __init__(self, exceptions: Sequence[ExceptionRule], catalogue: Catalogue) -> None:
        self._exceptions = exceptions
        self._catalogue = catalogue
        self._known: dict[tuple[str, Client, Resource], tuple[int, ...]] = {}
        self._expired: dict[tuple[int, str], _Expired] = {}
        self.reasons: Sequence[str | None] = [
            None,
            *(f"{exception.reason} (until {exception.until.isoformat()})" for exception in exceptions),
        ]
        """Text for the ledger by exception number; number 0 is "not accepted"."""

    @property
    def kinds(self) -> int:
        """How many exception numbers there are, 0 included."""
        return len(self.reasons)

    def of_rows(self, code: str, lane: Lane, batch: EventBatch, rows: Int64, count: Int64) -> Int64:
        """Return the number of the exception that accepts each violating row, 0 where none does.

        The first one in the policy that still holds at the event's time counts. Where only expired ones cover the row,
        that is kept for `report_expired`.
        """
        accepted = np.zeros(len(rows), np.int64)
        if not self._exceptions:
            return accepted
        name = self._catalogue[code].name
        numbers = np.stack([batch.client[rows].astype(np.int64), batch.resource[rows].astype(np.int64)])
        pairs, inverse = np.unique(numbers, axis=1, return_inverse=True)
        covering = [self._covering(code, name, lane.client(c), lane.resource(r)) for c, r in pairs.T.tolist()]
        for row, pair in enumerate(inverse.ravel().tolist()):
            if not covering[pair]:
                continue
            time = int(batch.time_ns[rows[row]])
            valid = [number for number in covering[pair] if time < self._exceptions[number - 1].until_ns]
            if valid:
                accepted[row] = valid[0]
            else:
                self._note_expired(covering[pair][0], lane.client(int(pairs[0, pair])), int(count[row]), time)
        return accepted

    def of_host(
        self, code: str, host: str, process: str | None, user: str | None, time_ns: int, count: int
    ) -> str | None:
        """Return the reason of the exception that accepts a finding about a host; None when none does."""
        name = self._catalogue[code].name
        expired = None
        for number, exception in enumerate(self._exceptions, 1):
            if not exception.covers_host(code, name, host, process, user):
                continue
            if time_ns < exception.until_ns:
                return self.reasons[number]
            expired = expired or number
        if expired is not None:
            self._note_expired(expired, Client("", "", "", user), count, time_ns)
        return None

    def of_change(self, code: str, grantee: Client, change: str, time_ns: int) -> str | None:
        """Return the reason of the exception that accepts a finding about a change of grants; None when none does.

        `change`: what was changed, or the powers that were given.
        """
        name = self._catalogue[code].name
        expired = None
        for number, exception in enumerate(self._exceptions, 1):
            if not exception.covers_change(code, name, grantee, change):
                continue
            if time_ns < exception.until_ns:
                return self.reasons[number]
            expired = expired or number
        if expired is not None:
            self._note_expired(expired, grantee, 1, time_ns)
        return None

    def _covering(self, code: str, name: str, client: Client, resource: Resource) -> tuple[int, ...]:
        key = (code, client, resource)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            found = self._known[key] = tuple(
                number
                for number, exception in enumerate(self._exceptions, 1)
                if exception.covers(code, name, client, resource)
            )
        return found

    def _note_expired(self, number: int, client: Client, count: int, time: int) -> None:
        expired = self._expired.get((number, client.broker))
        if expired is None:
            self._expired[number, client.broker] = _Expired(client, count, time, time)
        else:
            expired.count += count
            expired.first_ns, expired.last_ns = min(expired.first_ns, time), max(expired.last_ns, time)

    def report_expired(self, ledger: Ledger) -> None:
        """Record the expired exceptions that would have covered something since the last call."""
        for (number, broker), expired in self._expired.items():
            exception = self._exceptions[number - 1]
            ledger.record(
                "TW910",
                broker=broker,
                scope=exception.scope,
                first_ns=expired.first_ns,
                last_ns=expired.last_ns,
                count=expired.count,
                evidence={
                    "finding": exception.finding,
                    "exception_client": exception.for_whom,
                    "reason": exception.reason,
                    "until": exception.until.isoformat(),
                },
            )
        self._expired.clear()
