"""How long rows are kept, by age and by size; what goes is named in the log before it goes.

Only whole hours go. An hour's clients and resources are what the numbers in its events stand for, and go with them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.store.files import HOUR_NS, RowFile, files_in, folder_of, hour_folders, hour_name
from topicwarden.store.log import sync_folder, write_whole
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.pending import MAX_NAMES, MAX_PARTS

CLASSES: Final[Mapping[Kind, tuple[Kind, ...]]] = {
    # The kinds that go together, in the order their files go: no event is left whose client is not.
    Kind.EVENTS: (Kind.EVENTS, Kind.RESOURCES, Kind.CLIENTS),
    Kind.HOSTS: (Kind.HOSTS,),
    Kind.NOTICES: (Kind.NOTICES,),
    Kind.CHANGES: (Kind.CHANGES,),
    Kind.FINDINGS: (Kind.FINDINGS,),
}
"""The classes that rules are for, in the order in which a limit on all of them is kept to: events are most of it."""
MARK: Final = "retiring.json"
"""Names what an entry of the log said would go, until it is gone: a crash in between is then made up for."""
_AGE: Final = re.compile(r"(\d{1,6})(h|d|w|y)")
_HOURS: Final = {"h": 1, "d": 24, "w": 168, "y": 8784}
_SIZE: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(KB|MB|GB|TB|KiB|MiB|GiB|TiB)", re.IGNORECASE)
_UNITS: Final = {
    unit: base ** (place + 1)
    for base, units in ((1000, ("kb", "mb", "gb", "tb")), (1024, ("kib", "mib", "gib", "tib")))
    for place, unit in enumerate(units)
}


@dataclass(frozen=True, slots=True)
class Retention:
    """What may go; a class that is in none of them stays for ever."""

    hours: Mapping[Kind, int] = field(default_factory=dict)
    """How many hours a class is kept."""
    sizes: Mapping[Kind, int] = field(default_factory=dict)
    """How many bytes of files a class may have."""
    total: int | None = None
    """How many bytes of files all may have together."""

    def __bool__(self) -> bool:
        return bool(self.hours or self.sizes or self.total is not None)


def parse_retention(ages: Iterable[str] = (), sizes: Iterable[str] = ()) -> Retention:
    """Read `400d`, `events=90d,findings=400d`, and likewise `50GB`, `events=40GB`.

    Raises ConfigurationError for all that is wrong.
    """
    problems: list[Problem] = []
    hours: dict[Kind, int] = {}
    bytes_of: dict[Kind, int] = {}
    total = None
    for name, value in _settings("--retain", ages, problems):
        age = _AGE.fullmatch(value)
        if age is None or int(age[1]) == 0:
            problems.append(Problem(f"--retain {value!r} is no time", hint="such as 36h, 90d, 8w or 2y"))
        elif name is None:
            hours = {kind: int(age[1]) * _HOURS[age[2]] for kind in CLASSES} | hours
        else:
            hours[name] = int(age[1]) * _HOURS[age[2]]
    for name, value in _settings("--retain-size", sizes, problems):
        size = _SIZE.fullmatch(value)
        if size is None or float(size[1]) == 0:
            problems.append(Problem(f"--retain-size {value!r} is no size", hint="such as 500MB, 50GB or 1TiB"))
        elif name is None:
            total = int(float(size[1]) * _UNITS[size[2].lower()])
        else:
            bytes_of[name] = int(float(size[1]) * _UNITS[size[2].lower()])
    if problems:
        raise ConfigurationError(*problems)
    return Retention(hours, bytes_of, total)


def _settings(option: str, texts: Iterable[str], problems: list[Problem]) -> Iterator[tuple[Kind | None, str]]:
    known = {kind.value: kind for kind in CLASSES}
    for part in (part.strip() for text in texts for part in text.split(",")):
        name, equals, value = part.rpartition("=")
        if not equals:
            yield None, value
        elif name.strip() in known:
            yield known[name.strip()], value.strip()
        else:
            problems.append(Problem(f"{option}: there is no class {name!r}", hint=f"one of: {', '.join(known)}"))


@dataclass(slots=True)
class Hour:
    """The files of one class and hour."""

    kind: Kind
    """The class."""
    hour: int
    bytes: int = 0
    rule: str = ""
    """Why it goes."""


def hours_kept(root: Path) -> Iterator[Hour | None]:
    """Yield what is kept, by class, oldest first; None now and then, for whoever has something else to do."""
    for name, kinds in CLASSES.items():
        found: dict[int, Hour] = {}
        for kind in kinds:
            for folder in hour_folders(root, kind):
                for file in files_in(folder, kind):
                    one = found.setdefault(file.hour, Hour(name, file.hour))
                    with contextlib.suppress(FileNotFoundError):
                        one.bytes += file.path.stat().st_size
                yield None
        yield from (found[hour] for hour in sorted(found))


def to_retire(kept: Sequence[Hour], retention: Retention, now_ns: int) -> list[Hour]:
    """Return the hours that go, in the order they go. Never the hour that is now, or a later one, because of size."""
    now = now_ns // HOUR_NS
    going: list[Hour] = []
    staying = {kind: deque(one for one in kept if one.kind is kind) for kind in CLASSES}
    sizes = {kind: sum(one.bytes for one in hours) for kind, hours in staying.items()}

    def go(kind: Kind, rule: str) -> None:
        one = staying[kind].popleft()
        sizes[kind] -= one.bytes
        one.rule = rule
        going.append(one)

    for kind, hours in staying.items():
        limit = retention.hours.get(kind)
        while limit is not None and hours and hours[0].hour + limit < now:
            go(kind, f"{kind}={limit}h")
    for kind, bound in retention.sizes.items():
        while sizes[kind] > bound and staying[kind][0].hour < now:
            go(kind, f"{kind}={bound} bytes")
    for kind, hours in staying.items():
        while retention.total is not None and sum(sizes.values()) > retention.total and hours and hours[0].hour < now:
            go(kind, f"{retention.total} bytes")
    return going


def relisted(root: Path, hour: Hour) -> list[RowFile]:
    """Return an hour's files as they are now, in the order they go."""
    found: list[RowFile] = []
    for kind in CLASSES[hour.kind]:
        above = "*/" if kind is Kind.EVENTS else ""
        for folder in sorted((root / kind.value).glob(f"{above}hour={hour_name(hour.hour)}")):
            found += files_in(folder, kind)
    return found


