"""What a log was rotated to: which files those are, their order, and what lies between two of them."""

from __future__ import annotations

import gzip
import os
import random
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden_collectors.log_following.log_file import LogFile, MissingLogError
from topicwarden_collectors.log_following.rotated import MAX_ROTATED, between, find_place, rotated


def write(path: Path, data: bytes, modified: int) -> None:
    path.write_bytes(data)
    os.utime(path, ns=(modified, modified))


@pytest.mark.parametrize(
    ("log", "name"),
    [
        ("audit.log", "audit.log.1"),
        ("audit.log", "audit.log.12.gz"),
        ("audit.log", "audit.log-20261128"),
        ("audit.log", "audit.log-20261128-1795898907.gz"),
        ("audit.log", "audit-20261128.log"),
        ("audit.log", "audit.1.log.gz"),
        ("conn.log", "conn-2026-11-28_10.00.00.log"),
        ("conn.log", "conn.10:00:00-11:00:00.log.gz"),
        ("eve.json", "eve.json.1"),
        ("messages", "messages-20261128"),
    ],
)
def test_what_a_log_is_rotated_to_is_known_by_its_name(tmp_path: Path, log: str, name: str) -> None:
    (tmp_path / name).touch()
    assert [one.path.name for one in rotated(tmp_path / log)] == [name]


@pytest.mark.parametrize(
    "name",
    [
        "audit.log",
        "audit.log.bak",
        "audit.log.1.xz",
        "audit.logs",
        "conn.log",
        "audit2.log",
        "audit-old.log",
        "xaudit.log.1",
    ],
)
def test_other_files_of_the_folder_are_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert rotated(tmp_path / "audit.log") == []
    (tmp_path / "audit.log.1").mkdir()
    assert rotated(tmp_path / "audit.log") == []


@settings(max_examples=30, deadline=None)
@given(st.integers(0, MAX_ROTATED + 10), st.booleans(), st.randoms())
def test_numbers_tell_the_order_whatever_the_times(
    tmp_path_factory: pytest.TempPathFactory, count: int, packed: bool, chance: random.Random
) -> None:
    folder = tmp_path_factory.mktemp("order")
    for number in range(1, count + 1):
        name = f"x.log.{number}{'.gz' if packed and number > 1 else ''}"
        write(folder / name, b"x", chance.randrange(1, 100) * 10**9)
    found = [one.number for one in rotated(folder / "x.log")]
    assert found == list(range(min(count, MAX_ROTATED), 0, -1))


def test_without_numbers_the_time_of_the_last_change_does(tmp_path: Path) -> None:
    for name, modified in (("x.log-20261128", 3), ("x.log-20261127.gz", 1), ("x-20261127.log", 2)):
        write(tmp_path / name, b"x", modified * 10**9)
    names = [one.path.name for one in rotated(tmp_path / "x.log")]
    assert names == ["x.log-20261127.gz", "x-20261127.log", "x.log-20261128"]


def test_between_two_are_those_rotated_since_and_before(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    for number in (5, 4, 3, 2, 1):
        (tmp_path / f"x.log.{number}").write_bytes(b"%d\n" % number)
    log.write_bytes(b"0\n")
    old = LogFile(tmp_path / "x.log.4")
    for successor, wanted in ((log, ["3", "2", "1"]), (tmp_path / "x.log.2", ["3"]), (tmp_path / "x.log.3", [])):
        new = LogFile(successor)
        files, missed = between(log, old, new)
        assert [file.path.name.rpartition(".")[2] for file in files] == wanted
        assert not missed
        for file in (*files, new):
            file.close()
    old.close()


def test_one_that_was_compressed_meanwhile_is_still_known(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    write(tmp_path / "x.log.2", b"the old one\n", 10**9)
    write(tmp_path / "x.log.1", b"the next\n", 10**9)
    log.write_bytes(b"the last\n")
    old, new = LogFile(tmp_path / "x.log.2"), LogFile(log)
    assert old.read() == b"the old one\n"
    (tmp_path / "x.log.2").unlink()
    write(tmp_path / "x.log.2.gz", gzip.compress(b"the old one\n"), 10**9)
    files, missed = between(log, old, new)
    assert [file.path.name for file in files] == ["x.log.1"]
    assert not missed
    packed = find_place(log, old.read_place())
    assert packed is not None
    assert packed.path.name == "x.log.2.gz"
    for file in (*files, old, new, packed):
        file.close()


def test_when_the_old_one_is_gone_and_all_others_are_newer_some_may_have_been_missed(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    write(log, b"the old one\n", 10**9)
    old = LogFile(log)
    assert old.read()
    log.unlink()
    write(tmp_path / "x.log.1", b"another\n", 2 * 10**9)
    write(log, b"the last\n", 3 * 10**9)
    new = LogFile(log)
    files, missed = between(log, old, new)
    assert [file.path.name for file in files] == ["x.log.1"]
    assert missed
    for file in (*files, old, new):
        file.close()


def test_files_renamed_while_we_look_are_each_found_once_and_in_order(tmp_path: Path) -> None:
    log, kept = tmp_path / "x.log", 12
    log.write_bytes(b"0")
    old = LogFile(log)
    stop = threading.Event()

    def rotate() -> None:
        for turn in range(1, 10_000):
            for number in range(kept, 0, -1):
                one = tmp_path / f"x.log.{number}"
                if one.exists():
                    one.rename(tmp_path / f"x.log.{number + 1}")
            (tmp_path / f"x.log.{kept + 1}").unlink(missing_ok=True)
            log.rename(tmp_path / "x.log.1")
            log.write_bytes(b"%d" % turn)
            if stop.wait(0.0005):
                return

    rotating = threading.Thread(target=rotate)
    rotating.start()
    try:
        looks = 0
        while looks < 60:
            try:
                new = LogFile(log)
            except MissingLogError:
                continue
            if not new.size or new.inode == old.inode:
                new.close()
                continue
            files, missed = between(log, old, new)
            turns = [int(b"".join(file.chunks())) for file in (old, *files, new)]
            assert missed or turns == list(range(turns[0], turns[0] + len(turns)))
            assert sorted(set(turns)) == turns
            for file in (*files, old):
                file.close()
            old = new
            looks += 1
    finally:
        stop.set()
        rotating.join()
        old.close()
