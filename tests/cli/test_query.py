"""`query` as a user meets it: real traffic, hostile names, a terminal, a pipe, a spreadsheet."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.cli.program import PROGRAM, broker_with_plugin, environment, run, watch
from tests.cli.traffic import publish, subscribe
from topicwarden.cli.query import fitted, inert, memory_named
from topicwarden.errors import ConfigurationError
from topicwarden.events import Action, Certainty, Client, EventBuilder, Outcome, Resource, ResourceKind, Tables
from topicwarden.output.escape import MIN_COLUMNS
from topicwarden.store.notes import Signer
from topicwarden.store.views_sql import VIEWS
from topicwarden.store.writer import StoreWriter

START = 1_795_427_880_123_456_789
HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1+1",
    "'=1",
    "\x1b]0;owned\x07\x1b[2J",
    'a\r\nb,c"d',
    "\u202egnp.exe",
    "<script>alert(1)</script>",
    "x" * 300,
    "half \udcff",
    "plant/ä/€/😀",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with hostile names in it."""
    path = tmp_path_factory.mktemp("query") / "store"
    builder = EventBuilder(Tables())
    for number, name in enumerate(HOSTILE):
        client = Client("plant", "mqtt", f"s-{number}", name)
        topic = Resource(ResourceKind.TOPIC, name)
        builder.add(START + number, Action.PUBLISH, client, topic, Outcome.DENIED, Certainty.EXACT, size=number)
    with StoreWriter(path, Signer.generate("test")) as writer:
        writer.write(builder.take())
    return path


SQL = "select name, user, size, time, entropy from events order by size"


def test_what_a_broker_saw_can_be_asked_while_it_is_watched_and_afterwards(tmp_path: Path) -> None:
    store, key = tmp_path / "store", tmp_path / "key"
    key.write_text(Signer.generate("test").encoded())
    key.chmod(0o600)
    with (
        broker_with_plugin(tmp_path) as (broker, ring),
        watch("--no-state", "--store", store, "--store-key", key, f"ring:{ring}") as live,
    ):
        live.wait_for("cannot see")
        publish(broker.port, "sensor-1", "plant/=1/telemetry", repeat=3)
        subscribe(broker.port, "sensor-2", "#")
        live.wait_for("TW240")
        sql = "select client_id, publishes, subscribes from clients where client_id like 'sensor%' order by 1"
        deadline = time.monotonic() + 20
        while (now := run("query", store, sql, "-f", "csv")).stdout.count("\r\n") < 3 and time.monotonic() < deadline:
            pass
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(20) in (0, 1)
    assert now.stdout.splitlines() == ["client_id,publishes,subscribes", "sensor-1,3,0", "sensor-2,0,1"]
    found = run("query", store, "select code, client_id from findings", "-f", "jsonl")
    assert {"code": "TW240", "client_id": "sensor-2"} in [json.loads(line) for line in found.stdout.splitlines()]
    assert (
        run("query", store, "--to", "2020-01-01", "select count(*) n from events", "-f", "jsonl").stdout == '{"n":0}\n'
    )


def test_no_name_acts_on_a_terminal_or_breaks_a_line_in_a_pipe(folder: Path) -> None:
    done = run("query", folder, SQL)
    lines = done.stdout.splitlines()
    assert len(lines) == len(HOSTILE) + 1
    assert lines[0] == "name\tuser\tsize\ttime\tentropy"
    assert all(line.count("\t") == 4 for line in lines)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202e]", done.stdout)
    assert lines[7].startswith("\\u{1b}]0;owned\\u{7}")
    assert lines[1].endswith("\t0\t2026-11-23T09:58:00.123456789Z\tNULL")


def test_no_cell_of_csv_is_a_formula_and_every_name_can_be_read_back(folder: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "query", str(folder), SQL, "-f", "csv"], capture_output=True, timeout=60, env=environment()
    )
    rows = list(csv.reader(io.StringIO(done.stdout.decode(), newline="")))
    assert len(rows) == len(HOSTILE) + 1
    for name, *_ in rows[1:]:
        assert not name.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))
    assert [row[0] for row in rows[1:5]] == ["'=cmd|' /C calc'!A0", "'+1+1", "'-2+3", "'@SUM(1)"]
    assert rows[-1][0] == "plant/ä/€/😀"
    assert rows[2][2] == "1"


@given(st.text())
def test_a_cell_is_never_a_formula_and_one_apostrophe_is_all_that_is_added(text: str) -> None:
    cell = inert(text)
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))
    assert inert("'" + text.lstrip("'")).startswith("''")
    assert inert(-5) == "-5"


