"""Verifies a store's log: its entries, and every checkpoint against the Merkle tree over them."""

from __future__ import annotations

import re
import struct
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from topicwarden.store.files import folder_of, is_temporary
from topicwarden.store.identity import INFO, STORE_DIGEST, StoreInfo
from topicwarden.store.log import MAX_LINE, Log, LogDamageError, parsed_entry
from topicwarden.store.merkle import Frontier, leaf_hash
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.notes import Checkpoint, NoteError, Verifier, open_note
from topicwarden.store.retention import MARK, retired_by
from topicwarden.store.timestamps import SUFFIX, available, verify_tokens
from topicwarden.store.verify_model import Damage, Found, Verification

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

PART: Final = np.dtype([("segment", "<u8"), ("rows", "<i8"), ("entry", "<u8"), ("digest", "V32")])
"""What is kept of each part."""
_PACKED: Final = struct.Struct("<QqQ32s")
RESIDENT: Final = 4 << 20
"""Parts that are kept in memory; more wait in a temporary file."""
_CHECKPOINT: Final = re.compile(r"0|[1-9]\d{0,18}")
_TOKEN: Final = re.compile(r"(0|[1-9]\d{0,18})\.tsr")
_ENTRIES: Final = re.compile(r"entries-\d{12}\.jsonl")
_KNOWN: Final = frozenset({"checkpoint", "checkpoints", "frontier", MARK})


@dataclass(frozen=True, slots=True)
class RetiredRun:
    """Segments whose rows of one folder an entry says were deleted."""

    entry: int
    first: int
    last: int


class Parts:
    """What the log says should be in each folder. Memory is bounded: what does not fit waits in a temporary file."""

    def __init__(self) -> None:
        self.folders: set[str] = set()
        """Every folder that has or had rows, within the store."""
        self.retired: dict[str, list[RetiredRun]] = {}
        self._recent: dict[str, bytearray] = {}
        self._count = 0
        self._spilled: dict[str, list[tuple[int, int]]] = {}
        self._file: BinaryIO | None = None

    def add(self, entry: Entry) -> None:
        """Take the parts of a segment, or what an entry retires."""
        for part in entry.parts if entry.kind is EntryKind.SEGMENT and entry.segment is not None else ():
            folder = _folder(part.kind, part.broker, part.hour)
            self.folders.add(folder)
            packed = _PACKED.pack(entry.segment, part.rows, entry.index, bytes.fromhex(part.digest))
            self._recent.setdefault(folder, bytearray()).extend(packed)
            self._count += 1
        for one in retired_by(entry):
            run = RetiredRun(entry.index, one.first, one.last)
            self.retired.setdefault(_folder(one.kind, one.broker, one.hour), []).append(run)
        if self._count > RESIDENT:
            self._spill()

    def of(self, folder: str) -> npt.NDArray[Any]:
        """Return the parts of a folder, as `PART`, in the order of the log."""
        data = bytearray()
        for start, length in self._spilled.get(folder, ()):
            assert self._file is not None
            self._file.seek(start)
            data += self._file.read(length)
        return np.frombuffer(bytes(data + self._recent.get(folder, b"")), PART)

    def close(self) -> None:
        """Delete the temporary file."""
        if self._file is not None:
            self._file.close()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `close` does
        self._file.seek(0, 2)
        for folder, data in self._recent.items():
            self._spilled.setdefault(folder, []).append((self._file.tell(), len(data)))
            self._file.write(data)
        self._recent.clear()
        self._count = 0


@lru_cache(maxsize=4096)
def _folder(kind: Kind, broker: str, hour: int) -> str:
    return str(folder_of(Path(), kind, broker, hour))


def verify_log(
    folder: Path,
    info: StoreInfo,
    digest: str,
    outside: Mapping[str, bytes],
    roots: Sequence[Certificate],
    report: Verification,
    parts: Parts,
) -> Iterator[int]:
    """Verify the log and what signs it; yields how many entries were read, now and then.

    `folder`: the store's; `digest`: that of its `store.json`; `outside`: checkpoints kept elsewhere, by their names;
    `roots`: authorities whose timestamps are trusted.
    """
    kept, notes = _kept(folder / "log", info, report)
    _verify_tokens(folder / "log" / "checkpoints", notes, roots, report)
    elsewhere = _elsewhere(outside, info, report)
    tops: dict[int, bytes] = {}
    wanted = {one.size for one in (*kept.values(), *elsewhere.values())}
    frontier = Frontier()
    last = None
    for entry, line in _entries(folder, report):
        frontier.append(leaf_hash(line))
        if frontier.size in wanted:
            tops[frontier.size] = frontier.root()
        if entry is not None:
            last = _follow(entry, last, digest, report)
            parts.add(entry)
        if frontier.size % 4096 == 0:
            yield frontier.size
    report.entries = frontier.size
    report.checkpoints = _fitting(kept, tops, frontier.size, report)
    report.outside = _fitting(elsewhere, tops, frontier.size, report)
    if report.newest is None and report.segments:
        report.add([Found(Damage.MISSING, "log/checkpoint", "no checkpoint signs the log's entries")])
    if report.newest is not None and tops.get(report.newest.size) != report.newest.root:
        report.newest = None


