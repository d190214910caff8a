"""The views say what was written, whatever it is; and nothing else can be read, or written, through them."""

from __future__ import annotations

import errno
import json
import math
import re
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.events.test_recording import clients, host_events, resources
from tests.store.filling import fill
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    GrantChange,
    HostEvent,
    Identity,
    Notice,
    Outcome,
    Resource,
    ResourceKind,
    Right,
    Shape,
    Tables,
)
from topicwarden.events.rows import to_rows
from topicwarden.findings import Finding, Ledger, load_catalogue
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.store.files import HOUR_NS
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.rows import shown
from topicwarden.store.views import Scope, Views, failures
from topicwarden.store.views_sql import VIEWS
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("store")
START = 1_795_427_880_123_456_789
DOCUMENT = Path(__file__).parents[2] / "docs" / "query.md"
CLIENT = Client("plant", "mqtt", "s-1", "sensor-1", "10.0.0.5", 51234, identity=Identity.VERIFIED)
TOPIC = Resource(ResourceKind.TOPIC, "plant/a")
ABOUT = {
    "command": "watch",
    "sources": [
        {
            "title": "the ring",
            "broker": "plant",
            "kind": "mosquitto",
            "host": False,
            "runs_on": "",
            "blind_spots": [{"what": "bridges", "fix": None}],
        }
    ],
}

events = st.fixed_dictionaries(
    {
        "time_ns": st.integers(START, START + 3 * HOUR_NS) | st.sampled_from([-(2**63), 2**63 - 1, 0]),
        "action": st.sampled_from(Action),
        "client": clients,
        "resource": resources,
        "outcome": st.sampled_from(Outcome),
        "certainty": st.sampled_from(Certainty),
        "size": st.integers(-1, 2**40),
        "entropy": st.just(math.nan) | st.floats(0, 8, width=32),
        "shape": st.sampled_from(Shape),
        "qos": st.sampled_from([0, 1, 2, 255]),
        "retain": st.sampled_from([0, 1, 255]),
        "count": st.integers(0, 2**32 - 1),
    }
)


def batch_of(rows: list[dict[str, Any]], tables: Tables) -> EventBatch:
    builder = EventBuilder(tables)
    for row in rows:
        builder.add(**row)
    return builder.take()


def write(folder: Path, *batches: EventBatch, findings: list[tuple[Event, Finding]] = []) -> None:  # noqa: B006 - read
    with StoreWriter(folder, SIGNER, about=ABOUT) as writer:
        for batch in batches:
            writer.write(batch)
        for event, finding in findings:
            document = json.loads(encode(finding_document(event, finding, Origin())))
            writer.finding(finding.last_ns, finding.broker, finding.type.code, document)


