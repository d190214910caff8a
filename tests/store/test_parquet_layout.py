"""What passes is laid out as we write it, whoever wrote it; everything else is refused and never harms."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.store.files import read_rows, write_rows
from topicwarden.store.model import Kind
from topicwarden.store.parquet_layout import LayoutError, read_layout
from topicwarden.store.rows import SCHEMAS, rows_table

NOTICES = SCHEMAS[Kind.NOTICES]


def notices(count: int) -> pa.Table:
    rows = [{"time_ns": n, "about": f"b{n % 3}", "what": "TW901", "document": f'{{"n":{n}}}'} for n in range(count)]
    return rows_table(Kind.NOTICES, 7, rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_rows(tmp_path / "x.parquet", notices(5))
    return tmp_path / "x.parquet"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("rows", [1, 2, 3000])
def test_every_kind_of_file_that_we_write_passes(tmp_path: Path, kind: Kind, rows: int) -> None:
    chance = np.random.default_rng(3)
    columns = []
    for field in SCHEMAS[kind]:
        if pa.types.is_string(field.type):
            columns.append(
                pa.array(
                    ["x" * 100_000, *(None if n % 7 == 3 else "ü" * (n % 50) for n in range(rows - 1))], field.type
                )
            )
        else:
            columns.append(pa.array(chance.integers(0, 200, rows)).cast(field.type))
    table = pa.table(columns, schema=SCHEMAS[kind])
    write_rows(tmp_path / "x.parquet", table)
    assert sum(group.rows for group in read_layout(tmp_path / "x.parquet", SCHEMAS[kind])) == rows


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "snappy"},
        {"write_page_index": True},
        {"data_page_version": "2.0"},
        {"sorting_columns": [pq.SortingColumn(1)]},
        {"bloom_filter_options": {"about": {"ndv": 10, "fpp": 0.1}}},
    ],
    ids=str,
)
def test_what_other_readers_may_believe_is_refused(path: Path, options: dict[str, object]) -> None:
    try:
        pq.write_table(notices(5), path, **{"compression": "zstd", "store_schema": False, **options})
    except TypeError:
        pytest.skip(f"pyarrow {pa.__version__} has no such option")
    with pytest.raises(LayoutError):
        read_layout(path, NOTICES)


def test_other_columns_and_other_types_are_refused(path: Path) -> None:
    with pytest.raises(LayoutError, match="its columns are"):
        read_layout(path, SCHEMAS[Kind.EVENTS])
    write_rows(path, notices(5).rename_columns(["segment", "time_ns", "about", "what", "other"]))
    with pytest.raises(LayoutError, match="other"):
        read_layout(path, NOTICES)
    write_rows(path, notices(5).set_column(1, "time_ns", pa.array(np.arange(5, dtype=np.uint64))))
    with pytest.raises(LayoutError, match="of other types"):
        read_layout(path, NOTICES)


def test_bytes_that_belong_to_nothing_are_refused(path: Path) -> None:
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for changed in (
        whole + b"x",
        whole[:footer] + b"hidden" + whole[footer:],
        whole[:-8] + b"\x00" + (len(whole) - 8 - footer + 1).to_bytes(4, "little") + b"PAR1",
        b"",
        b"PAR1PAR1PAR1",
    ):
        path.write_bytes(changed)
        with pytest.raises(LayoutError):
            read_layout(path, NOTICES)


def test_whatever_is_flipped_the_layout_is_refused_or_every_reader_still_reads_it_or_says_so(path: Path) -> None:
    whole, chance = path.read_bytes(), random.Random(4)
    rows = read_rows(path).to_pydict()
    passed = 0
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 1 << chance.randrange(8)
        path.write_bytes(changed)
        try:
            read_layout(path, NOTICES)
        except LayoutError:
            continue
        passed += 1
        try:
            ours = pq.ParquetFile(path).read().to_pydict()
            theirs = duckdb.read_parquet(str(path)).to_arrow_table().to_pydict()
        except (OSError, pa.ArrowException, UnicodeDecodeError, duckdb.Error):
            continue  # the pages' content is what digests are for
        assert (ours == rows) <= (theirs == rows), at
    assert passed < len(whole) / 2


@given(st.binary(max_size=400))
def test_nothing_is_a_file_by_accident(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"PAR1" + data + len(data).to_bytes(4, "little") + b"PAR1")
        file.flush()
        with pytest.raises(LayoutError):
            read_layout(Path(file.name), NOTICES)