def _entries(folder: Path, report: Verification) -> Iterator[tuple[Entry | None, bytes]]:
    """Yield every line of the log; None for an entry that cannot be read."""
    place = shift = 0
    files = Log(folder / "log").files
    for number, (first, path) in enumerate(files):
        where = str(path.relative_to(folder))
        if first != place:
            what, word = (Damage.MISSING, "missing") if first > place else (Damage.INSERTED, "there twice")
            some = _span("entry", "entries", min(first, place), max(first, place) - 1)
            report.add([Found(what, where, f"it begins with entry {first}, not {place}: {some} {word}", entry=place)])
        with path.open("rb") as file:
            while line := file.readline(MAX_LINE + 2):
                if not line.endswith(b"\n"):
                    if number < len(files) - 1 or len(line) > MAX_LINE:
                        report.add([Found(Damage.CHANGED, where, f"entry {place} is cut short", entry=place)])
                    else:
                        report.remarks.append(
                            f"{where}: {len(line)} bytes of an entry that is being written, or never was whole"
                        )
                    break
                try:
                    entry = parsed_entry(line[:-1], place + 1)
                except LogDamageError as error:
                    report.add([Found(Damage.CHANGED, where, f"entry {place}: {error.what}", entry=place)])
                    entry = None
                if entry is not None and entry.index - place != shift:
                    report.add([_moved(where, place, entry, shift)])
                    shift = entry.index - place
                yield entry, line[:-1]
                place += 1


def _moved(where: str, place: int, entry: Entry, shift: int) -> Found:
    more = entry.index - place - shift
    message = f"entry {place + shift} was expected, entry {entry.index} is there"
    if more > 0:
        some = _span("entry", "entries", place + shift, entry.index - 1)
        return Found(Damage.MISSING, where, f"{message}: {some} missing, or moved", entry=place + shift)
    return Found(Damage.REORDERED, where, f"{message}: entries were inserted, repeated or moved", entry=place + shift)


def _span(one: str, many: str, first: int, last: int) -> str:
    return f"{one} {first} is" if first == last else f"{many} {first} to {last} are"


def _follow(entry: Entry, last: int | None, digest: str, report: Verification) -> int | None:
    """Note what an entry says; returns the newest segment's number."""
    facts = entry.facts or {}
    if entry.kind is EntryKind.OPENED and facts.get(STORE_DIGEST, digest) != digest:
        message = f"it is not what the writer of entry {entry.index} found"
        report.add([Found(Damage.CHANGED, INFO, message, entry=entry.index)])
    elif entry.kind is EntryKind.GAP:
        report.gaps += 1
        lost = facts.get("lost", 0)
        report.lost += lost if isinstance(lost, int) else 0
    elif entry.kind is EntryKind.SEGMENT and entry.segment is not None:
        expected = 0 if last is None else last + 1
        if entry.segment > expected:
            message = f"no entry has {_span('segment', 'segments', expected, entry.segment - 1).rpartition(' ')[0]}"
            report.add([Found(Damage.MISSING, "log", message, expected, entry.segment - 1, entry=entry.index)])
        elif entry.segment < expected:
            message = f"segment {entry.segment} comes after segment {expected - 1}"
            report.add([Found(Damage.REORDERED, "log", message, entry.segment, entry=entry.index)])
        report.segments += 1
        report.sealed, report.sealed_ns = max(entry.segment, report.sealed or 0), entry.time_ns
        return entry.segment
    return last


