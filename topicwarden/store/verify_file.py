"""Reads a file of rows column by column, in bounded memory, and computes the digests of the segments in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from topicwarden.store.files import RowFile, is_of
from topicwarden.store.parquet_layout import Group, Statistics
from topicwarden.store.rows import SCHEMAS, SEGMENT, STREAMED, column_head, digest_column
from topicwarden.store.verify_model import Damage, Found

BATCH: Final = 1 << 18
"""Numbers of one column that are in memory at once."""
TEXTS: Final = 1 << 14
"""Texts of one column that are; and those of one segment."""
SMALL: Final = 1 << 14
"""Files of so many rows are read at once."""
_MAX_RUNS: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class Run:
    """Rows of a file, one behind the other, of one segment."""

    segment: int
    start: int
    rows: int

    def __str__(self) -> str:
        return f"row {self.start}" if self.rows == 1 else f"rows {self.start} to {self.start + self.rows - 1}"


class FileOfRows:
    """A file whose columns are read one after the other. Whatever is wrong with it raises what pyarrow raises."""

    def __init__(self, opened: pq.ParquetFile, groups: Sequence[Group], file: RowFile, place: str) -> None:
        """`groups`: the file's layout; `place`: its name within the store."""
        self.found: list[Found] = []
        """What is wrong with it and can be told without the log."""
        self._opened = opened
        self._file = file
        self._place = place
        self._groups = groups
        self._table = opened.read(use_threads=False) if sum(group.rows for group in groups) <= SMALL else None
        self._schema = SCHEMAS[file.kind]
        if not is_of(opened.schema_arrow, file.kind):
            raise ValueError(f"its columns are not of the types that those of {file.kind} are")

    def runs(self) -> list[Run]:
        """Return the runs of segments; names those that are out of order, or of a segment that is not in its name."""
        segments: list[int] = []
        starts: list[int] = []
        rows = 0
        for batch in self._column(SEGMENT):
            values = self._numbers(batch, SEGMENT)
            changes = np.flatnonzero(np.diff(values)) + 1
            if len(values) and (not segments or segments[-1] != values[0]):
                changes = np.concatenate([[0], changes])
            segments += values[changes].tolist()
            starts += (changes + rows).tolist()
            rows += len(values)
            if len(segments) > _MAX_RUNS:
                raise ValueError(f"its rows are in no order: more than {_MAX_RUNS} runs of segments")
        found = [
            Run(segment, start, end - start)
            for segment, start, end in zip(segments, starts, [*starts[1:], rows], strict=True)
        ]
        newest = -1
        for run in found:
            if not self._file.first <= run.segment <= self._file.last:
                self._say(Damage.INSERTED, f"{run} are of segment {run.segment}, which is not in the file's name", run)
            elif run.segment < newest:
                self._say(Damage.REORDERED, f"{run} of segment {run.segment} come after segment {newest}", run)
            newest = max(newest, run.segment)
        return found

    def digests(self, runs: Sequence[Run]) -> list[str]:
        """Return the digest of each run, in their order in the file, and check what the file says of its columns."""
        states = [sha256() for _ in runs]
        for name in self._schema.names[1:]:
            for run, state in zip(runs, states, strict=True):
                state.update(column_head(name, run.rows))
            _update(self._column(name), runs, states, streams=name in STREAMED)
        return [state.hexdigest() for state in states]

    def _column(self, name: str) -> Iterator[Any]:
        """Yield a column's values piece by piece; names a row group whose summary of them is wrong."""
        step = TEXTS if pa.types.is_string(self._schema.field(name).type) else BATCH
        start = 0
        for place, group in enumerate(self._groups):
            if self._table is not None:
                pieces = iter([self._table.column(name).slice(start, group.rows).combine_chunks()])
            else:
                batches = self._opened.iter_batches(step, row_groups=[place], columns=[name], use_threads=False)
                pieces = (batch.column(0) for batch in batches)
            summary = _Summary()
            for piece in pieces:
                summary.add(piece)
                yield piece
            if summary.rows != group.rows:
                raise ValueError(f"column {name} has {summary.rows} values in a row group of {group.rows}")
            wrong = summary.differs(group.statistics[name])
            if wrong:
                rows = Run(0, start, group.rows)
                message = f"{rows}: the file says {wrong} of column {name}; queries believe that and leave rows out"
                last = start + group.rows - 1
                self.found.append(Found(Damage.CHANGED, self._place, message, first_row=start, last_row=last))
            start += group.rows

    def _numbers(self, piece: Any, name: str) -> npt.NDArray[Any]:
        if piece.null_count:
            raise ValueError(f"a row has no {name}")
        numbers: npt.NDArray[Any] = piece.to_numpy(zero_copy_only=False)
        return numbers

    def _say(self, what: Damage, message: str, run: Run) -> None:
        last = run.start + run.rows - 1
        self.found.append(Found(what, self._place, message, run.segment, None, run.start, last))


class _Summary:
    """What a row group's statistics should say of a column."""

    def __init__(self) -> None:
        self.rows = 0
        self._nulls = 0
        self._least: Any = None
        self._most: Any = None

    def add(self, piece: Any) -> None:
        self.rows += len(piece)
        self._nulls += piece.null_count
        if pa.types.is_string(piece.type):
            bounds = pc.min_max(piece.cast(pa.binary())).as_py()
            least, most = bounds["min"], bounds["max"]
        elif len(piece) == piece.null_count:
            return
        else:
            numbers = (piece.drop_null() if piece.null_count else piece).to_numpy(zero_copy_only=False)
            if numbers.dtype.kind == "f":
                numbers = numbers[~np.isnan(numbers)]
                if not len(numbers):
                    return
            least, most = numbers.min().item(), numbers.max().item()
        if least is not None:
            self._least = least if self._least is None else min(self._least, least)
            self._most = most if self._most is None else max(self._most, most)

    def differs(self, said: Statistics | None) -> str:
        """Return what statistics wrongly say; '' when they are true, or there are none."""
        if said is None:
            return ""
        if said.nulls is not None and said.nulls != self._nulls:
            return f"there are {said.nulls} without a value, not {self._nulls},"
        for value, is_least, exact in said.bounds:
            true = self._least if is_least else self._most
            if true is None or not (value == true or (not exact and (value < true) == is_least)):
                return f"the {'least' if is_least else 'greatest'} is {value!r}, not {true!r},"
        return ""


def _update(pieces: Iterator[Any], runs: Sequence[Run], states: Sequence[Any], *, streams: bool) -> None:
    """Add a column to the digest of each run; `streams`: a run's values may be added piece by piece."""
    start = place = 0
    waiting: list[Any] = []
    for piece in pieces:
        end = start + len(piece)
        raw, width = _bytes(piece) if streams else (None, 0)
        while place < len(runs) and runs[place].start < end:
            run, state = runs[place], states[place]
            first, last = max(run.start, start) - start, min(run.start + run.rows, end) - start
            if raw is not None:
                state.update(raw[first * width : last * width])
            else:
                waiting.append(piece.slice(first, last - first))
            if run.start + run.rows > end:
                break
            if waiting:
                digest_column(state, waiting[0] if len(waiting) == 1 else pa.concat_arrays(waiting))
                waiting = []
            place += 1
        start = end


def _bytes(piece: Any) -> tuple[memoryview, int]:
    if piece.null_count:
        raise ValueError("a row has no value where each has one")
    values = piece.to_numpy(zero_copy_only=False)
    values = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    return values.view(np.uint8).data, values.dtype.itemsize
