"""What was observed in a period, and what not: without it, that nothing was found says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import data_dir
from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.report.scans import is_scan
from topicwarden.store.files import HOUR_NS
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.retention import retired_by

_AUDIT_STREAMS: Final = ("rabbitmq plugin", "rabbitmq stock mode")
"""How the titles of sources begin that tell of changes of grants; no other source does."""
_LEAST_NS: Final = 1_000_000_000
"""A time without a writer that is shorter is none: no restart is that fast, and clocks are read apart."""
_TOLD_NS: Final = 1_000_000
"""Findings tell times in milliseconds."""
_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Need(StrEnum):
    """What must have been given or observed for a control to be assessed at all."""

    EVENTS = "events"
    POLICY = "policy"
    GRANTS = "grants"
    HOSTS = "hosts"
    CHANGES = "audit-of-changes"
    INTEGRITY = "store-verified"


class Aspect(StrEnum):
    """A side of what happened that a control's assessment rests on, and a blind spot may hide."""

    PUBLISHES = "publishes"
    SUBSCRIPTIONS = "subscriptions"
    REFUSALS = "refusals"
    LOGINS = "logins"
    IDENTITIES = "identities"
    PAYLOADS = "payloads"
    CHANGES = "changes"
    PROCESSES = "processes"
    CONNECTIONS = "connections"
    TIMES = "times"
    RECORDS = "records"
    """That records are genuine."""
    GRANTS = "grants"


