"""The closing summary: what was watched and what could not be seen first, then counts, findings, inventory, advice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from topicwarden.events import Identity
from topicwarden.findings import Finding, Severity
from topicwarden.hosts.join import Joined
from topicwarden.output import wording
from topicwarden.sources import BlindSpot, Counters


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """One source of events, as it stood at the end."""

    title: str
    """Its mode in a few words, as the collector says it."""
    broker: str
    blind_spots: Sequence[BlindSpot]
    counters: Counters
    host: bool = False
    """Whether it tells of a host; `broker` is then the host's name."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was kept in a store."""

    folder: str
    rows: int
    dropped: int
    """Rows that could not be kept: too much waited, or it could not be written."""
    gap_ns: tuple[int, int] | None = None
    """From when to when nothing was kept because the writer before this one died."""
    error: str | None = None
    """Why the last attempt to write failed; None: it did not."""


@dataclass(frozen=True, slots=True)
class InventoryRow:
    """One client as it was observed."""

    broker: str
    user: str | None
    client_id: str
    identity: Identity
    address: str | None
    publishes: int
    rate: float
    """Publishes per second over the time it was seen; 0 when seen at one instant only."""
    topics: int
    """Different resources it acted on."""
    denied: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class ScannedGrants:
    """What one broker would allow, as far as it was read and judged."""

    title: str
    """What was read, for people."""
    broker: str
    blind_spots: Sequence[BlindSpot]
    grants: int
    accounts: int
    """Clients that were judged, those included that stand for others."""
    classes: int
    """Classes of clients that may do the same."""
    undecided: int
    """Questions that could not be answered."""
    confirmed: int = 0
    """Witnesses to which the running broker said what the finding says; of all that were tried."""
    refuted: int = 0
    not_tried: int = 0
    unexplained: int = 0
    """Observed events that were allowed and that no grant explains."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything the closing summary says. Whoever runs the command fills it; nothing here measures."""

    command: str
    """`watch`, `check` or `scan`."""
    sources: Sequence[SourceSummary]
    findings: Sequence[Finding]
    """All of them, gravest first, as `Ledger.findings` returns them."""
    started_ns: int
    """When observing began: the first event's time for recordings, the start for live runs."""
    ended_ns: int
    clients: int
    topics: int
    denied: int
    """Events the broker refused."""
    inventory: Sequence[InventoryRow] = ()
    """The busiest clients first."""
    overflow: int = 0
    """Records that opened no finding because the ledger was full."""
    policy: str | None = None
    """The policy file the events were held against; None: none was given."""
    interrupted: bool = False
    """Ended by the user before its source did."""
    scanned: Sequence[ScannedGrants] = ()
    """What `scan` read; its `sources` are what was observed."""
    joined: Joined | None = None
    """None: no host was observed."""
    kept: Kept | None = None
    """None: no store was asked for."""
    not_asked: Sequence[str] = ()
    """Codes of rules about hosts that could not be asked, for want of an inventory, its tools or a baseline."""

    @property
    def events(self) -> int:
        """Events seen, over all sources."""
        return sum(source.counters.events for source in self.sources)

    @property
    def lost(self) -> int:
        """Events known to have happened and not seen."""
        return sum(source.counters.lost for source in self.sources)

    @property
    def gaps(self) -> int:
        """How many times events were lost."""
        return sum(source.counters.gaps for source in self.sources)

    @property
    def unresolved(self) -> int:
        """Events dropped because their client or resource never became known."""
        return sum(source.counters.unresolved for source in self.sources)

    @property
    def undecodable(self) -> int:
        """Records, lines or messages that could not be read."""
        return sum(sum(source.counters.decode_errors.values()) for source in self.sources)

    @property
    def open(self) -> list[Finding]:
        """The findings nobody accepted."""
        return [finding for finding in self.findings if finding.accepted is None]

    @property
    def accepted(self) -> list[Finding]:
        """The findings an exception of the policy accepts."""
        return [finding for finding in self.findings if finding.accepted is not None]

    def by_severity(self) -> dict[Severity, int]:
        """Return how many findings are open of each severity, gravest first, those with none left out."""
        counts = Counter(finding.severity for finding in self.open)
        return {severity: counts[severity] for severity in sorted(counts, reverse=True)}


