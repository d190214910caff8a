"""Findings of a store as they stand: the newest word about each, found in bounded memory however many there are."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, Literal

from topicwarden.policy import Glob
from topicwarden.report.findings import SEVERITIES
from topicwarden.store.files import RowFile
from topicwarden.store.model import Kind
from topicwarden.store.reader import Store
from topicwarden.store.rows import SEGMENT

MAX_KNOWN: Final = 1 << 20
"""Causes that are told apart; what is said of others is counted. About 400 bytes each."""
_PART: Final = 4096
_SHAPES: Final = 4096
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{32}")
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{9}Z")
_TEXT_OR_NOT: Final = (str, type(None))
_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "fingerprint": str,
    "event": str,
    "code": str,
    "name": str,
    "severity": str,
    "title": str,
    "broker": str,
    "host": _TEXT_OR_NOT,
    "client": (dict, type(None)),
    "scope": list,
    "count": int,
    "certainty": str,
    "first_seen": str,
    "last_seen": str,
    "witnesses": list,
    "more_witnesses": int,
    "evidence": dict,
    "behind": list,
    "more_behind": int,
    "accepted": _TEXT_OR_NOT,
}
"""What a document must have to be shown; what is stored may be damaged, or of another version."""
_CLIENT_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "protocol": str,
    "client_id": str,
    "user": _TEXT_OR_NOT,
    "identity": str,
    "address": _TEXT_OR_NOT,
    "vhost": _TEXT_OR_NOT,
}

State = Literal["all", "open", "accepted"]


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
            and (self.state == "all" or (document["accepted"] is not None) == (self.state == "accepted"))
            and (self.broker is None or self.broker.matches(document["broker"]))
            and (self.host is None or any(map(self.host.matches, _hosts(document))))
            and (self.user is None or any(map(self.user.matches, _users(document))))
        )


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
    newest: tuple[int, int, int]
    """Segment, file and row of the newest document."""

    @property
    def rank(self) -> tuple[int, str]:
        return (self.severity, self.last_seen)


def find(store: Store, wanted: Wanted, limit: int | None = None) -> Found:
    """Return findings, the gravest and newest first; without a limit, as they lie in the store.

    Raises ObservationError when a file is damaged; without a limit also while what is returned is gone through.
    """
    files = store.files(Kind.FINDINGS)
    causes: dict[bytes, _Cause] = {}
    unreadable = overflow = 0
    for place, document in _documents(store, files, wanted):
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
            causes[key] = _Cause(severity, document["first_seen"], document["last_seen"], int(opened), place)
            continue
        cause.runs += opened
        cause.first_seen = min(cause.first_seen, document["first_seen"])
        cause.last_seen = max(cause.last_seen, document["last_seen"])
        cause.newest = max(cause.newest, place)
    if wanted.since:
        causes = {key: cause for key, cause in causes.items() if cause.last_seen >= wanted.since}
    total = len(causes)
    if limit is not None and limit < total:
        causes = dict(heapq.nlargest(limit, causes.items(), key=lambda item: (item[1].rank, item[0])))
    standing: Iterable[Standing] = _newest(store, files, causes)
    if limit is not None:
        gravest = {key: number for number, key in enumerate(sorted(causes, key=lambda k: _order(k, causes[k])))}
        standing = sorted(standing, key=lambda s: gravest[bytes.fromhex(s.document["fingerprint"])])
    return Found(standing, total, unreadable, overflow)


def _order(key: bytes, cause: _Cause) -> tuple[object, ...]:
    """Gravest first, then the newest, then by fingerprint."""
    return (-cause.severity, [-ord(letter) for letter in cause.last_seen], key)


def _newest(store: Store, files: list[RowFile], causes: Mapping[bytes, _Cause]) -> Iterator[Standing]:
    """Yield the newest document of each cause, reading only the files that have one."""
    wanted: dict[int, dict[int, _Cause]] = {}
    for cause in causes.values():
        _, file, row = cause.newest
        wanted.setdefault(file, {})[row] = cause
    for number, rows in sorted(wanted.items()):
        for row, _, _, text in _rows(store, files[number]):
            cause_here = rows.get(row)
            document = None if cause_here is None else _read(text)
            if cause_here is not None and document is not None:
                yield Standing(document, cause_here.first_seen, cause_here.last_seen, max(cause_here.runs, 1))


def _documents(
    store: Store, files: list[RowFile], wanted: Wanted
) -> Iterator[tuple[tuple[int, int, int], dict[str, Any] | None]]:
    """Yield where each document lies that may be wanted, and the document; None: it cannot be read."""
    # As it is written; a string inside of a document cannot hold these quotes.
    begins = f'"fingerprint":"{wanted.prefix}'
    for number, file in enumerate(files):
        for row, segment, what, text in _rows(store, file):
            if (not wanted.codes or what in wanted.codes) and (not wanted.prefix or begins in text):
                yield (segment, number, row), _read(text)


def _rows(store: Store, file: RowFile) -> Iterator[tuple[int, int, str, str]]:
    """Yield number, segment, code and document of each row."""
    row = 0
    for part in store.parts(file, _PART):
        columns = (part.column(name).to_pylist() for name in (SEGMENT, "what", "document"))
        for segment, what, text in zip(*columns, strict=True):
            yield row, segment, what, text
            row += 1


def _read(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
        sound = (
            _DOCUMENT.fits(document)
            and _FINGERPRINT.fullmatch(document["fingerprint"])
            and document["severity"] in SEVERITIES
            and all(_TIME.fullmatch(document[key]) for key in ("first_seen", "last_seen"))
            and (document["client"] is None or _CLIENT.fits(document["client"]))
            and all(map(_WITNESS.fits, document["witnesses"]))
            and all(map(_BEHIND.fits, document["behind"]))
            and all(isinstance(part, str) for part in document["scope"])
        )
    except (ValueError, RecursionError):
        return None
    return document if sound else None


class _Shape:
    """The keys a mapping must have, and what may stand under each. Documents are alike, so answers are kept."""

    def __init__(self, keys: Mapping[str, type | tuple[type, ...]]) -> None:
        self._kinds = [kind if isinstance(kind, tuple) else (kind,) for kind in keys.values()]
        self._values = itemgetter(*keys)
        self._known: dict[tuple[type, ...], bool] = {}

    def fits(self, row: Any) -> bool:
        """Whether it is such a mapping."""
        if not isinstance(row, dict):
            return False
        try:
            found = tuple(map(type, self._values(row)))
        except KeyError:
            return False
        known = self._known.get(found)
        if known is None:
            known = all(kind in allowed for kind, allowed in zip(found, self._kinds, strict=True))
            if len(self._known) < _SHAPES:
                self._known[found] = known
        return known


_DOCUMENT: Final = _Shape(_KEYS)
_CLIENT: Final = _Shape(_CLIENT_KEYS)
_WITNESS: Final = _Shape({"name": str, "count": int})
_BEHIND: Final = _Shape({"host": str, "executable": _TEXT_OR_NOT, "arguments": list, "user": _TEXT_OR_NOT})


def _hosts(document: Mapping[str, Any]) -> Iterator[str]:
    if document["host"] is not None:
        yield document["host"]
    for behind in document["behind"]:
        yield behind["host"]


def _users(document: Mapping[str, Any]) -> Iterator[str]:
    for row in (document["client"], *document["behind"]):
        if row is not None and row["user"] is not None:
            yield row["user"]
