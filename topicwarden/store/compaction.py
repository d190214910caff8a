"""Merges the many small files that sealing leaves into few large ones, a little at a time, between two seals.

Rows keep their order and their segments' numbers, so every digest in the log still holds. Crash-safe as sealing is: the
merged file is whole before it has its name; then the small ones go. Who reads in between finds both, and by their names
knows the small ones to be within the large one.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from topicwarden.store.files import (
    HOUR_NS,
    ROW_GROUP,
    RowFile,
    RowFileWriter,
    file_name,
    files_in,
    folder_of,
    hour_folders,
    open_rows,
    read_rows,
)
from topicwarden.store.log import sync_folder
from topicwarden.store.model import Kind
from topicwarden.store.parquet_layout import LayoutError, read_layout
from topicwarden.store.rows import SCHEMAS, SEGMENT, digest_of

SMALL_FILES: Final = 256
"""So many files of one segment each are merged at once, while their hour still goes on."""
SETTLED_NS: Final = 600_000_000_000
"""How long after its end an hour is merged as a whole: rows come late."""
MAX_FILE: Final = 1 << 30
"""Bytes that a merged file may have."""
WORTH: Final = 4
"""A file is merged with those behind it unless it is this many times as large as all of them: late rows of an hour do
not make all of it be written anew, and still only about log4 of their number of files remain."""
GROUP_BYTES: Final = 128 << 20
"""Bytes of rows, unpacked, that a row group has at most: documents may be long."""
FILES_A_STEP: Final = 32

PartKey = tuple[Kind, str, int]
"""Kind, broker, hour."""


class Compactor:
    """Finds what to merge and merges it, one bounded step at a call. Not for two threads."""

    def __init__(self, root: Path) -> None:
        self.merged = 0
        """Files that are no more because their rows are in a merged one."""
        self.damaged: set[Path] = set()
        """Folders with a file that cannot be read: they are left as they are, for `verify` to name."""
        self._root = root
        self._files: dict[PartKey, tuple[int, int]] = {}
        """Where there may be something to do: how many files came since it was last done, and when the last one did."""
        self._begin: Iterator[Path] = (folder for kind in Kind for folder in hour_folders(root, kind))
        self._begun = False
        self._work: Iterator[None] | None = None
        self._writing: RowFileWriter | None = None

    def sealed(self, key: PartKey, now_ns: int) -> None:
        """Note that a segment left a file in the folder of a kind, broker and hour."""
        if folder_of(self._root, *key) not in self.damaged:
            self._files[key] = (self._files.get(key, (0, 0))[0] + 1, now_ns)

    def step(self, now_ns: int) -> bool:
        """Do a little; returns whether there is more to do at once. Raises OSError when files cannot be written."""
        if not self._begun:
            self._look_around()
            return True
        if self._work is None:
            key = next((key for key in self._files if self._due(key, now_ns)), None)
            if key is None:
                return False
            self._work = self._tidy(key, over=self._over(key, now_ns))
        try:
            next(self._work)
        except StopIteration:
            self._work = None
        except BaseException:
            self.abandon()
            raise
        return True

    def abandon(self) -> None:
        """Give up what is being merged: nothing of it remains, and nothing is lost."""
        self._work = None
        if self._writing is not None:
            self._writing.abandon()
            self._writing = None

    def _look_around(self) -> None:
        """Look at one folder from before we began."""
        folder = next(self._begin, None)
        if folder is None:
            self._begun = True
            return
        kind = Kind(folder.relative_to(self._root).parts[0])
        files = files_in(folder, kind)
        if len(files) > 1:
            key = (kind, files[0].broker, files[0].hour)
            if folder_of(self._root, *key) == folder:
                count, last = self._files.get(key, (0, 0))
                # Those that came since we began are among them.
                self._files[key] = (max(count, len(files)), last)

    def _over(self, key: PartKey, now_ns: int) -> bool:
        return (key[2] + 1) * HOUR_NS + SETTLED_NS <= now_ns

    def _due(self, key: PartKey, now_ns: int) -> bool:
        count, last = self._files[key]
        # The clock may have been set back since.
        quiet = not 0 <= now_ns - last < SETTLED_NS
        return count >= SMALL_FILES or (quiet and self._over(key, now_ns))

    def _tidy(self, key: PartKey, *, over: bool) -> Iterator[None]:
        """Merge what is worth it in one folder."""
        folder = folder_of(self._root, *key)
        count, last = self._files.pop(key)
        if not over:
            self._files[key] = (0, last)
        try:
            files = files_in(folder, key[0])
            files = yield from self._without_merged(files)
            for group in worth_merging([(file, file.path.stat().st_size) for file in files], over=over):
                yield from self._merge(folder, group)
        except FileNotFoundError:
            return  # retired meanwhile
        except (pa.ArrowException, LayoutError, _DamagedError):
            self._leave(key, folder)
        except OSError as error:
            if error.errno is None:  # pyarrow's, of what it cannot read
                self._leave(key, folder)
                return
            self._files[key] = (count, last)
            raise

    def _leave(self, key: PartKey, folder: Path) -> None:
        if self._writing is not None:
            self._writing.abandon()
            self._writing = None
        self._files.pop(key, None)
        self.damaged.add(folder)

    def _merge(self, folder: Path, group: Sequence[RowFile]) -> Iterator[None]:
        target = folder / file_name(group[0].first, max(file.last for file in group))
        self._writing = writing = RowFileWriter(target, SCHEMAS[group[0].kind])
        waiting: list[pa.Table] = []
        rows = size = 0
        for number, file in enumerate(group):
            # What is damaged is left as it is; and nothing of it may end this process.
            read_layout(file.path, SCHEMAS[file.kind])
            with open_rows(file.path) as source:
                for place in range(source.num_row_groups):
                    table = source.read_row_group(place)
                    waiting.append(table)
                    rows, size = rows + len(table), size + table.nbytes
                    while rows >= ROW_GROUP or size >= GROUP_BYTES:
                        whole = pa.concat_tables(waiting)
                        writing.write(whole.slice(0, ROW_GROUP))
                        rest = whole.slice(ROW_GROUP)
                        waiting, rows, size = [rest], len(rest), rest.nbytes
                        yield
            if number % FILES_A_STEP == FILES_A_STEP - 1:
                yield
        if rows:
            writing.write(pa.concat_tables(waiting))
        writing.finish()
        self._writing = None
        for file in group:
            file.path.unlink()
        sync_folder(folder)
        self.merged += len(group)
        yield

    def _without_merged(self, files: Sequence[RowFile]) -> Generator[None, None, list[RowFile]]:
        """Delete files whose rows are in a merged one, as a crash may leave them; returns the others."""
        kept: list[RowFile] = []
        synced = False
        for file in files:
            if kept and file.last <= kept[-1].last:
                yield
                # Its name says so; whoever deletes evidence looks.
                if not _holds(kept[-1].path, file):
                    raise _DamagedError
                if not synced:
                    # Whoever merged them may have died before the merged one's name was on disk.
                    sync_folder(file.path.parent)
                    synced = True
                file.path.unlink()
                self.merged += 1
            elif kept and file.first <= kept[-1].last:
                raise _DamagedError
            else:
                kept.append(file)
        return kept


class _DamagedError(Exception):
    """A file does not hold what its name says."""


def worth_merging(files: Sequence[tuple[RowFile, int]], *, over: bool) -> Iterator[list[RowFile]]:
    """Yield groups of neighbours to merge, from files in their order with their sizes in bytes.

    While their hour goes on, that is what one segment each left; once it is over, all, up to `MAX_FILE`.
    """
    group: list[tuple[RowFile, int]] = []
    for file, size in files:
        full = size > MAX_FILE // 2
        late = not over and file.first != file.last
        if full or late or sum(one for _, one in group) + size > MAX_FILE:
            yield from _worth(group)
            group = []
        if not full and not late:
            group.append((file, size))
    yield from _worth(group)


def _worth(group: Sequence[tuple[RowFile, int]]) -> Iterator[list[RowFile]]:
    behind = sum(size for _, size in group)
    for place, (_, size) in enumerate(group[:-1]):
        behind -= size
        if size <= WORTH * behind:
            yield [file for file, _ in group[place:]]
            return


def _holds(large: Path, small: RowFile) -> bool:
    """Whether a file has all the rows of a smaller one."""
    for path in (large, small.path):
        read_layout(path, SCHEMAS[small.kind])
    rows = read_rows(small.path)
    numbers = pc.unique(rows.column(SEGMENT))
    found: list[pa.Table] = []
    with open_rows(large) as source:
        for place in range(source.num_row_groups):
            if pc.any(pc.is_in(source.read_row_group(place, [SEGMENT]).column(0), numbers)).as_py():
                table = source.read_row_group(place)
                found.append(table.filter(pc.is_in(table.column(SEGMENT), numbers)))
    if not found:
        return False
    both = pa.concat_tables(found)
    return bool(both.column(SEGMENT).equals(rows.column(SEGMENT))) and digest_of(both) == digest_of(rows)
