"""What the attribution helper tells becomes events of hosts; the helper is started, watched and ended."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.brokers import wait_for
from tests.host.attributor_bytes import BOOTED_NS, EVENTS, NOBODY, RECORDS, TIME_NS, bare, golden_lines, ready, record
from tests.mosquitto.attribution_stage import Asker, connection, helper_pid, needs_root, place, start
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.events import Dialled, Endpoint, Executed
from topicwarden.findings import data_dir
from topicwarden.sources import Counters
from topicwarden_collectors.host import attributor_records as records
from topicwarden_collectors.host.attributor import PROGRAM, Attributor, find_program
from topicwarden_collectors.host.attributor_records import RecordDecoder, Result, host_events, read_record

__all__ = ["place"]
HEADER: Final = data_dir("brokers") / "mosquitto" / "attribute_wire.h"
RENAMED: Final = {
    "TW_ATTRIBUTE_FOUND": Result.FOUND,
    "TW_ATTRIBUTE_NO_CONNECTION": Result.NO_CONNECTION,
    "TW_ATTRIBUTE_NO_PROCESS": Result.NO_PROCESS,
    "TW_ATTRIBUTE_OUT_OF_TIME": Result.OUT_OF_TIME,
    "TW_ATTRIBUTE_GONE": Result.GONE,
}


def test_the_golden_records_decode_to_their_events() -> None:
    assert golden_lines(RECORDS.read_bytes()) == EVENTS.read_text()


def test_no_password_of_the_golden_records_is_in_an_event() -> None:
    assert b"S3cret" in RECORDS.read_bytes()
    assert "S3cret" not in EVENTS.read_text()


def test_every_constant_and_field_of_the_c_header_is_where_we_look_for_it(tmp_path: Path) -> None:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
    fields = re.search(r"struct tw_attribute_record \{(.*?)\};", text, re.DOTALL)
    assert fields is not None
    names = re.findall(r"(\w+)(?:\[16\])?[,;]", fields[1])
    constants = sorted(set(re.findall(r"\bTW_(?:ATTRIBUTE|FAMILY)_[A-Z0-9_]+\b", text)) - {"TW_ATTRIBUTE_WIRE_H"})
    source = tmp_path / "print.c"
    prints = [f'printf("{name} %lld\\n", (long long){name});' for name in constants]
    prints += [f'printf("{n} %zu\\n", offsetof(struct tw_attribute_record, {n}));' for n in names]
    source.write_text(
        f'#include <stdio.h>\n#include <stddef.h>\n#include "{HEADER}"\nint main(void) {{ {" ".join(prints)} }}\n'
    )
    subprocess.run(["gcc", "-std=gnu11", "-Wall", "-Werror", "-o", tmp_path / "print", source], check=True)
    lines = subprocess.run([tmp_path / "print"], check=True, capture_output=True, text=True).stdout.split()
    values = dict(zip(lines[::2], map(int, lines[1::2]), strict=True))
    for name in constants:
        ours = RENAMED.get(name)
        if ours is None:
            ours = getattr(records, name.removeprefix("TW_ATTRIBUTE_").removeprefix("TW_"))
        assert (name, values[name]) == (name, ours)
    # The structure has no holes, so its fields one after another are the format's.
    sizes = re.findall(r"\d+s|[A-Za-z]", records.HEAD.format.removeprefix("<"))
    widths = {"I": 4, "i": 4, "H": 2, "B": 1, "Q": 8, "16s": 16}
    assert len(sizes) == len(names)
    at = 0
    for name, kind in zip(names, sizes, strict=True):
        assert (name, values[name]) == (name, at)
        at += widths[kind]
    assert at == records.HEAD.size == 120


def test_a_found_process_is_told_as_it_was_started_and_then_its_connection() -> None:
    found = read_record(record(ticks=9_999_900))
    assert found is not None
    executed, dialled = host_events(found, "h", BOOTED_NS)
    assert isinstance(executed, Executed)
    assert isinstance(dialled, Dialled)
    assert executed.time_ns == TIME_NS - 10**9
    assert dialled.time_ns == TIME_NS
    assert (dialled.local, dialled.remote) == (Endpoint("127.0.0.1", 51432), Endpoint("127.0.0.1", 1883))
    assert executed.process.arguments == ("mosquitto_pub", "-t", "c2/beacon", "-m", "<payload>")
    assert executed.process.payload is not None
    assert executed.process.payload.size == 5
    assert (dialled.pid, dialled.executable, dialled.user) == (4711, "/usr/bin/mosquitto_pub", "root")


def test_a_clock_set_back_never_makes_a_process_start_after_it_connected() -> None:
    found = read_record(record())
    assert found is not None
    executed, dialled = host_events(found, "h", TIME_NS)
    assert executed.time_ns == dialled.time_ns


def test_an_empty_command_line_has_no_arguments() -> None:
    for command, arguments in ((b"", ()), (b"\0", ("",)), (b"a\0\0", ("a", "")), (b"a", ("a",))):
        found = read_record(record(command=command))
        assert found is not None
        executed = host_events(found, "h", 0)[0]
        assert isinstance(executed, Executed)
        assert executed.process.arguments == arguments


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2000), max_size=30))
def test_records_are_the_same_however_the_stream_comes_in_pieces(cuts: list[int]) -> None:
    data = RECORDS.read_bytes()
    whole = list(RecordDecoder().feed(data))
    decoder = RecordDecoder()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[begin:end] for begin, end in pairwise(edges)]
    assert [one for piece in pieces for one in decoder.feed(piece)] == whole
    assert not decoder.broken


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.binary(max_size=300)
        | st.sampled_from([ready(), record(), bare(result=2)])
        | st.tuples(st.integers(0, 200), st.binary(min_size=1, max_size=9)).map(
            lambda change: record()[: change[0]] + change[1] + record()[change[0] + len(change[1]) :]
        ),
        max_size=6,
    )
)
def test_no_bytes_make_the_decoder_raise_and_what_comes_out_is_sane(parts: list[bytes]) -> None:
    decoder = RecordDecoder()
    for part in parts:
        for one in decoder.feed(part):
            for event in host_events(one, "h", BOOTED_NS):
                assert isinstance(event, Executed | Dialled)
                assert 0 <= event.time_ns < 1 << 63


@pytest.mark.parametrize(
    ("offset", "value"),
    [(0, b"?"), (4, b"\xff\xff\xff\x00"), (4, b"\x10\0\0\0"), (8, b"\2"), (10, b"\3"), (11, b"\5"), (12, b"\7")],
)
def test_what_is_no_record_breaks_the_stream_there(offset: int, value: bytes) -> None:
    wrong = record()[:offset] + value + record()[offset + len(value) :]
    decoder = RecordDecoder()
    assert len(list(decoder.feed(record() + wrong + record()))) == 1
    assert decoder.broken
    assert not list(decoder.feed(record()))


def test_a_text_longer_than_any_the_helper_writes_is_refused() -> None:
    assert read_record(record(executable=b"x" * 4097)) is None
    assert read_record(record(command=b"x" * (256 * 1024 + 1))) is None
    assert read_record(record(command=b"x" * (256 * 1024))) is not None


def test_an_unknown_user_is_none_and_one_without_a_name_is_its_number() -> None:
    for user, name in ((NOBODY, None), (4_000_000_000, "4000000000"), (0, "root")):
        found = read_record(bare(result=2, socket_user=user))
        assert found is not None
        (dialled,) = host_events(found, "h", 0)
        assert isinstance(dialled, Dialled)
        assert (dialled.user, dialled.pid) == (name, None)


# ---- running it


def test_where_the_helper_is_not_installed_it_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topicwarden_collectors.host.attributor.data_dir", lambda name: tmp_path / "data" / name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"make -C .*/brokers/mosquitto attribute"):
        find_program()
    program = tmp_path / PROGRAM
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_program() == program
    built = tmp_path / "data" / "build" / PROGRAM
    built.parent.mkdir(parents=True)
    shutil.copy(program, built)
    assert find_program() == built


def test_a_helper_that_does_not_start_says_why(tmp_path: Path) -> None:
    counters = Counters()
    with pytest.raises(ConfigurationError, match="cannot be run"):
        Attributor(tmp_path / "socket", counters, program=tmp_path / "absent")
    with pytest.raises(ObservationError, match="cannot work here"):
        Attributor(tmp_path / "socket", counters, program=Path("/bin/false"))
    with pytest.raises(ConfigurationError, match="does not take this"):
        start(tmp_path / ("x" * 120), counters)


@needs_root
def test_a_user_there_is_not_is_wrong_usage(place: Path) -> None:
    with pytest.raises(ConfigurationError, match="no such user"):
        start(place / "h" / "socket", Counters(), allow=["nobody-of-this-name"])


@needs_root
def test_it_is_readable_when_there_is_something_to_read_and_not_otherwise(place: Path) -> None:
    attributor = start(place / "h" / "socket", Counters())
    assert attributor.read() == []
    assert not readable(attributor)
    with Asker(place / "h" / "socket") as asker, connection() as (_, accepted):
        assert asker.ask(accepted)[0] == os.getpid()
        wait_for(lambda: readable(attributor), "the descriptor")
        executed, dialled = attributor.read()
        assert not readable(attributor)
        # The same process again is the same event again.
        asker.ask(accepted)
        wait_for(lambda: readable(attributor), "the descriptor")
        again, _ = attributor.read()
    assert again == executed
    assert isinstance(executed, Executed)
    assert isinstance(dialled, Dialled)
    assert executed.process.host == dialled.host == "here"
    attributor.close()
    attributor.close()
    assert attributor.read() == []


def readable(attributor: Attributor) -> bool:
    return bool(select.select([attributor], [], [], 0)[0])


@needs_root
def test_a_helper_that_keeps_ending_is_started_again_thrice_and_then_no_more(place: Path) -> None:
    counters = Counters()
    attributor = start(place / "h" / "socket", counters)
    descriptor = attributor.fileno()
    for times in range(1, 5):
        os.kill(helper_pid(), signal.SIGKILL)
        wait_for(lambda: readable(attributor), "the helper's end to show")
        assert attributor.read() == []
        assert counters.source["attributor_ended"] == times
        assert attributor.running == (times < 4)
        assert attributor.fileno() == descriptor
    assert not readable(attributor)
    attributor.close()