def expected(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of `to_rows` as the view has it."""
    client, resource = row["client"], row.get("resource") or {}
    text = {name: client.get(name) for name in ("broker", "vhost", "protocol", "user", "client_id", "address")}
    return {
        **{name: None if value is None else shown(value) for name, value in text.items()},
        "tls_subject": None if "tls_subject" not in client else shown(client["tls_subject"]),
        "identity": client["identity"],
        "port": client.get("port"),
        "kind": resource.get("kind"),
        "name": None if not resource else shown(resource["name"]),
        "within": None if not resource else shown(resource.get("within", "")),
        "name_cut": None if not resource else "length" in resource,
        **{name: row[name] for name in ("time_ns", "action", "outcome", "certainty")},
        **{name: row.get(name) for name in ("size", "qos", "retain")},
        "entropy": None if "entropy" not in row else pytest.approx(row["entropy"], rel=1e-6),
        "shape": row.get("shape", "unknown"),
        "count": row.get("count", 1),
    }


def fetched(views: Views, sql: str) -> list[dict[str, Any]]:
    found = views.execute(sql)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


HOSTILE = Client("../\udcff", "mqtt", "\x00'; drop\n", "\ud83d\ude00", vhost="\udcb0")


@given(st.lists(st.lists(events, max_size=6), max_size=3))
@example([[{"time_ns": START, "action": Action.PUBLISH, "client": HOSTILE, "resource": TOPIC}]])
@settings(max_examples=15, deadline=None)
def test_events_are_what_was_written(batches: list[list[dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tables = Tables()
        written = [batch_of(rows, tables) for rows in batches]
        wanted = [expected(row) for batch in written for row in to_rows(batch)]
        write(Path(folder) / "s", *written)
        with Views(Store(Path(folder) / "s"), threads=1) as views:
            columns = ", ".join(f'"{name}"' for name in expected(SAMPLE))
            found = fetched(views, f"SELECT {columns} FROM events")
            assert views.rows("SELECT count(*) FROM events WHERE time IS NULL") == [
                (sum(row["time_ns"] in (-(2**63), -(2**63) + 1, 2**63 - 1) for row in wanted),)
            ]

    def order(row: dict[str, Any]) -> str:
        return str({name: value for name, value in row.items() if name != "entropy"}) + str(row["entropy"] is None)

    # What is the same but for its entropy may stand in any order.
    for row in found:
        place = next(place for place, one in enumerate(wanted) if one == row)
        del wanted[place]
    assert not sorted(wanted, key=order)


SAMPLE: dict[str, Any] = next(
    to_rows(batch_of([{"time_ns": START, "action": Action.PUBLISH, "client": CLIENT, "resource": TOPIC}], Tables()))
)


@given(st.lists(host_events, max_size=4))
@settings(max_examples=15, deadline=None)
def test_what_hosts_did_is_there_whatever_is_in_it(told: list[HostEvent]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        builder = EventBuilder(Tables())
        for event in told:
            builder.host(event)
        write(Path(folder) / "s", builder.take())
        with Views(Store(Path(folder) / "s"), threads=1) as views:
            rows = fetched(views, "FROM hosts")
    assert sorted(row["what"] for row in rows) == sorted(type(event).__name__.lower() for event in told)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store with two runs, each with an event, a notice, a change and a finding."""
    ledger = Ledger(load_catalogue())
    for run in range(2):
        builder = EventBuilder(Tables())
        builder.add(START + run, Action.PUBLISH, CLIENT, TOPIC, Outcome.DENIED, Certainty.EXACT, size=5)
        builder.add(START + run, Action.SUBSCRIBE, Client("plant", "mqtt", "s-2"), TOPIC, Outcome.ALLOWED)
        builder.notice(Notice("TW901", START, "plant", "ring", 3, CLIENT, "half a\udcff", {"why": "\\ud800 \udcff"}))
        builder.notice(Notice("TW902", START, "h1", of_host=True))
        builder.change(
            GrantChange(
                START,
                Client("plant", "amqp", "", "bo\udcffb", vhost="/"),
                "permission",
                by=Client("plant", "amqp", "", "admin", "10.0.0.9"),
                before="",
                after="^a$",
                gained=[
                    Right(Action.PUBLISH, Resource(ResourceKind.KEY, "k", within="ex")),
                    Right(Action.SUBSCRIBE, TOPIC),
                ],
                powers=["administrator"],
            ),
            with_event=False,
        )
        finding = ledger.record(
            "TW201", broker="plant", client=CLIENT, first_ns=START, last_ns=START + 9, count=3, witnesses={"a\udcff": 1}
        )
        assert finding is not None
        told = [(Event.OPENED, finding)]
        write(tmp_path / "s", builder.take(), findings=told)
        if run == 0:
            ledger = Ledger(load_catalogue())
    return tmp_path / "s"


@pytest.fixture
def views(folder: Path) -> Iterator[Views]:
    with Views(Store(folder)) as found:
        yield found


def test_the_views_have_the_columns_that_are_documented_and_no_others(views: Views, tmp_path: Path) -> None:
    StoreWriter(tmp_path / "empty", SIGNER).close()
    with Views(Store(tmp_path / "empty")) as empty:
        for name, view in VIEWS.items():
            shape = [row[:2] for row in views.rows(f"DESCRIBE {name}")]
            assert [column for column, _ in shape] == list(view.columns)
            assert [row[:2] for row in empty.rows(f"DESCRIBE {name}")] == shape
            assert empty.rows(f"SELECT count(*) FROM {name}") == [(1 if name == "opened" else 0,)]
    sections = re.split(r"^## View ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    documented = {
        section.split("\n", 1)[0].strip("`"): re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
        for section in sections
    }
    assert documented == {name: list(view.columns.items()) for name, view in VIEWS.items()}


def test_every_column_can_be_named_without_quotes(views: Views) -> None:
    for name, view in VIEWS.items():
        views.rows(f"SELECT {', '.join(view.columns)} FROM {name}")


def test_each_view_says_what_was_written(views: Views) -> None:
    client = fetched(views, "FROM clients WHERE client_id = 's-1'")[0]
    assert (client["publishes"], client["denied"], client["names"], client["bytes"]) == (2, 2, 1, 10)
    assert (client["user"], client["identity"], client["last_address"]) == ("sensor-1", "verified", "10.0.0.5")
    topic = fetched(views, "FROM topics")
    assert [(row["name"], row["publishes"], row["publishers"], row["subscribers"]) for row in topic] == [
        ("plant/a", 2, 1, 1)
    ]
    finding = fetched(views, "FROM findings")
    # Two runs with a count of three each.
    assert [(row["code"], row["count"], row["runs"], row["user"]) for row in finding] == [("TW201", 6, 2, "sensor-1")]
    assert json.loads(finding[0]["document"])["witnesses"][0]["name"] == "a\\u{dcff}"
    assert [row["run"] for row in fetched(views, "FROM finding_history ORDER BY run")] == [0, 1]
    grant = fetched(views, "FROM grants")[0]
    assert grant["gained"] == ["publish key k in ex", "subscribe plant/a"]
    assert (grant["by_user"], grant["by_address"], grant["before"], grant["after"]) == ("admin", "10.0.0.9", "", "^a$")
    assert (grant["user"], grant["powers"], grant["lost"]) == (shown("bo\udcffb"), ["administrator"], [])
    lost, of_host = fetched(views, "FROM notices ORDER BY code LIMIT 2 OFFSET 1")
    assert (lost["broker"], lost["count"], lost["witness"]) == ("plant", 3, shown("half a\udcff"))
    assert json.loads(lost["evidence"])["why"] == shown("\\ud800 \udcff")
    assert (of_host["broker"], of_host["host"]) == (None, "h1")
    assert sum(row["rows"] for row in fetched(views, "FROM segments WHERE kind = 'events'")) == 4
    opened = fetched(views, "FROM opened")
    assert [(row["run"], row["broker"], row["blind_spots"]) for row in opened] == [
        (0, "plant", ["bridges"]),
        (1, "plant", ["bridges"]),
    ]


def test_only_the_asked_time_is_there(folder: Path) -> None:
    with Views(Store(folder), Scope(START + 1, START + 9)) as views:
        assert views.rows("SELECT DISTINCT time_ns FROM events") == [(START + 1,)]
    with Views(Store(folder), Scope(None, START - 1)) as views:
        assert views.rows("SELECT count(*) FROM events") == [(0,)]


def test_rows_that_are_not_sealed_do_not_count(folder: Path) -> None:
    store = Store(folder)
    store.sealed -= 1
    with Views(store) as views:
        assert views.rows("SELECT count(*) FROM events") == [(2,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM 'http://127.0.0.1:1/x.parquet'",
        "SELECT * FROM read_parquet('s3://bucket/x')",
        "SELECT * FROM START",
        "COPY events TO 'x.parquet'",
        "EXPLAIN ANALYZE COPY events TO 'x.parquet'",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW events",
        "PRAGMA database_list",
        "CALL enable_logging()",
        "SELECT 1; SELECT 2",
        "",
        "SELECT nothing FROM events",
        "SELEC 1",
    ],
)
def test_nothing_else_can_be_read_or_done(views: Views, sql: str, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError):
        views.rows(sql)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_but_rows_is_ever_printed(views: Views) -> None:
    assert views.rows("SELECT current_setting('enable_progress_bar')") == [(False,)]


def test_the_stores_own_files_cannot_be_written_over(views: Views, folder: Path) -> None:
    file = Store(folder).files(Kind.EVENTS)[0].path
    before = file.read_bytes()
    for sql in (f"COPY events TO '{file}' (USE_TMP_FILE false)", f"COPY events TO '{file}'"):
        with pytest.raises(ConfigurationError, match="only read"):
            views.rows(sql)
    assert file.read_bytes() == before


@pytest.mark.parametrize("kind", [Kind.EVENTS, Kind.CLIENTS, Kind.FINDINGS])
def test_a_damaged_file_is_an_error_of_ours_or_rows_and_never_anything_else(folder: Path, kind: Kind) -> None:
    file = Store(folder).files(kind)[0].path
    whole = file.read_bytes()
    random = Random(1)
    told = 0
    for place in [0, len(whole) - 5, *(random.randrange(len(whole)) for _ in range(20))]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << random.randrange(8)]) + whole[place + 1 :])
        try:
            with Views(Store(folder), threads=1) as views:
                for name in ("events", "findings"):
                    views.rows(f"FROM {name}")
        except ObservationError:
            told += 1
    assert told > 1
    file.write_bytes(whole[:-20])
    with pytest.raises(ObservationError, match="cannot be read"), Views(Store(folder)) as views:
        views.rows("SELECT max(size) FROM events")


