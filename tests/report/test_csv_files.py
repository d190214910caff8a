"""CSV files open in a spreadsheet without harm, and a program reads back what was written."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.sample_report import sample_report
from tests.report.samples import HOSTILE
from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.report import csv_files
from topicwarden.report.csv_files import DANGEROUS, SEPARATOR, harmless, plain
from topicwarden.report.model import Kind, Report, Table


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return sample_report(tmp_path_factory.mktemp("hostile"), HOSTILE)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def test_no_cell_of_text_begins_a_formula_ends_a_line_or_acts_on_a_terminal(report: Report) -> None:
    for _, text in list(csv_files.files(report))[1:]:
        assert not [letter for letter in text.replace("\r\n", "") if not letter.isprintable()]
        for row in read(text)[1:]:
            assert not [cell for cell in row if cell[:1] in DANGEROUS - {"'"} and not cell.lstrip("-").isdigit()]


def test_every_cell_reads_back(report: Report) -> None:
    for table in report.tables():
        rows = read(csv_files.table_text(table))
        assert rows[0] == [column.key for column in table.columns]
        assert len(rows) == len(table.rows) + 1
        for row, cells in zip(table.rows, rows[1:], strict=True):
            for value, column, cell in zip(row, table.columns, cells, strict=True):
                if value is None:
                    assert cell == ""
                elif column.kind is Kind.TIME:
                    assert isinstance(value, int)
                    assert cell == wording.timestamp(value, 9)
                elif isinstance(value, int):
                    assert cell == str(value)
                else:
                    text = SEPARATOR.join(value) if isinstance(value, tuple) else str(value)
                    assert plain(cell) == visible(text), (table.id, column.key)


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_text_is_made_harmless_and_back(text: str) -> None:
    cell = harmless(text)
    assert plain(cell) == visible(text)
    assert cell[:1] not in DANGEROUS - {"'"}


@pytest.mark.parametrize("text", HOSTILE)
def test_known_attacks_are_harmless(text: str) -> None:
    assert harmless(text)[:1] not in DANGEROUS - {"'"}


def test_a_folder_and_an_archive_hold_the_same_files_and_name_them(report: Report, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    csv_files.write_folder(report, tmp_path / "folder")
    csv_files.write_zip(report, tmp_path / "a.zip")
    csv_files.write_zip(report, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        inside = {name: archive.read(name) for name in archive.namelist()}
    assert inside == {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    told = inside[csv_files.README].decode()
    tables: list[Table] = list(report.tables())
    assert len(inside) == len(tables) + 1
    for table in tables:
        assert f"{table.id}.csv: {table.title}" in told