def next_steps(summary: Summary) -> list[str]:
    """Return what to do now, most urgent first; each a sentence without full stop."""
    steps = []
    if summary.scanned and not summary.sources:
        steps.append("Say which grants nobody uses: pass recordings or logs with --observed")
    if summary.not_asked:
        steps.append(
            f"Not asked: {', '.join(summary.not_asked)}, for they need the policy's inventory (brokers, tools) or a "
            "--baseline"
        )
    if summary.joined is not None and summary.joined.none:
        steps.append("Sessions without a process: watch the hosts they come from too, with their port (docs/hosts.md)")
    if summary.events == 0 and not summary.scanned:
        steps.append("No event was seen: run `topicwarden doctor` to learn whether the broker is set up to be watched")
    if summary.lost:
        steps.append("Events were lost, so findings may be missing: give topicwarden more CPU or a larger ring")
    if summary.kept is not None and (summary.kept.dropped or summary.kept.error):
        steps.append("Evidence is missing from the store: give its disk more room or speed")
    if summary.undecodable or summary.unresolved:
        steps.append("Some records could not be used: `topicwarden doctor` compares the broker's set-up and ours")
    if summary.open:
        code = summary.open[0].type.code
        steps.append(f"Start with {code}, the gravest: `topicwarden explain {code}`")
    if summary.overflow:
        steps.append(
            "There were more different causes than are kept: fix the most frequent, then run again to see the rest"
        )
    if summary.policy is None:
        steps.append(
            "No policy was given, so nothing was compared with what is intended: write one and pass it with --policy"
        )
    elif summary.open:
        steps.append(
            "What is legitimate belongs into the policy; what has to wait, into its exceptions with an end date"
        )
    read: list[SourceSummary | ScannedGrants] = [*summary.sources, *summary.scanned]
    if any(spot.fix for source in read for spot in source.blind_spots):
        steps.append("Close the blind spots above that have a fix")
    return steps


def summary_object(summary: Summary) -> dict[str, Any]:
    """Return the summary as an object of JSON values; every key is always there."""
    return {
        "type": "summary",
        "command": summary.command,
        "started": wording.timestamp(summary.started_ns, 9),
        "ended": wording.timestamp(summary.ended_ns, 9),
        "interrupted": summary.interrupted,
        "policy": summary.policy,
        "sources": [_source_object(source) for source in summary.sources],
        "events": summary.events,
        "clients": summary.clients,
        "topics": summary.topics,
        "denied": summary.denied,
        "lost": summary.lost,
        "gaps": summary.gaps,
        "unresolved": summary.unresolved,
        "undecodable": summary.undecodable,
        "findings": {
            severity.name.lower(): summary.by_severity().get(severity, 0) for severity in sorted(Severity, reverse=True)
        },
        "accepted": len(summary.accepted),
        "overflow": summary.overflow,
        "not_asked": list(summary.not_asked),
        "joined": None if summary.joined is None else asdict(summary.joined),
        "kept": None if summary.kept is None else _kept_object(summary.kept),
        "grants": [_grants_object(one) for one in summary.scanned],
        "inventory": [_inventory_object(row) for row in summary.inventory],
        "next_steps": next_steps(summary),
    }


def _kept_object(kept: Kept) -> dict[str, Any]:
    gap = kept.gap_ns or (None, None)
    return {
        "folder": kept.folder,
        "rows": kept.rows,
        "dropped": kept.dropped,
        "gap_from": None if gap[0] is None else wording.timestamp(gap[0], 9),
        "gap_until": None if gap[1] is None else wording.timestamp(gap[1], 9),
        "error": kept.error,
    }


def _source_object(source: SourceSummary) -> dict[str, Any]:
    counters = source.counters
    return {
        "title": source.title,
        "broker": "" if source.host else source.broker,
        "host": source.broker if source.host else None,
        "blind_spots": [{"what": spot.what, "fix": spot.fix} for spot in source.blind_spots],
        "events": counters.events,
        "lost": counters.lost,
        "gaps": counters.gaps,
        "unresolved": counters.unresolved,
        "decode_errors": dict(counters.decode_errors),
        "lag_seconds": round(counters.lag_ns / 1e9, 6),
        "counts": dict(counters.source),
    }


def _grants_object(scanned: ScannedGrants) -> dict[str, Any]:
    return {
        "title": scanned.title,
        "broker": scanned.broker,
        "blind_spots": [{"what": spot.what, "fix": spot.fix} for spot in scanned.blind_spots],
        "grants": scanned.grants,
        "accounts": scanned.accounts,
        "classes": scanned.classes,
        "undecided": scanned.undecided,
        "confirmed": scanned.confirmed,
        "refuted": scanned.refuted,
        "not_tried": scanned.not_tried,
        "unexplained": scanned.unexplained,
    }


def _inventory_object(row: InventoryRow) -> dict[str, Any]:
    return {
        "broker": row.broker,
        "user": row.user,
        "client_id": row.client_id,
        "identity": row.identity.value,
        "address": row.address,
        "publishes": row.publishes,
        "rate": round(row.rate, 3),
        "topics": row.topics,
        "denied": row.denied,
        "first_seen": wording.timestamp(row.first_ns, 9),
        "last_seen": wording.timestamp(row.last_ns, 9),
    }
