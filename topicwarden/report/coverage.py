"""What was observed in a period, and what not: without it, that nothing was found says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
from topicwarden.store.files import HOUR_NS
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.retention import retired_by

_AUDIT_STREAMS: Final = ("rabbitmq plugin", "rabbitmq stock mode")
"""How the titles of sources begin that tell of changes of grants; no other source does."""
_LEAST_NS: Final = 1_000_000_000
"""A time without a writer that is shorter is none: no restart is that fast, and clocks are read apart."""
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
    grants_spots: Iterable[tuple[str, str]] = (),
    integrity: bool | None = None,
    unreadable: int = 0,
    totals: Sequence[Tally] | None = None,
    at_work: bool = False,
) -> Coverage:
    """Return what a store's log says of a period (both ends included), with what else is known.

    `events`: events in the period by broker; `grants`: brokers whose grants were read; `grants_spots`: title and
    sentence of what could not be read of them; `at_work`: whether a writer has the store open, so that the last one has
    not ended, however long nothing happened.
    """
    runs = _runs(entries)
    if at_work and runs:
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
    if not rows:
        blind.append(hidden_by("store", "what was watched and how is not recorded"))
    return Coverage(
        from_ns,
        to_ns,
        {**dict.fromkeys(sorted(watched - {""}), 0), **events},
        tuple(_gaps(runs, from_ns, to_ns)),
        tuple(blind),
        policy,
        frozenset(grants),
        frozenset(str(row.get("broker") or row.get("title", "")) for row in rows if row.get("host") is True),
        frozenset(audited),
        integrity,
        unreadable,
        totals,
    )


@dataclass(slots=True)
class _Run:
    """A writer at work: from when it began until its last entry."""

    began: int
    ended: int
    live: bool
    sources: list[Mapping[str, Any]]
    gaps: list[Gap]


def _runs(entries: Iterable[Entry]) -> list[_Run]:
    found: list[_Run] = []
    before: list[Gap] = []
    for entry in entries:
        if entry.kind is EntryKind.OPENED:
            about = (entry.facts or {}).get("about")
            about = about if isinstance(about, Mapping) else {}
            rows = about.get("sources")
            sources = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
            # What a recording is read at says nothing of the time that it is about.
            live = about.get("command") in ("watch", "demo")
            found.append(_Run(entry.time_ns, entry.time_ns, live, sources, before))
            before = []
        elif found and entry.kind is not EntryKind.GAP:
            found[-1].ended = max(found[-1].ended, entry.time_ns)
        gaps = list(_told_gaps(entry))
        if found:
            found[-1].gaps += gaps
        else:
            before += gaps
    return found


def _told_gaps(entry: Entry) -> Iterable[Gap]:
    facts = entry.facts or {}
    if entry.kind is EntryKind.GAP:
        since, until = (_time(facts, name, entry.time_ns) for name in ("from_ns", "until_ns"))
        yield Gap(since, until, str(facts.get("reason", "not said")))
    for gone in retired_by(entry):
        if gone.kind in (Kind.EVENTS, Kind.NOTICES, Kind.CHANGES, Kind.HOSTS, Kind.FINDINGS):
            what = f"{gone.kind.value} of {gone.broker}" if gone.broker else gone.kind.value
            yield Gap(gone.hour * HOUR_NS, (gone.hour + 1) * HOUR_NS - 1, f"{what} were deleted by retention")


def _gaps(runs: Sequence[_Run], from_ns: int, to_ns: int) -> Iterable[Gap]:
    """Yield what is missing of a period, cut to it: gaps that are told, and times in which nobody watched."""
    found = [gap for run in runs for gap in run.gaps]
    live = [run for run in runs if run.live]
    if live and all(run.live for run in runs):
        reached = from_ns
        for run in sorted(live, key=lambda run: run.began):
            if run.began - reached > _LEAST_NS:
                found.append(Gap(reached, run.began - 1, "nobody watched"))
            reached = max(reached, run.ended)
        if to_ns - reached > _LEAST_NS:
            found.append(Gap(reached, to_ns, "nobody watched, or what was seen is not sealed yet"))
    for gap in sorted(set(found), key=lambda gap: (gap.from_ns, gap.until_ns, gap.why)):
        if gap.from_ns <= to_ns and gap.until_ns >= from_ns:
            yield Gap(max(gap.from_ns, from_ns), min(gap.until_ns, to_ns), gap.why)


def gap_words(gap: Gap) -> str:
    """Return a gap for people."""
    return f"{wording.timestamp(gap.from_ns)} to {wording.timestamp(gap.until_ns)}: {visible(gap.why)}"


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
