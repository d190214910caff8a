"""Findings as they stand: the newest word about each, found in bounded memory however many there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from topicwarden.output import wording
from topicwarden.policy import Glob
from topicwarden.report.findings import SEVERITIES
from topicwarden.report.scans import KeptScan, Succession

MAX_KNOWN: Final = 1 << 20
"""Causes that are told apart; what is said of others is counted. About 400 bytes each."""
UNKNOWN: Final = "unknown"
_NOT_ONLY_BY_SCANS: Final = -1

Place = tuple[int, int, int]
"""Where a document lies; of two, the higher one is newer."""
State = Literal["all", "open", "accepted", "gone"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which findings; everything given must hold."""

    codes: frozenset[str] = frozenset()
    """Empty: any."""
    severity: int = 0
    """At least."""
    broker: Glob | None = None
    host: Glob | None = None
    user: Glob | None = None
    """The client's user, or one that a process behind it runs as."""
    since: str = ""
    """Last seen then or later, as documents write times."""
    state: State = "all"
    prefix: str = ""
    """How the fingerprint begins."""

    def takes(self, document: Mapping[str, Any]) -> bool:
        """Whether a finding is wanted, by what stays the same as long as it goes on."""
        return (
            document["fingerprint"].startswith(self.prefix)
            and SEVERITIES.index(document["severity"]) >= self.severity
            and (self.state in ("all", "gone") or (document["accepted"] is not None) == (self.state == "accepted"))
            and (self.broker is None or self.broker.matches(document["broker"]))
            and (self.host is None or any(map(self.host.matches, _hosts(document))))
            and (self.user is None or any(map(self.user.matches, _users(document))))
        )

    def takes_standing(self, last_seen: str, gone: KeptScan | None) -> bool:
        """Whether it is wanted, by how it stands when all was said."""
        return last_seen >= self.since and (self.state == "all" or (gone is not None) == (self.state == "gone"))


class Tellings(Protocol):
    """What was told of findings, document by document, wherever it is kept."""

    noun: str
    """What it is kept in, for messages: `store`."""

    def all(self, wanted: Wanted) -> Iterator[tuple[Place, int | None, dict[str, Any] | None]]:
        """Yield where each document lies that may be wanted, the number of the scan that told it, and the document.

        No number: something else than a scan did; no document: it cannot be read.
        """
        ...

    def again(self, places: Iterable[Place]) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield the documents that lie at some places, as they lie there."""
        ...

    def succession(self) -> Succession:
        """Return what newer scans say of what older ones told; asked once all was gone through."""
        ...

    def unreadable(self, count: int) -> str:
        """Return in words that so many documents could not be read."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """A finding as it stands."""

    document: Mapping[str, Any]
    """The newest one; its count is of the newest run."""
    first_seen: str
    """By all runs."""
    last_seen: str
    runs: int
    """How many runs opened it."""
    gone: str | None = None
    """When the first scan after it did not find it any more, or `UNKNOWN`; None: it stands."""


@dataclass(frozen=True, slots=True)
class Found:
    """What was looked for."""

    standing: Iterable[Standing]
    total: int
    """How many findings are wanted, shown or not."""
    unreadable: int
    """Documents that could not be read."""
    overflow: int
    """Documents about causes that there was no room for."""


@dataclass(slots=True)
class _Cause:
    """What is kept of a cause while looking."""

    severity: int
    first_seen: str
    last_seen: str
    runs: int
    newest: Place
    scans: int = 0
    """A bit for each scan that told of it; negative: not only scans did."""
    about: tuple[str, str] = ("", "")
    """Broker and code of what scans told."""
    gone: KeptScan | None = None
    """The first scan that did not find it any more."""

    @property
    def rank(self) -> tuple[bool, int, str]:
        return (self.gone is None, self.severity, self.last_seen)


def find(tellings: Tellings, wanted: Wanted, limit: int | None = None) -> Found:
    """Return findings, the gravest and newest first, and last what is gone; without a limit, as they lie there.

    Raises ObservationError when a file is damaged; without a limit also while what is returned is gone through.
    """
    causes: dict[bytes, _Cause] = {}
    unreadable = overflow = 0
    for place, scan, document in tellings.all(wanted):
        if document is None:
            unreadable += 1
            continue
        if not wanted.takes(document):
            continue
        key = bytes.fromhex(document["fingerprint"])
        cause = causes.get(key)
        opened = document["event"] == "opened"
        if cause is None:
            if len(causes) >= MAX_KNOWN:
                overflow += 1
                continue
            severity = SEVERITIES.index(document["severity"])
            cause = causes[key] = _Cause(severity, document["first_seen"], document["last_seen"], 0, place)
        if scan is None:
            cause.scans = _NOT_ONLY_BY_SCANS
        else:
            cause.scans |= 1 << scan
            cause.about = (document["broker"], document["code"])
        cause.runs += opened
        cause.first_seen = min(cause.first_seen, document["first_seen"])
        cause.last_seen = max(cause.last_seen, document["last_seen"])
        cause.newest = max(cause.newest, place)
    _find_gone(causes.values(), tellings.succession())
    causes = {key: cause for key, cause in causes.items() if wanted.takes_standing(cause.last_seen, cause.gone)}
    total = len(causes)
    if limit is not None and limit < total:
        causes = dict(heapq.nlargest(limit, causes.items(), key=lambda item: (item[1].rank, item[0])))
    standing: Iterable[Standing] = _newest(tellings, causes)
    if limit is not None:
        gravest = {key: number for number, key in enumerate(sorted(causes, key=lambda k: _order(k, causes[k])))}
        standing = sorted(standing, key=lambda s: gravest[bytes.fromhex(s.document["fingerprint"])])
    return Found(standing, total, unreadable, overflow)


def _find_gone(causes: Iterable[_Cause], succession: Succession) -> None:
    """Note of what only scans told which newer scan did not find it again."""
    for cause in causes:
        if cause.scans > 0:
            told = (number for number in range(cause.scans.bit_length()) if cause.scans >> number & 1)
            cause.gone = succession.gone_at(told, *cause.about)


def _order(key: bytes, cause: _Cause) -> tuple[object, ...]:
    """What stands first, of that the gravest, then the newest, then by fingerprint."""
    return (cause.gone is not None, -cause.severity, [-ord(letter) for letter in cause.last_seen], key)


def _newest(tellings: Tellings, causes: Mapping[bytes, _Cause]) -> Iterator[Standing]:
    """Yield the newest document of each cause."""
    by_place = {cause.newest: cause for cause in causes.values()}
    for place, document in tellings.again(by_place):
        cause = by_place[place]
        yield Standing(document, cause.first_seen, cause.last_seen, max(cause.runs, 1), _gone(cause.gone))


def _gone(scan: KeptScan | None) -> str | None:
    if scan is None:
        return None
    return UNKNOWN if scan.time_ns is None else wording.timestamp(scan.time_ns, 9)


def _hosts(document: Mapping[str, Any]) -> Iterator[str]:
    if document["host"] is not None:
        yield document["host"]
    for behind in document["behind"]:
        yield behind["host"]


def _users(document: Mapping[str, Any]) -> Iterator[str]:
    for row in (document["client"], *document["behind"]):
        if row is not None and row["user"] is not None:
            yield row["user"]