def test_a_statement_can_be_interrupted_from_another_thread(views: Views) -> None:
    # Interrupts until it ends: the statement may not have begun when the first one comes.
    over = threading.Event()

    def interrupt() -> None:
        while not over.wait(0.05):
            views.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(duckdb.InterruptException):
            views.rows("SELECT count(*) FROM range(100000000000) a")
    finally:
        over.set()
        thread.join()


def test_too_little_memory_is_told_as_that(folder: Path) -> None:
    with Views(Store(folder), memory=64 << 20, threads=1) as views, pytest.raises(ConfigurationError, match="memory"):
        views.rows("SELECT list(repeat('x', 10000) || a) FROM range(100000) r(a)")


def test_what_goes_wrong_while_rows_come_is_told_as_before_the_first(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    wrong = "select case when a = 300000 then cast('x' || a as integer) else a end from range(1000000) r(a)"
    with Views(Store(tmp_path)) as views:
        with pytest.raises(ConfigurationError, match="Could not convert string 'x300000'"), failures():
            deque(views.reader(wrong, 2048), maxlen=0)
        with pytest.raises(OSError, match="No space"), failures():
            raise OSError(errno.ENOSPC, "No space left on device")
        reader = views.reader("select a from range(100000000000) r(a) where a % 3 = 0", 2048)
        next(iter(reader))
        views.interrupt()
        with pytest.raises(duckdb.InterruptException), failures():
            deque(reader, maxlen=0)