def _kept(log: Path, info: StoreInfo, report: Verification) -> tuple[dict[str, Checkpoint], dict[int, bytes]]:
    """Return the store's checkpoints that the key signed, by their places; and the notes of those that stay."""
    found: dict[str, Checkpoint] = {}
    notes: dict[int, bytes] = {}
    sizes: set[int] = set()
    folder = log / "checkpoints"
    names = (
        sorted((p.name for p in folder.iterdir() if _CHECKPOINT.fullmatch(p.name)), key=int) if folder.is_dir() else []
    )
    for name in [*names, ""]:
        place = f"log/checkpoints/{name}" if name else "log/checkpoint"
        sizes |= {int(name)} if name else set()
        try:
            note = (log.parent / place).read_bytes()
            checkpoint = signed_checkpoint(note, info, report.verifier)
        except FileNotFoundError:
            continue
        except (NoteError, OSError) as error:
            report.add([Found(Damage.FORGED, place, str(error))])
            continue
        if name and checkpoint.size != int(name):
            message = f"it signs {checkpoint.size} entries, not {name}"
            report.add([Found(Damage.FORGED, place, message)])
            continue
        found[place] = checkpoint
        if name:
            notes[checkpoint.size] = note
    newest = found.get("log/checkpoint")
    if newest is None and sizes and not (log / "checkpoint").exists():
        report.add([Found(Damage.MISSING, "log/checkpoint", "the newest checkpoint is not there")])
    for place, one in found.items():
        for size in [one.previous, *([one.size] if one.kept else [])]:
            if size and size not in sizes:
                sizes.add(size)
                message = f"not there; {place} says that it was kept"
                report.add([Found(Damage.MISSING, f"log/checkpoints/{size}", message)])
    report.newest = max(found.values(), key=lambda one: one.size, default=None)
    return found, notes


def _verify_tokens(
    folder: Path, notes: Mapping[int, bytes], roots: Sequence[Certificate], report: Verification
) -> None:
    tokens = sum(1 for path in folder.glob(f"*{SUFFIX}")) if folder.is_dir() else 0
    if tokens and not available():
        report.remarks.append(f"{tokens} timestamp tokens were not looked at: that needs the extra `timestamp`")
        return
    for found in verify_tokens(folder, notes, roots) if tokens else ():
        if isinstance(found, Found):
            report.add([found])
        else:
            report.timestamps += found
            report.untrusted_timestamps += not found


def _elsewhere(notes: Mapping[str, bytes], info: StoreInfo, report: Verification) -> dict[str, Checkpoint]:
    found: dict[str, Checkpoint] = {}
    for name, note in notes.items():
        try:
            found[name] = signed_checkpoint(note, info, report.verifier)
        except NoteError as error:
            report.add([Found(Damage.FORGED, name, f"this checkpoint from elsewhere: {error}")])
    return found


def signed_checkpoint(note: bytes, info: StoreInfo, verifier: Verifier) -> Checkpoint:
    """Return a checkpoint of this store that the key signed; raises NoteError."""
    checkpoint = Checkpoint.parse(open_note(note, verifier))
    if checkpoint.origin != info.origin:
        raise NoteError(f"it is of {checkpoint.origin!r}, not of {info.origin!r}")
    return checkpoint


def _fitting(
    checkpoints: Mapping[str, Checkpoint], roots: Mapping[int, bytes], entries: int, report: Verification
) -> int:
    """Compare checkpoints with the tree; returns how many fit."""
    fitting, since = 0, 0
    ordered = sorted(checkpoints.items(), key=lambda item: item[1].size)
    for number, (place, one) in enumerate(ordered):
        if one.size > entries:
            what = _span("entry", "entries", entries, one.size - 1)
            message = f"it signs {one.size} entries, the log has {entries}: {what} missing"
            report.add([Found(Damage.MISSING, place, message, entry=entries)])
            break
        if roots.get(one.size, Frontier().root()) != one.root:
            later = len(ordered) - number - 1
            changed = _span("entry", "entries", since, one.size - 1).rpartition(" ")[0]
            message = f"{changed} are not what it signs" + (f", nor what {later} later ones sign" if later else "")
            report.add([Found(Damage.CHANGED, place, message, entry=since)])
            break
        fitting, since = fitting + 1, one.size
    return fitting


def tail(folder: Path, start: int) -> Iterator[Entry]:
    """Yield the entries that came since there were `start`; what cannot be read is not what this is about."""
    try:
        yield from Log(folder / "log").entries(start)
    except (LogDamageError, OSError):
        return


def unexpected(folder: Path) -> Iterator[Found]:
    """Yield what lies among the log's files and is none of them."""
    for path in sorted((folder / "log").iterdir()):
        if path.name not in _KNOWN and not _ENTRIES.fullmatch(path.name) and not is_temporary(path):
            yield strange(folder, path)
    kept = folder / "log" / "checkpoints"
    for path in sorted(kept.iterdir()) if kept.is_dir() else ():
        if not (_CHECKPOINT.fullmatch(path.name) or _TOKEN.fullmatch(path.name) or is_temporary(path)):
            yield strange(folder, path)


def strange(folder: Path, path: Path) -> Found:
    """Return that something is no part of a store."""
    return Found(Damage.INSERTED, str(path.relative_to(folder)), "nothing that topicwarden writes has this name")