def facts_of(hour: Hour, files: Iterable[RowFile]) -> Iterator[dict[str, Any]]:
    """Yield what the log's entries say of an hour that goes."""
    rows: list[dict[str, Any]] = [
        {
            "kind": kind.value,
            "broker": broker,
            "hour": hour.hour,
            "first": min(file.first for file in found),
            "last": max(file.last for file in found),
            "rule": hour.rule,
        }
        for (kind, broker), found in _folders(files).items()
    ]
    while rows:
        count = size = 0
        for row in rows[:MAX_PARTS]:
            size += 6 * len(row["broker"])
            count += 1
            if size > MAX_NAMES:
                break
        yield {"retired": rows[:count]}
        rows = rows[count:]


def _folders(files: Iterable[RowFile]) -> dict[tuple[Kind, str], list[RowFile]]:
    found: dict[tuple[Kind, str], list[RowFile]] = {}
    for file in files:
        found.setdefault((file.kind, file.broker), []).append(file)
    return found


def mark(root: Path, index: int) -> None:
    """Note that the entry with this index, about to be written, names files that go; raises OSError."""
    write_whole(root / "log" / MARK, json.dumps({"entry": index}).encode())


def marked(root: Path) -> int | None:
    """Return the index of the entry whose files are going just now; None: no files are."""
    try:
        found = json.loads((root / "log" / MARK).read_bytes())["entry"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, int) else None


def delete(root: Path, entry: Entry) -> Iterator[None]:
    """Delete what an entry says is retired, in its order, and then the mark; raises OSError."""
    for one in retired_by(entry):
        folder = folder_of(root, one.kind, one.broker, one.hour)
        for number, file in enumerate(files_in(folder, one.kind)):
            if one.first <= file.first and file.last <= one.last:
                file.path.unlink(missing_ok=True)
            if number % 64 == 63:
                yield
        changed = folder.parent
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass  # whoever removed it may have died at once
        except OSError:
            changed = folder  # rows of newer segments may be there
        # The mark may go only once the files surely have.
        with contextlib.suppress(FileNotFoundError):
            sync_folder(changed)
        yield
    (root / "log" / MARK).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Retired:
    """Parts that an entry says were deleted: those of a kind, broker and hour in a run of segments."""

    kind: Kind
    broker: str
    hour: int
    first: int
    last: int
    rule: str


def retired_by(entry: Entry) -> list[Retired]:
    """Return what an entry retires; nothing of one that says so in no form we know."""
    found = []
    rows = (entry.facts or {}).get("retired") if entry.kind is EntryKind.RETIRED else ()
    for row in rows if isinstance(rows, list) else ():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            hour, first, last = (int(row[name]) for name in ("hour", "first", "last"))
            if not 0 <= first <= last < 1 << 63 or abs(hour) >= 1 << 63:
                continue
            found.append(Retired(Kind(row["kind"]), str(row["broker"]), hour, first, last, str(row["rule"])))
    return found
