"""A report's tables as CSV files that a spreadsheet opens without harm: a folder, or one `.zip`.

A cell of text whose first character could begin a formula, or is an apostrophe, gets an apostrophe before it (OWASP,
"CSV Injection"); whoever reads the files with a program takes one leading apostrophe off again. What would act on a
terminal, hide, or imitate another name is escaped as everywhere in topicwarden's output (docs/output.md), so that each
row is one line. Numbers are plain, times ISO 8601 in UTC, several names in a cell are separated by ` | `.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.report.model import Cell, Kind, Report, Table

DANGEROUS: Final = frozenset("=+-@\t\r\n'＝＋－＠")
"""First characters that get an apostrophe; spreadsheets take the wide forms for the narrow ones."""
SEPARATOR: Final = " | "
README: Final = "README.txt"
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""The same report is the same archive, whenever it is written."""


def files(report: Report) -> Iterator[tuple[str, str]]:
    """Yield each file's name and text."""
    yield README, _readme(report)
    for table in report.tables():
        yield f"{table.id}.csv", table_text(table)


def table_text(table: Table) -> str:
    """Return a table as CSV (RFC 4180)."""
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_cell(cell, column.kind) for column, cell in zip(table.columns, row, strict=True)])
    return stream.getvalue()


def harmless(text: str) -> str:
    """Return text that no spreadsheet takes for a formula and no terminal for a command; reversible."""
    text = visible(text)
    return f"'{text}" if text[:1] in DANGEROUS and text else text


def plain(cell: str) -> str:
    """Return what `harmless` was given, but for the escapes of `visible`."""
    return cell.removeprefix("'")


def write_folder(report: Report, folder: Path) -> None:
    """Write the files into a folder that is there; raises OSError."""
    for name, text in files(report):
        (folder / name).write_bytes(text.encode())


def write_zip(report: Report, path: Path) -> None:
    """Write the files into one archive; raises OSError."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files(report):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), text.encode(), zipfile.ZIP_DEFLATED)


def _cell(cell: Cell, kind: Kind) -> str | int | float:
    if cell is None:
        return ""
    if isinstance(cell, tuple):
        return harmless(SEPARATOR.join(cell))
    if isinstance(cell, str):
        return harmless(cell)
    if kind is Kind.TIME and isinstance(cell, int):
        return wording.timestamp(cell, 9)
    return cell


def _readme(report: Report) -> str:
    period = report.period
    lines = [
        f"topicwarden {report.version}: tables of a report made {wording.timestamp(report.generated_ns)}",
        f"on {wording.timestamp(period.from_ns)} to {wording.timestamp(period.to_ns)}",
        "",
        "UTF-8, RFC 4180, first row: names of the columns. Times are ISO 8601, UTC; what is not known is empty.",
        f"Several names in one cell are separated by {SEPARATOR!r}.",
        "A text that begins with one of = + - @ ' has an apostrophe before it, so that no spreadsheet runs it;",
        "a program takes one leading apostrophe off. Characters that act on terminals stand as \\u{1b}.",
        "",
        *(
            f"{table.id}.csv: {table.title} ({wording.number(len(table.rows))} of {wording.number(table.total)} rows)"
            for table in report.tables()
        ),
    ]
    return "".join(f"{line}\r\n" for line in lines)