def test_json_lines_are_ascii_and_hold_the_names(folder: Path) -> None:
    done = run("query", folder, SQL, "--format", "jsonl")
    assert done.stdout.isascii()
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["name"] for row in rows if "half" not in row["name"]] == [
        name for name in HOSTILE if "half" not in name
    ]
    assert rows[0] == {
        "name": HOSTILE[0],
        "user": HOSTILE[0],
        "size": 0,
        "time": "2026-11-23T09:58:00.123456789Z",
        "entropy": None,
    }
    kinds = run(
        "query",
        folder,
        "-f",
        "jsonl",
        "select 1 a, 2 a, sum(size) s, [max(time)] l, {'k': 1.5::decimal(4, 2)} d, "
        "'nan'::float n, 'ab'::blob b, interval 3 day i, date '2026-01-01' t from events",
    )
    assert json.loads(kinds.stdout) == {
        "a": 1,
        "a_1": 2,
        "s": 78,
        "l": ["2026-11-23 09:58:00.123456801"],
        "d": {"k": 1.5},
        "n": None,
        "b": "6162",
        "i": "MonthDayNano(months=0, days=3, nanoseconds=0)",
        "t": "2026-01-01",
    }


def on_terminal(width: int, *arguments: str | Path) -> list[str]:
    """Run the program on a terminal of this width and return what it shows there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    process = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=theirs, stderr=subprocess.DEVNULL, env=environment(TERM="xterm")
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 1 << 16)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode().split("\r\n")[:-1]


@pytest.mark.parametrize("width", [80, 110])
def test_on_a_terminal_a_table_fits_and_lines_its_columns_up(folder: Path, width: int) -> None:
    lines = on_terminal(width, "query", folder, "select name, size, time from events order by size")
    assert len(lines) == len(HOSTILE) + 2
    assert max(map(cell_len, lines)) <= width
    assert {line.split()[-1][:10] for line in lines[2:]} == {"2026-11-23"}
    assert "…" in lines[2 + HOSTILE.index("x" * 300)]


def test_what_does_not_fit_is_shown_as_a_list(folder: Path) -> None:
    lines = on_terminal(60, "query", folder, "select * from events order by size limit 1")
    assert lines[0] == "-- row 1"
    assert lines[1].split() == ["time", "2026-11-23T09:58:00.123456789Z"]
    assert len(lines) == 1 + len(VIEWS["events"].columns)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.booleans()), max_size=12),
    st.integers(40, 200),
)
def test_columns_fit_or_are_said_not_to(wanted: list[tuple[int, bool]], width: int) -> None:
    widths = fitted([one for one, _ in wanted], [rigid for _, rigid in wanted], width)
    least = sum(one if rigid else min(one, MIN_COLUMNS) for one, rigid in wanted) + 2 * (len(wanted) - 1)
    assert (widths is None) == (bool(wanted) and least > width)
    if widths:
        assert sum(widths) + 2 * (len(widths) - 1) <= width
        assert all(found == one for found, (one, rigid) in zip(widths, wanted, strict=True) if rigid)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("selec 1",), "syntax error"),
        (("select nothing from events",), '"nothing" not found'),
        (("copy events to 'x.parquet'",), "only read"),
        (("select 1; select 2",), "2 statements"),
        (("select * from read_csv('/etc/passwd')",), "disabled by configuration"),
        ((), "no SQL"),
        (("select 1", "--format", "xml"), "--format 'xml'"),
        (("select 1", "--memory", "lots"), "--memory 'lots'"),
        (("select 1", "--from", "soon"), "--from 'soon'"),
    ],
)
def test_a_mistake_is_one_clear_error_with_a_hint(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run("query", folder, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_is_no_store_is_refused_and_the_views_are_listed_without_one(tmp_path: Path) -> None:
    done = run("query", tmp_path, "select 1")
    assert (done.returncode, "not a store" in done.stderr) == (3, True)
    listed = run("query", tmp_path, "--views").stdout
    for name, view in VIEWS.items():
        assert f"{name}: {view.about}" in listed


def test_a_statement_from_stdin_and_a_statement_that_is_interrupted(folder: Path) -> None:
    command = [*PROGRAM, "query", str(folder), "-", "-f", "jsonl"]
    done = subprocess.run(
        command, input="select count(*) n from events", capture_output=True, text=True, timeout=60, env=environment()
    )
    assert json.loads(done.stdout) == {"n": len(HOSTILE)}
    endless = "select a from range(100000000000) r(a) where a % 3 = 0"
    process = subprocess.Popen(
        [*PROGRAM, "query", str(folder), endless],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "a\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (3, "interrupted\n")


def test_a_size_of_memory_has_a_unit() -> None:
    assert memory_named("512MiB") == 512 << 20
    assert memory_named("4 gib") == 4 << 30
    for wrong in ("", "12", "1KiB", "-1GiB", "1.5GiB", "4GB"):
        with pytest.raises(ConfigurationError):
            memory_named(wrong)