class _Spot(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    says: str
    hides: tuple[Aspect, ...]
    wholly: bool = False


class _Spots(RootModel[list[_Spot]]):
    pass


@dataclass(frozen=True, slots=True)
class Unseen:
    """A blind spot of a source."""

    source: str
    what: str
    hides: frozenset[Aspect]
    wholly: bool
    """Whether too much is unseen for anything to be said of these aspects."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A time of which evidence is missing."""

    from_ns: int
    until_ns: int
    why: str
    lost: int | None = None
    """Rows that are known to be missing; None: how many is not known."""


class Tally(Protocol):
    """How many findings there are of one code, severity and state."""

    @property
    def code(self) -> str: ...  # noqa: D102
    @property
    def severity(self) -> str: ...  # noqa: D102
    @property
    def accepted(self) -> bool: ...  # noqa: D102
    @property
    def findings(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Coverage:
    """What is known of a period."""

    from_ns: int
    to_ns: int
    events: Mapping[str, int]
    """Events in the period by broker; a broker that was watched and had none counts 0."""
    gaps: tuple[Gap, ...] = ()
    blind_spots: tuple[Unseen, ...] = ()
    policy: bool = False
    """Whether a policy was given."""
    grants: frozenset[str] = frozenset()
    """Brokers whose grants were read."""
    hosts: frozenset[str] = frozenset()
    """Hosts whose telemetry was read, as far as sources are named."""
    changes: frozenset[str] = frozenset()
    """Brokers of which changes of grants would have been seen."""
    integrity: bool | None = None
    """Whether the store was found unchanged; None: nobody verified it."""
    unreadable: int = 0
    """Stored findings that could not be read."""
    totals: Sequence[Tally] | None = None
    """How many findings there are, where the list that is assessed may be cut; None: it is all of them."""
    allowed_gap_ns: int = 0
    """How long gaps may be, together, for a control to be satisfied all the same."""
    grants_unjudged: frozenset[str] = frozenset()
    """Of the brokers whose grants were read those of which they were held against another policy, or none."""

    @property
    def missing_ns(self) -> int:
        """How long evidence is missing; where gaps overlap, once."""
        return length_of(self.gaps)

    @property
    def gaps_allowed(self) -> bool:
        """Whether there are gaps, and no more than are allowed."""
        return bool(self.gaps) and self.allowed_gap_ns > 0 and self.missing_ns <= self.allowed_gap_ns

    def has_gap(self, gap_ns: tuple[int, int]) -> bool:
        """Whether both ends of a gap that somebody tells of are ends of gaps known here, or before the period."""
        ends = {end for gap in self.gaps for end in (gap.from_ns, gap.until_ns)}
        return all(told < self.from_ns or any(abs(told - end) <= _TOLD_NS for end in ends) for told in gap_ns)


def hidden_by(source: str, what: str) -> Unseen:
    """Return what a blind spot hides; one that nobody has classified hides everything."""
    for pattern, spot in _classified():
        if pattern.fullmatch(what):
            return Unseen(source, what, frozenset(spot.hides), spot.wholly)
    return Unseen(source, what, frozenset(Aspect), True)


def grants_unsaid(source: str, what: str) -> Unseen:
    """Return a blind spot of reading grants: of those alone."""
    return Unseen(source, what, frozenset({Aspect.GRANTS}), True)


def coverage_of(
    entries: Iterable[Entry],
    from_ns: int,
    to_ns: int,
    *,
    events: Mapping[str, int],
    policy: bool = False,
    grants: Iterable[str] = (),
    grants_unjudged: Iterable[str] = (),
    grants_spots: Iterable[tuple[str, str]] = (),
    integrity: bool | None = None,
    unreadable: int = 0,
    totals: Sequence[Tally] | None = None,
    at_work: bool = False,
    allowed_gap_ns: int = 0,
) -> Coverage:
    """Return what a store's log says of a period (both ends included), with what else is known.

    `events`: events in the period by broker; `grants`: brokers whose grants were read; `grants_unjudged`: those
    that were held against another policy, or none; `grants_spots`: title and sentence of what could not be read;
    `at_work`: whether a writer has the store open, so that the last one has not ended, however long nothing happened;
    `allowed_gap_ns`: how long gaps may be for a control to be satisfied.
    """
    entries = list(entries)
    runs = _runs(entries)
    scanned = [is_scan(entry) for entry in entries if entry.kind is EntryKind.OPENED]
    if at_work and runs and not scanned[-1]:
        runs[-1].ended = max(runs[-1].ended, to_ns)
    in_time = [run for run in runs if run.began <= to_ns and run.ended >= from_ns]
    # What was read from recordings is of another time than that of the reading.
    used = in_time or runs
    rows = [row for run in used for row in run.sources]
    spots = {(str(row.get("title", "")), what): None for row in rows for what in _spots_of(row)}
    watched = {str(row.get("broker", "")) for row in rows if row.get("host") is not True}
    audited = {
        str(row.get("broker", ""))
        for row in rows
        if row.get("host") is not True and str(row.get("title", "")).startswith(_AUDIT_STREAMS)
    }
    blind = [hidden_by(*spot) for spot in spots]
    blind += [grants_unsaid(*spot) for spot in grants_spots]
    if scanned and all(scanned):
        blind.append(Unseen("store", "nobody watched: only scans of grants were kept", frozenset(Aspect), True))
    elif not rows:
        blind.append(hidden_by("store", "what was watched and how is not recorded"))
    return Coverage(
        from_ns,
        to_ns,
        {**dict.fromkeys(sorted(watched - {""}), 0), **events},
        tuple(_gaps(runs, from_ns, to_ns, scanned=any(scanned))),
        tuple(blind),
        policy,
        frozenset(grants),
        frozenset(str(row.get("broker") or row.get("title", "")) for row in rows if row.get("host") is True),
        frozenset(audited),
        integrity,
        unreadable,
        totals,
        allowed_gap_ns,
        frozenset(grants_unjudged),
    )


@dataclass(slots=True)
class _Run:
    """A writer at work: from when it began until its last entry."""

    began: int
    ended: int
    live: bool
    sources: list[Mapping[str, Any]]
    gaps: list[Gap]
    deleted: list[Gap]
    """Hours of which retention deleted something."""


def _runs(entries: Iterable[Entry]) -> list[_Run]:
    """Return who watched, or read recordings: a scan looks at a moment, and sees nothing of the time around it."""
    found: list[_Run] = []
    before: list[Gap] = []
    deleted: list[Gap] = []
    scanning = False
    for entry in entries:
        if entry.kind is EntryKind.OPENED:
            scanning = is_scan(entry)
        if scanning:
            pass
        elif entry.kind is EntryKind.OPENED:
            about = (entry.facts or {}).get("about")
            about = about if isinstance(about, Mapping) else {}
            rows = about.get("sources")
            sources = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
            found.append(_Run(entry.time_ns, entry.time_ns, is_live(entry), sources, before, deleted))
            before, deleted = [], []
        elif found and entry.kind is not EntryKind.GAP:
            found[-1].ended = max(found[-1].ended, entry.time_ns)
        (found[-1].gaps if found else before).extend(_told_gaps(entry))
        (found[-1].deleted if found else deleted).extend(_deleted(entry))
    return found


def is_live(opened: Entry) -> bool:
    """Whether a writer kept what happened at the time: when a recording is read says nothing of what it is about."""
    about = (opened.facts or {}).get("about")
    return isinstance(about, Mapping) and about.get("command") in ("watch", "demo")


def _told_gaps(entry: Entry) -> Iterable[Gap]:
    facts = entry.facts or {}
    if entry.kind is EntryKind.GAP:
        # A clock that was set back meanwhile has them the other way round.
        since, until = sorted(_time(facts, name, entry.time_ns) for name in ("from_ns", "until_ns"))
        lost = facts.get("lost")
        known = lost if isinstance(lost, int) and not isinstance(lost, bool) else None
        yield Gap(since, until, str(facts.get("reason", "not said")), known)


def _deleted(entry: Entry) -> Iterable[Gap]:
    for gone in retired_by(entry):
        if gone.kind in (Kind.EVENTS, Kind.NOTICES, Kind.CHANGES, Kind.HOSTS, Kind.FINDINGS):
            what = f"{gone.kind.value} of {gone.broker}" if gone.broker else gone.kind.value
            yield Gap(gone.hour * HOUR_NS, (gone.hour + 1) * HOUR_NS - 1, f"{what} were deleted by retention")


def _gaps(runs: Sequence[_Run], from_ns: int, to_ns: int, *, scanned: bool) -> Iterable[Gap]:
    """Yield what is missing of a period, cut to it: gaps that are told, and times in which nobody watched.

    `scanned`: whether there were scans, so that without any run nobody watched at all.
    """
    found = [gap for run in runs for gap in run.gaps]
    told = sorted((gap.from_ns, gap.until_ns) for gap in found)
    found += [gap for run in runs for gap in run.deleted]
    live = [run for run in runs if run.live]
    if (live or scanned) and all(run.live for run in runs):
        reached = from_ns
        for run in sorted(live, key=lambda run: run.began):
            found += _untold(Gap(reached, run.began - 1, "nobody watched"), told)
            reached = max(reached, run.ended)
        found += _untold(Gap(reached, to_ns, "nobody watched, or what was seen is not sealed yet"), told)
    for gap in sorted(set(found), key=lambda gap: (gap.from_ns, gap.until_ns, gap.why)):
        if gap.from_ns <= to_ns and gap.until_ns >= from_ns:
            yield replace(gap, from_ns=max(gap.from_ns, from_ns), until_ns=min(gap.until_ns, to_ns))


def _untold(unwatched: Gap, told: Iterable[tuple[int, int]]) -> Iterable[Gap]:
    """Yield the parts of a time without a writer that no gap of the log explains."""
    since = unwatched.from_ns
    for begin, end in (*told, (unwatched.until_ns + 1, unwatched.until_ns + 1)):
        until = min(begin - 1, unwatched.until_ns)
        if until - since + 1 > _LEAST_NS:
            yield replace(unwatched, from_ns=since, until_ns=until)
        since = max(since, end + 1)


def length_of(gaps: Iterable[Gap]) -> int:
    """Return how long gaps are together, in nanoseconds; where they overlap, once."""
    total, reached = 0, None
    for gap in sorted(gaps, key=lambda gap: gap.from_ns):
        begin = gap.from_ns if reached is None else max(gap.from_ns, reached)
        total += max(gap.until_ns - begin, 0)
        reached = gap.until_ns if reached is None else max(reached, gap.until_ns)
    return total


def gap_words(gap: Gap) -> str:
    """Return a gap for people."""
    lost = "" if gap.lost is None else f", {wording.counted(gap.lost, 'row')} known to be lost"
    return f"{wording.timestamp(gap.from_ns)} to {wording.timestamp(gap.until_ns)}: {visible(gap.why)}{lost}"


def _time(facts: Mapping[str, Any], name: str, otherwise: int) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else otherwise


def _spots_of(row: Mapping[str, Any]) -> Iterable[str]:
    spots = row.get("blind_spots")
    for spot in spots if isinstance(spots, list) else []:
        if isinstance(spot, Mapping):
            yield str(spot.get("what"))


@cache
def _classified(file: Path | None = None) -> Sequence[tuple[re.Pattern[str], _Spot]]:
    path = file or data_dir("rules") / "blind_spots.yaml"
    try:
        read = _Spots.model_validate(yaml.load(path.read_text("utf-8"), Loader=_FAST_LOADER))  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(
            Problem(f"no list of blind spots: {error}", str(path), hint="reinstall topicwarden: its rules are missing")
        ) from error
    return [(re.compile(".*".join(map(re.escape, spot.says.split("*"))), re.DOTALL), spot) for spot in read.root]
