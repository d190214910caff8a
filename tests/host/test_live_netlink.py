"""Netlink messages: bytes a kernel has sent, and any others."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden_collectors.host.netlink import attribute, attributes, half_word_filter, message, messages
from topicwarden_collectors.host.netlink_process import (
    Answer,
    Happened,
    Passed,
    ProcessEvent,
    Sequences,
    read_event,
)

# Recorded from Linux 6.18, x86_64: `true` started by a Python.
ANSWER = bytes.fromhex(
    "4c0000000300000098960000000000000100000001000000989600000100000028000000000000000000000003205cd8f30d0000"
    "000000000000000000000000000000000000000000000000"
)
FORK = bytes.fromhex(
    "4c000000030000009996000000000000010000000100000099960000000000002800000001000000000000003a8d60d8f30d0000"
    "4f5e00004f5e0000515e0000515e00000000000000000000"
)
EXEC = bytes.fromhex(
    "4c000000030000009a9600000000000001000000010000009a96000000000000280000000200000000000000af2565d8f30d0000"
    "515e0000515e000000000000000000000000000000000000"
)
EXIT = bytes.fromhex(
    "4c000000030000009b9600000000000001000000010000009b960000000000002800000000000080000000009a8e6fd8f30d0000"
    "515e0000515e000000000000110000004f5e00004f5e0000"
)


def little_endian_only() -> None:
    if struct.pack("=H", 1) != b"\1\0":
        pytest.skip("the recorded bytes are of a little-endian machine")


def test_what_the_kernel_says_of_a_process_is_read() -> None:
    little_endian_only()
    assert read_event(ANSWER) == Answer(0, 38552, 0)
    assert read_event(FORK) == ProcessEvent(Happened.FORK, 0, 38553, 15340958420282, 24145, 24143)
    assert read_event(EXEC) == ProcessEvent(Happened.EXEC, 0, 38554, 15340958721455, 24145)
    assert read_event(EXIT) == ProcessEvent(Happened.EXIT, 0, 38555, 15340959403674, 24145)


def test_a_thread_is_no_process_and_an_event_of_another_kind_counts_in_the_sequence() -> None:
    little_endian_only()
    new_thread = FORK[:60] + struct.pack("=II", 24147, 24143) + FORK[68:]
    thread_ends = EXIT[:52] + struct.pack("=II", 24147, 24143) + EXIT[60:]
    renamed = EXEC[:36] + struct.pack("=I", 0x200) + EXEC[40:]
    assert read_event(new_thread) == Passed(0, 38553)
    assert read_event(thread_ends) == Passed(0, 38555)
    assert read_event(renamed) == Passed(0, 38554)


def test_what_is_refused_is_told_with_its_error() -> None:
    little_endian_only()
    assert read_event(ANSWER[:52] + struct.pack("=i", 1) + ANSWER[56:]) == Answer(0, 38552, 1)
    assert read_event(ANSWER[:52] + struct.pack("=i", -22) + ANSWER[56:]) == Answer(0, 38552, 22)


@given(st.sampled_from([ANSWER, FORK, EXEC, EXIT]), st.integers(0, 75), st.integers(0, 255), st.integers(0, 90))
def test_a_damaged_event_raises_nothing(data: bytes, at: int, byte: int, length: int) -> None:
    read_event((data[:at] + bytes([byte]) + data[at + 1 :])[:length])


@given(st.binary(max_size=200))
def test_no_bytes_make_the_readers_raise(data: bytes) -> None:
    read_event(data)
    assert len(list(messages(data))) <= len(data) // 16 + 1
    attributes(data)


@given(st.lists(st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=8))
def test_messages_come_out_as_they_went_in(parts: list[tuple[int, int, bytes]]) -> None:
    datagram = b"".join(
        data + bytes(-len(data) % 4) for kind, flags, body in parts for data in [message(kind, flags, body, sequence=7)]
    )
    found = [(one.kind, one.flags, one.body) for one in messages(datagram) if one is not None]
    assert found == parts


@given(st.dictionaries(st.integers(0, 0x3FFF), st.binary(max_size=40), max_size=8))
def test_attributes_come_out_as_they_went_in(parts: dict[int, bytes]) -> None:
    assert attributes(b"".join(attribute(kind, value) for kind, value in parts.items())) == parts


def test_a_length_that_cannot_be_ends_the_reading() -> None:
    good = message(20, 0, b"abcd")
    for wrong in (0, 15, 41, 0xFFFFFFFF):
        bad = struct.pack("=I", wrong) + good[4:]
        assert list(messages(good + bad))[-1] is None
        assert len(list(messages(good + bad + good))) == 2


@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(0, 0xFFFFFFFF), st.integers(1, 4))
def test_as_many_events_are_missing_as_were_left_out(arrives: list[bool], start: int, processors: int) -> None:
    """Each processor's count wraps on its own; what is missing before the first is not known."""
    sequences = Sequences()
    left_out = [0] * processors
    missing = 0
    expected = 0
    for number, arrived in enumerate([True] * processors + [one for one in arrives for _ in range(processors)]):
        processor = number % processors
        if arrived:
            missing += sequences.missing(processor, (start + number // processors) & 0xFFFFFFFF)
            expected += left_out[processor]
            left_out[processor] = 0
        else:
            left_out[processor] += 1
    assert missing == expected


def test_a_count_that_begins_anew_is_no_loss() -> None:
    sequences = Sequences()
    assert [sequences.missing(0, number) for number in (500, 501, 3, 4, 6)] == [0, 0, 0, 0, 1]


def run_filter(program: bytes, datagram: bytes) -> int:
    """Run a classic BPF program that loads half words, compares and returns."""
    at, accumulator = 0, 0
    while True:
        code, jump_true, jump_false, k = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x28:
            accumulator = int.from_bytes(datagram[k : k + 2], "big")
        elif code == 0x15:
            at += jump_true if accumulator == k else jump_false
        else:
            assert code == 0x06
            return int(k)


@given(st.sets(st.integers(1, 0xFFFF), max_size=300), st.integers(0, 0xFFFF), st.data())
def test_the_filter_in_the_kernel_takes_the_wanted_ports_and_no_others(
    wanted: set[int], port: int, data: st.DataObject
) -> None:
    port = data.draw(st.sampled_from([port, *sorted(wanted)]))
    program = half_word_filter(22, wanted)
    assert program is not None
    datagram = bytes(22) + port.to_bytes(2, "big") + bytes(10)
    assert (run_filter(program, datagram) > 0) == (port in wanted)


def test_a_filter_that_would_be_too_long_is_none() -> None:
    ports: Sequence[int] = range(1, 3000)
    assert half_word_filter(22, ports) is None
