"""Verifies a store's log: its entries, and every checkpoint against the Merkle tree over them."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from binascii import unhexlify
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt

from topicwarden.store.files import folder_of, is_temporary
from topicwarden.store.identity import StoreInfo
from topicwarden.store.log import Log, LogDamageError
from topicwarden.store.log_entries import SegmentLine
from topicwarden.store.log_files import LogFile, listed
from topicwarden.store.merkle import Frontier
from topicwarden.store.model import Entry, EntryKind, Kind
from topicwarden.store.notes import Checkpoint, NoteError, Verifier, open_note
from topicwarden.store.retention import MARK, retired_by
from topicwarden.store.timestamps import SUFFIX, available, verify_tokens
from topicwarden.store.verify_entries import EntriesVerifying, span
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

    def add_segment(self, segment: SegmentLine) -> None:
        """Take the parts of a segment."""
        for kind, broker, hour, rows, digest, _, _ in segment.parts:
            folder = _written_folder(kind, broker, hour)
            packed = _PACKED.pack(segment.segment, int(rows), segment.entry, unhexlify(digest))
            found = self._recent.get(folder)
            if found is None:
                self.folders.add(folder)
                self._recent[folder] = bytearray(packed)
            else:
                found += packed
        self._count += len(segment.parts)
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


@lru_cache(maxsize=4096)
def _written_folder(kind: bytes, broker: bytes, hour: bytes) -> str:
    return _folder(Kind(kind.decode()), broker.decode(), int(hour))


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
    entries = EntriesVerifying(folder, info, digest, report, parts)
    yield from entries.run({one.size for one in (*kept.values(), *elsewhere.values())})
    tops, size = entries.tops, entries.tree.size
    report.entries = size
    report.checkpoints = _fitting(kept, tops, size, report)
    report.outside = _fitting(elsewhere, tops, size, report)
    if report.newest is None and report.segments:
        report.add([Found(Damage.MISSING, "log/checkpoint", "no checkpoint signs the log's entries")])
    if report.newest is not None and tops.get(report.newest.size) != report.newest.root:
        report.newest = None


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
            what = span("entry", "entries", entries, one.size - 1)
            message = f"it signs {one.size} entries, the log has {entries}: {what} missing"
            report.add([Found(Damage.MISSING, place, message, entry=entries)])
            break
        if roots.get(one.size, Frontier().root()) != one.root:
            later = len(ordered) - number - 1
            changed = span("entry", "entries", since, one.size - 1).rpartition(" ")[0]
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
    log = listed(folder / "log")
    for path in log.others:
        if path.name not in _KNOWN and not is_temporary(path):
            yield from strange(folder, path)
    for first in sorted(log.summaries - log.plain - log.packed):
        place = str(LogFile(folder / "log", first).summary.relative_to(folder))
        yield Found(Damage.INSERTED, place, "no file of the log has the entries that it is about")
    kept = folder / "log" / "checkpoints"
    for path in sorted(kept.iterdir()) if kept.is_dir() else ():
        if not (_CHECKPOINT.fullmatch(path.name) or _TOKEN.fullmatch(path.name) or is_temporary(path)):
            yield from strange(folder, path)


def strange(folder: Path, path: Path) -> Iterator[Found]:
    """Yield that something is no part of a store; nothing when it went away meanwhile, as what is retired does."""
    if os.path.lexists(path):
        yield Found(Damage.INSERTED, str(path.relative_to(folder)), "nothing that topicwarden writes has this name")
