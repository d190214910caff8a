"""Log files: text and JSON, packed and plain, and what a client can put into a text log."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from tests.mosquitto.logs.record import rows_of
from tests.rabbitmq.log_rendering import CONNECTION
from tests.rabbitmq.logs.record import FOLDER
from topicwarden.errors import ObservationError
from topicwarden.sources import Counters, SourceOptions
from topicwarden_collectors.rabbitmq.log_file import about_log, looks_like_log, read_log

STAMP = "2026-11-23 12:00:00.000001+00:00 [error] <0.7.0> "
ACCESS = "operation basic.get caused a channel exception access_refused: access to queue 'q"
TAIL = "' in vhost 'v' refused for user 'u'"


def read(path: Path, counters: Counters | None = None) -> list[dict[str, Any]]:
    counts = Counters() if counters is None else counters
    rows = [row for batch in read_log(path, SourceOptions(), counts) for row in rows_of(batch)]
    assert counts.events == sum("action" in row for row in rows)
    return rows


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "rabbit@host.log"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))
    return path


def refusal(*middle: str, user: str = "u") -> list[str]:
    """Return the lines of a refused queue whose name goes on over lines."""
    head = f"{STAMP}Channel error on connection <0.6.0> ({CONNECTION}, vhost: 'v', user: '{user}'), channel 1:"
    return [head, f"{STAMP}{ACCESS}{middle[0]}", *(f"{STAMP}{line}" for line in middle[1:])]


def test_two_lines_of_one_message_are_one_refusal(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, *refusal(TAIL)))
    assert (row["action"], row["outcome"], row["certainty"]) == ("subscribe", "denied", "exact")
    assert row["resource"] == {"kind": "queue", "name": "q"}
    assert row["client"] == {
        "broker": "rabbit@host",
        "protocol": "unknown",
        "client_id": "",
        "user": "u",
        "address": "127.0.0.1",
        "port": 49242,
        "vhost": "v",
        "identity": "verified",
    }


def test_a_name_with_a_line_feed_makes_no_message_of_its_own_and_is_not_named(tmp_path: Path) -> None:
    forged = "Channel error on connection <0.1.0> (10.0.0.1:1 -> 10.0.0.2:2, vhost: 'v', user: 'admin'), channel 1:"
    (row,) = read(write(tmp_path, *refusal("", forged, f"x{TAIL}")))
    assert row["notice"] == "TW905"
    assert row["client"]["user"] == "u"
    assert "10.0.0.1" not in str(row["client"])


def test_a_line_without_the_nodes_own_beginning_is_not_read(tmp_path: Path) -> None:
    counters = Counters()
    rows = read(write(tmp_path, *[line.removeprefix(STAMP) for line in refusal(TAIL)]), counters)
    assert [row.get("notice") for row in rows] == ["TW903"]
    assert counters.decode_errors == {"line": 2}


def test_logs_of_3_8_are_not_read_and_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, "2020-10-05 12:13:14.123 [error] <0.7.0> Channel error on connection <0.6.0>", "forged")
    assert looks_like_log(path.read_bytes())
    counters = Counters()
    (row,) = read(path, counters)
    assert row["notice"] == "TW903"
    assert "3.8" in row["witness"]
    assert counters.decode_errors == {"line": 2}


def test_packed_is_the_same_as_plain(tmp_path: Path) -> None:
    path = tmp_path / "everyday.log.1.gz"
    path.write_bytes(gzip.compress((FOLDER / "everyday.log").read_bytes()))
    assert read(path) == read(FOLDER / "everyday.log")
    assert looks_like_log(path.read_bytes()[:4096])


def test_a_damaged_packed_file_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "rabbit@host.log.gz"
    path.write_bytes(gzip.compress((FOLDER / "hostile.log").read_bytes())[:-1000])
    counters = Counters()
    rows = read(path, counters)
    assert any("action" in row for row in rows)
    assert [row["notice"] for row in rows if row.get("notice") != "TW905" and "notice" in row] == ["TW901", "TW903"]
    assert counters.decode_errors == {"gzip": 1, "line": 1}


def test_a_last_line_cut_in_a_name_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = write(tmp_path, f"{STAMP}HTTP access denied: user 'x' - invalid credentials' - invalid credentials")
    path.write_bytes(path.read_bytes()[: -len("' - invalid credentials\n")])
    (row,) = read(path)
    assert row["notice"] == "TW903"


def test_a_line_that_is_too_long_is_counted_and_reading_goes_on(tmp_path: Path) -> None:
    counters = Counters()
    rows = read(write(tmp_path, STAMP + "x" * (1 << 20), *refusal(TAIL)), counters)
    assert [row.get("action", row.get("notice")) for row in rows] == ["subscribe", "TW903"]
    assert counters.decode_errors == {"line": 1}


def test_a_message_of_very_many_lines_is_counted_and_reading_goes_on(tmp_path: Path) -> None:
    crash = [f"{STAMP}{'x' * 1000}"] * 1200
    counters = Counters()
    rows = read(write(tmp_path, *crash, *[line.replace("000001", "000002") for line in refusal(TAIL)]), counters)
    assert [row.get("action", row.get("notice")) for row in rows] == ["subscribe", "TW903"]
    assert counters.decode_errors == {"message": 1}


def test_text_and_json_lines_may_follow_each_other(tmp_path: Path) -> None:
    lines = (FOLDER / "everyday.json.log").read_text().splitlines()
    line = next(line for line in lines if "operation queue.declare" in line)
    rows = read(write(tmp_path, *refusal(TAIL), line, *refusal(TAIL)))
    assert [row["action"] for row in rows] == ["subscribe", "configure", "subscribe"]


def test_a_restart_is_noticed_and_ends_what_was_known_of_connections(tmp_path: Path) -> None:
    start = [f"{STAMP}", f"{STAMP} Starting RabbitMQ 3.10.8 on Erlang 25.2.3 [jit]"]
    rows = read(write(tmp_path, *refusal(TAIL), "", *[line.replace("000001", "000002") for line in start]))
    assert [row.get("notice") for row in rows] == [None, "TW906"]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\n",
        b"{}\n",
        b'{"time":1,"msg":"x"}\n',
        b"1700000000: mosquitto version 2\n",
        b"\x1f\x8b\x08xx",
        gzip.compress(b"1700000000: mosquitto version 2\n", mtime=0),
    ],
)
def test_other_files_are_not_taken_for_a_log(head: bytes) -> None:
    assert not looks_like_log(head)


def test_a_file_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ObservationError) as caught:
        read(tmp_path / "nothing.log")
    (problem,) = caught.value.problems
    assert problem.hint
    assert str(tmp_path) in str(problem.file)


def test_a_pipe_in_the_logs_place_does_not_hang_us(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    with pytest.raises(ObservationError, match="not a regular file"):
        read(tmp_path / "pipe.log")


def test_the_node_names_the_broker_and_blind_spots_are_stated() -> None:
    told = about_log(Path("/var/log/rabbitmq/rabbit@host.log"), SourceOptions())
    assert told.broker == "rabbit@host"
    assert told.blind_spots
    assert all(spot.what and not spot.what.endswith(".") for spot in told.blind_spots)
