"""What a finding is, and the ledger that counts repeats of the same cause instead of repeating them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from topicwarden.events import Certainty, Client
from topicwarden.findings.catalogue import Catalogue, FindingType, Severity
from topicwarden.hosts.join import Attribution, Sureness

MAX_WITNESSES: Final = 8
"""How many different witnesses a finding keeps; the rest are only counted."""

MAX_BEHIND: Final = 4
"""How many different processes a finding names; the rest are only counted."""

Scalar = str | int | float


class Change(IntEnum):
    """Why a finding is handed out now."""

    OPENED = 1
    GREW = 2
    """Its count passed another power of ten, or it has a new witness or process."""


@dataclass(slots=True)
class Finding:
    """One cause, however often it recurs. All text in it may be hostile: escape before printing."""

    type: FindingType
    broker: str
    client: Client | None
    """Who; None when the finding is about the observing or the policy itself."""
    scope: tuple[str, ...]
    """What tells this cause from others with the same code and client (a rule's place in the policy, a prefix …)."""
    first_ns: int
    last_ns: int
    count: int
    certainty: Certainty
    """The weakest certainty of the events behind it."""
    witnesses: dict[str, int] = field(default_factory=dict)
    """Concrete names (topics, filters) with how often each; the first MAX_WITNESSES seen."""
    more_witnesses: int = 0
    """Events whose witness was not among the kept ones."""
    evidence: dict[str, Scalar] = field(default_factory=dict)
    """Measured facts; see `Ledger.record` for how repeats combine."""
    accepted: str | None = None
    """The reason and end date of the policy's exception that accepts it; None when nobody accepted it."""
    announced: int = 0
    """The count when it was last handed out."""
    host: str | None = None
    """The host it is about, for findings about hosts; these have no broker ('')."""
    behind: list[Attribution] = field(default_factory=list)
    """The processes that did it, as far as they are known; at most MAX_BEHIND that differ in more than their number."""
    more_behind: int = 0
    """Further processes that were joined, and were not kept."""

    @property
    def severity(self) -> Severity:
        """The catalogue's severity, or `info` when an exception accepts the finding."""
        return Severity.INFO if self.accepted else self.type.severity

    @property
    def fingerprint(self) -> str:
        """32 hex digits that stay the same for the same cause over restarts and between live and recorded runs."""
        place = self.broker if self.host is None else f"host {self.host}"
        return fingerprint(self.type.code, place, self.client, self.scope, self.accepted is not None)


def fingerprint(code: str, broker: str, client: Client | None, scope: Sequence[str], accepted: bool) -> str:
    """Return the fingerprint of a cause; parts are length-prefixed so that no name can imitate another's."""
    parts = [code, broker, "accepted" if accepted else "open"]
    if client is not None:
        parts += ["client", client.vhost or "", "-" if client.user is None else f"={client.user}", client.client_id]
    parts += scope
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()[:32]


class Ledger:
    """The findings so far. Bounded: past `capacity` causes, new ones are only counted, and that is a finding too."""

    def __init__(self, catalogue: Catalogue, capacity: int = 20_000) -> None:
        self.catalogue = catalogue
        self.capacity = capacity
        self.overflow = 0
        """Records that opened no finding because the ledger was full."""
        self._findings: dict[tuple[object, ...], Finding] = {}
        self._news: dict[tuple[object, ...], Change] = {}

    def __len__(self) -> int:
        return len(self._findings)

    def record(
        self,
        code: str,
        *,
        broker: str,
        client: Client | None = None,
        scope: tuple[str, ...] = (),
        first_ns: int,
        last_ns: int,
        count: int = 1,
        certainty: Certainty = Certainty.EXACT,
        witnesses: Mapping[str, int] | None = None,
        evidence: Mapping[str, Scalar] | None = None,
        accepted: str | None = None,
        host: str | None = None,
    ) -> Finding | None:
        """Add `count` occurrences of a cause; returns its finding, None when the ledger is full.

        `witnesses` must be in the order first seen. Evidence under a key that starts with `max_` keeps the largest
        value, `min_` the smallest, `last_` the newest, `sum_` the sum; every other key keeps its first value. So the
        result does not depend on how events were cut into batches.

        Raises KeyError for a code the catalogue does not have.
        """
        principal = None if client is None else client.principal
        key = (code, broker, principal, scope, accepted is not None, host)
        finding = self._findings.get(key)
        if finding is None:
            # What is said about the observing is never crowded out; there are few such causes.
            if len(self._findings) >= self.capacity and not code.startswith("TW9"):
                self.overflow += count
                return None
            finding = Finding(
                self.catalogue[code],
                broker,
                client,
                scope,
                first_ns,
                last_ns,
                0,
                certainty,
                accepted=accepted,
                host=host,
            )
            self._findings[key] = finding
            self._news[key] = Change.OPENED
        finding.count += count
        finding.first_ns = min(finding.first_ns, first_ns)
        finding.last_ns = max(finding.last_ns, last_ns)
        finding.certainty = min(finding.certainty, certainty)
        for witness, times in (witnesses or {}).items():
            if witness in finding.witnesses:
                finding.witnesses[witness] += times
            elif len(finding.witnesses) < MAX_WITNESSES:
                finding.witnesses[witness] = times
                self._news.setdefault(key, Change.GREW)
            else:
                finding.more_witnesses += times
        for name, value in (evidence or {}).items():
            _combine(finding.evidence, name, value)
        if finding.count >= 10 ** len(str(max(finding.announced, 1))):
            self._news.setdefault(key, Change.GREW)
        return finding

    def attribute(self, finding: Finding, behind: Attribution) -> None:
        """Name a process behind a finding, once for all processes that differ in their numbers only."""
        kind = _kind_of(behind)
        for number, known in enumerate(finding.behind):
            if _kind_of(known) == kind:
                # A sure join is worth more than the first one.
                if known.sureness is not Sureness.EXACT and behind.sureness is Sureness.EXACT:
                    finding.behind[number] = behind
                return
        if len(finding.behind) >= MAX_BEHIND:
            finding.more_behind += 1
            return
        finding.behind.append(behind)
        principal = None if finding.client is None else finding.client.principal
        key = (finding.type.code, finding.broker, principal, finding.scope, finding.accepted is not None, finding.host)
        if self._findings.get(key) is finding:
            self._news.setdefault(key, Change.GREW)

    def take_news(self) -> list[tuple[Change, Finding]]:
        """Return the findings that were opened, or grew enough to say so again, since the last call."""
        news = [(change, self._findings[key]) for key, change in self._news.items()]
        self._news = {}
        for _, finding in news:
            finding.announced = finding.count
        return news

    def findings(self) -> list[Finding]:
        """Return all findings, gravest first, then by code and first sight."""
        return sorted(
            self._findings.values(), key=lambda f: (-f.severity, f.type.code, f.first_ns, f.broker, f.fingerprint)
        )


def _kind_of(behind: Attribution) -> tuple[object, ...]:
    process = behind.process
    return (process.host, process.executable, process.arguments, process.user, process.parent_executable)


def _combine(evidence: dict[str, Scalar], name: str, value: Scalar) -> None:
    """Fold one measured fact into the ones already there."""
    old = evidence.get(name)
    if old is None or name.startswith("last_"):
        evidence[name] = value
    elif isinstance(old, str) or isinstance(value, str):
        return
    elif name.startswith("max_"):
        evidence[name] = max(old, value)
    elif name.startswith("min_"):
        evidence[name] = min(old, value)
    elif name.startswith("sum_"):
        evidence[name] = old + value
