"""A store's sealed rows as SQL views, straight on its files; `docs/query.md` documents each view.

The connection can read the store's files and nothing else: no other file, no network, no extension, no Python variable,
and its settings are locked. `execute` takes statements that read and no others.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import duckdb
import pyarrow as pa

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.store.files import HOUR_NS, RowFile
from topicwarden.store.log import MAX_LINE, Log
from topicwarden.store.model import Entry, Kind
from topicwarden.store.reader import Store
from topicwarden.store.rows import SCHEMAS, shown
from topicwarden.store.views_sql import INNER, LOG_PART, MACROS, TABLES, VIEWS

DEFAULT_MEMORY: Final = 2 << 30
"""Bytes of memory a query may take before it goes on on disk."""
_TYPES: Final[Mapping[str, str]] = {
    "uint8": "UTINYINT",
    "uint32": "UINTEGER",
    "uint64": "UBIGINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "string": "VARCHAR",
}
_OF_FILE: Final = re.compile(r"Failed to read file|Parquet|\.parquet'")


@dataclass(frozen=True, slots=True)
class Scope:
    """Of a store, what a query is about; None: everything."""

    first_ns: int | None = None
    last_ns: int | None = None
    """Both ends included."""


class Views:
    """A connection to a store's views; a context manager."""

    def __init__(
        self,
        store: Store,
        scope: Scope | None = None,
        *,
        memory: int = DEFAULT_MEMORY,
        threads: int | None = None,
        spill: Path | None = None,
    ) -> None:
        """`memory` in bytes; `threads`: None: one a core; `spill`: the folder for what does not fit.

        Raises ObservationError when there is no room for that folder, or a file's columns cannot be read.
        """
        try:
            str(store.folder).encode()
        except UnicodeEncodeError as error:
            raise ObservationError(
                Problem("a folder whose name is not UTF-8", str(store.folder), hint="give it another name")
            ) from error
        self.store = store
        self._scope = scope or Scope()
        try:
            self._spill = Path(tempfile.mkdtemp(prefix="topicwarden-query-", dir=spill))
        except OSError as error:
            raise ObservationError(
                Problem(f"no room for what does not fit into memory: {error.strerror}", str(spill or "TMPDIR"))
            ) from error
        config: dict[str, Any] = {
            "memory_limit": f"{memory >> 20}MiB",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
            "temp_directory": str(self._spill),
        }
        if threads is not None:
            config["threads"] = str(threads)
        self.connection = duckdb.connect(config=config)
        try:
            self._build()
        except (duckdb.Error, RuntimeError) as error:
            self.close()
            if isinstance(_failure(error), duckdb.InterruptException):
                raise KeyboardInterrupt from error
            if isinstance(error, RuntimeError):
                raise
            # The statements are ours: it is a file whose columns are not there any more.
            raise _damaged(error) from error
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        files = {kind: self._files(kind) for kind in Kind}
        logs = [path for _, path in Log(self.store.folder / "log").files]
        readable = [file.path for found in files.values() for file in found] + logs
        self.connection.execute(f"SET allowed_paths = {_list(map(str, readable))}")
        self.connection.execute("SET enable_external_access = false")
        # DuckDB 2.0.1 draws it on stdout, also into a pipe, once a statement takes two seconds.
        self.connection.execute("SET enable_progress_bar = false")
        self.connection.execute("SET lock_configuration = true")
        self.connection.execute("CREATE SCHEMA stored")
        for macro in MACROS:
            self.connection.execute(macro)
        for kind, found in files.items():
            self.connection.execute(f"CREATE VIEW stored.{kind.value} AS {self._rows(kind, found)}")
        for name, columns in TABLES.items():
            self.connection.execute(f"CREATE TABLE stored.{name} ({columns})")
        self._fill("opened", _opened(self.store.opened))
        self._fill("runs", _runs(self.store.opened))
        self._fill("gaps", self._gaps())
        self.connection.execute(f"CREATE VIEW stored.log AS {_log(logs)}")
        for name, sql in INNER.items():
            self.connection.execute(f"CREATE VIEW {name} AS {sql}")
        for name, view in VIEWS.items():
            self.connection.execute(f"CREATE VIEW {name} AS {view.sql}")

    def _files(self, kind: Kind) -> list[RowFile]:
        first, last = self._scope.first_ns, self._scope.last_ns
        return [
            file
            for file in self.store.files(kind)
            if (first is None or file.hour >= first // HOUR_NS) and (last is None or file.hour <= last // HOUR_NS)
        ]

    def _rows(self, kind: Kind, files: Sequence[RowFile]) -> str:
        """Return the SQL of a kind's rows: sealed, and of the time asked for."""
        names = SCHEMAS[kind].names
        if not files:
            empty = ", ".join(f"NULL::{_TYPES[str(SCHEMAS[kind].field(name).type)]} AS {_name(name)}" for name in names)
            return f"SELECT {empty}, NULL::BIGINT AS row WHERE false"
        tests = []
        if any(file.last > self.store.sealed for file in files):
            tests.append(f"segment <= {self.store.sealed}")
        if "time_ns" in names:
            first, last = self._scope.first_ns, self._scope.last_ns
            tests += [f"time_ns >= {first}"] if first is not None else []
            tests += [f"time_ns <= {last}"] if last is not None else []
        columns = ", ".join(map(_name, names))
        paths = _list(str(file.path) for file in files)
        where = f" WHERE {' AND '.join(tests)}" if tests else ""
        read = f"read_parquet({paths}, hive_partitioning = false, file_row_number = true)"
        return f"SELECT {columns}, file_row_number AS row FROM {read}{where}"  # noqa: S608 - names of ours, paths quoted

    def _gaps(self) -> list[tuple[Any, ...]]:
        """Return the gaps of the time asked for."""
        first, last = self._scope.first_ns, self._scope.last_ns
        rows = []
        for entry in self.store.gaps:
            facts = entry.facts or {}
            since, until = _whole(facts.get("from_ns")), _whole(facts.get("until_ns"))
            if (first is None or until is None or until >= first) and (last is None or since is None or since <= last):
                rows.append((since, until, entry.time_ns, _whole(facts.get("lost")), shown(str(facts.get("reason")))))
        return rows

    def _fill(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self.connection.executemany(f"INSERT INTO stored.{table} VALUES ({places})", rows)  # noqa: S608 - ours

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> duckdb.DuckDBPyConnection:
        """Run one statement that reads, and return the connection to fetch from.

        Raises ConfigurationError for what is wrong with the statement, ObservationError for what is wrong with the
        store, and duckdb.InterruptException when `interrupt` was called.
        """
        _only_reads(sql)
        with failures():
            return self.connection.execute(sql, None if parameters is None else dict(parameters))

    def reader(self, sql: str, rows: int) -> pa.RecordBatchReader:
        """Run one statement and return its rows in record batches of so many as they come; raises as `execute` does.

        What goes wrong later is raised while they are read: see `failures`.
        """
        _only_reads(sql)
        with failures():
            return self.connection.sql(sql).to_arrow_reader(rows)

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Run a statement and return all of its rows; raises as `execute` does."""
        with failures():
            return self.execute(sql, parameters).fetchall()

    def interrupt(self) -> None:
        """End the statement that runs, if one does; from any thread or a signal's handler."""
        with suppress(duckdb.Error):  # it was closed
            self.connection.interrupt()

    def close(self) -> None:
        """Close the connection, and remove what was put on disk."""
        self.connection.close()
        shutil.rmtree(self._spill, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def failures() -> Iterator[None]:
    """Turn DuckDB's errors into ours while a statement runs or its rows are fetched; an interruption stays one."""
    try:
        yield
    except (duckdb.Error, RuntimeError, OSError) as error:
        told = _failure(error)
        if told is error:
            raise
        raise told from error


def _failure(error: Exception) -> Exception:
    """Return what an error means; what is not DuckDB's comes back."""
    first = _first_line(error)
    # What goes wrong while rows are fetched is an OSError without a number, in DuckDB's words.
    of_rows = type(error) is OSError and error.errno is None
    if isinstance(error, duckdb.InterruptException):
        return error
    # The former is what duckdb 2.0.1 makes of whatever a signal's handler raised while there was no first row yet.
    if str(error) == "Query interrupted" or (of_rows and first.startswith("INTERRUPT Error")):
        return duckdb.InterruptException(str(error))
    if not of_rows and not isinstance(error, duckdb.Error):
        return error
    if isinstance(error, duckdb.OutOfMemoryException) or (of_rows and first.startswith("Out of Memory Error")):
        return ConfigurationError(
            Problem(f"not enough memory: {first}", hint="allow more with --memory, or ask for less at once")
        )
    # What Parquet's own reader says of damage has no class.
    of_file = type(error) is duckdb.Error or isinstance(error, duckdb.IOException)
    if of_file or (of_rows and first.startswith("IO Error")) or _OF_FILE.search(first):
        return _damaged(error)
    return _wrong(error)


def _damaged(error: Exception) -> ObservationError:
    return ObservationError(
        Problem(
            f"a file of the store cannot be read: {_first_line(error)}",
            hint="ask again if the store is being compacted; else `topicwarden verify` says what is damaged",
        )
    )


def _only_reads(sql: str) -> None:
    """Raise ConfigurationError unless it is one statement that only reads."""
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise _wrong(error) from error
    if len(statements) != 1:
        raise ConfigurationError(Problem(f"{len(statements)} statements", hint="ask one question at a time"))
    if statements[0].type is not duckdb.StatementType.SELECT:
        kind = str(statements[0].type).rsplit(".", 1)[-1]
        raise ConfigurationError(
            Problem(f"a statement that does not only read ({kind})", hint="begin with SELECT, WITH, FROM or DESCRIBE")
        )


def _wrong(error: Exception) -> ConfigurationError:
    text = str(error)
    if "DuckDB" in text and "INTERNAL" in text:
        text = _first_line(error)
    first, _, rest = text.partition("\n")
    hint = "`topicwarden query DIR --views` lists the views and their columns"
    more = [line for line in rest.split("\n") if line.strip()]
    return ConfigurationError(Problem(first, hint="\n".join([*more[:6], hint])))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _opened(entries: Sequence[Entry]) -> list[tuple[Any, ...]]:
    """Return what writers said they watched, a row a source."""
    rows: list[tuple[Any, ...]] = []
    for run, entry in enumerate(entries):
        facts = entry.facts or {}
        about = facts.get("about")
        about = about if isinstance(about, Mapping) else {}
        sources = about.get("sources")
        head = (run, entry.time_ns, _first_segment(entry), _text(facts.get("version")), _text(about.get("command")))
        known = [source for source in sources if isinstance(source, dict)] if isinstance(sources, list) else []
        for source in known or [{}]:
            name, of_host = _text(source.get("broker")), source.get("host") is True
            spots = source.get("blind_spots")
            told = (
                [shown(str(one.get("what"))) for one in spots if isinstance(one, dict)]
                if isinstance(spots, list)
                else []
            )
            rows.append(
                (
                    *head,
                    _text(source.get("title")),
                    None if of_host else name,
                    _text(source.get("kind")),
                    name if of_host else None,
                    _text(source.get("runs_on")) or None,
                    told,
                )
            )
    return rows


def _runs(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Return the first segment of each run; of runs that sealed nothing, only the last one's counts."""
    return [(run, first) for first, run in {_first_segment(entry): run for run, entry in enumerate(entries)}.items()]


def _first_segment(entry: Entry) -> int:
    return 0 if entry.segment is None else entry.segment + 1


def _log(paths: Sequence[Path]) -> str:
    """Return the SQL of the log's entries. A line that is still being written is none."""
    read = (
        f"read_csv({_list(map(str, paths))}, columns = {{'line': 'VARCHAR'}}, auto_detect = false, header = false, "
        f"delim = chr(1), quote = '', escape = '', comment = '', max_line_size = {2 * MAX_LINE})"
    )
    return (
        f"SELECT unnest(json_transform(mended(line), '{LOG_PART}')) FROM {read} "  # noqa: S608 - paths are quoted
        "WHERE json_valid(mended(line))"
    )


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(_quoted(text) for text in texts) + "]::VARCHAR[]"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _name(name: str) -> str:
    return f'"{name}"'


def _text(value: object) -> str | None:
    return None if value is None else shown(str(value))


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
