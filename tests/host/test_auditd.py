"""Linux audit: events put together from records that interleave, come in another order, or are missing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.host.recordings import FOLDER
from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS, Dialled, Endpoint, Executed, Exited, HostEvent
from topicwarden.sources import Counters
from topicwarden_collectors.host.auditd import AuditdDecoder

SECOND = 1_795_888_381


def message(serial: int, *, second: int = SECOND, node: str = "") -> str:
    return f"{f'node={node} ' if node else ''}type=%s msg=audit({second}.530:{serial}): "


def syscall(
    number: int = 59, arch: str = "c000003e", *, pid: int = 41, result: str = " success=yes exit=0", a0: str = "3"
) -> str:
    return (
        f"arch={arch} syscall={number}{result} a0={a0} a1=1 a2=2 a3=3 items=2 ppid=40 pid={pid} auid=1000 uid=33 gid=0 "
        'euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=pts3 ses=2 comm="x" exe="/usr/bin/x" key="tw"'
    )


def encoded(argument: bytes) -> bytes:
    """Return an argument as audit_log_n_untrustedstring writes it."""
    plain = all(0x21 <= byte <= 0x7E and byte != 0x22 for byte in argument)
    return b'"%s"' % argument if plain else argument.hex().upper().encode()


def execve_records(arguments: Sequence[bytes], size: int = 7500) -> list[bytes]:
    """Return the EXECVE records of a command line as audit_log_execve_info of the kernel writes them."""
    records = [b"argc=%d" % len(arguments)]
    for number, argument in enumerate(arguments):
        value = encoded(argument)
        bare = value.strip(b'"') if value.startswith(b'"') else value
        if len(bare) <= size:
            if len(records[-1]) + len(bare) > size + 100:
                records.append(b"")
            records[-1] += b" a%d=%s" % (number, value)
            continue
        records[-1] += b" a%d_len=%d" % (number, len(bare))
        for part, start in enumerate(range(0, len(bare), size)):
            piece = bare[start : start + size]
            if value.startswith(b'"'):
                piece = b'"%s"' % piece
            records.append(b" a%d[%d]=%s" % (number, part, piece))
    return records


def execution(
    serial: int,
    arguments: Sequence[bytes],
    *,
    second: int = SECOND,
    node: str = "",
    number: int = 59,
    arch: str = "c000003e",
    pid: int = 41,
) -> list[bytes]:
    head = message(serial, second=second, node=node)
    lines = [(head % "SYSCALL" + syscall(number, arch, pid=pid)).encode()]
    lines += [(head % "EXECVE").encode() + record for record in execve_records(arguments)]
    title = b"\0".join(arguments)[:128]
    return [*lines, (head % "PROCTITLE").encode() + b"proctitle=" + encoded(title)]


def dial(
    serial: int, saddr: str, *, number: int = 42, arch: str = "c000003e", result: str, a0: str = "3"
) -> list[bytes]:
    head = message(serial)
    return [
        (head % "SYSCALL" + syscall(number, arch, result=result, a0=a0)).encode(),
        (head % "SOCKADDR" + f"saddr={saddr}").encode(),
    ]


def decode(lines: Iterable[bytes], **options: int) -> tuple[list[HostEvent], Counters]:
    counters = Counters()
    decoder = AuditdDecoder(counters, host="h", **options)
    events = list(decoder.feed(b"\n".join([*lines, b""])))
    return [*events, *decoder.finish()], counters


def test_a_start_is_told_when_its_arguments_are_there() -> None:
    decoder = AuditdDecoder(Counters(), host="h")
    lines = execution(7, [b"x", b"a b"])
    assert list(decoder.feed(lines[0] + b"\n")) == []
    (event,) = decoder.feed(lines[1] + b"\n")
    assert isinstance(event, Executed)
    process = event.process
    assert event.time_ns == SECOND * 10**9 + 530_000_000
    assert (process.host, process.pid, process.parent_pid, process.executable) == ("h", 41, 40, "/usr/bin/x")
    assert (process.user, process.login_user, process.terminal) == ("33", "1000", "pts3")
    assert (process.arguments, process.cut) == (("x", "a b"), False)
    assert [*decoder.feed(lines[2] + b"\n"), *decoder.finish()] == []


ARGUMENTS = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"")),
        st.integers(7400, 24_000).map(lambda n: b"y" * n),
        st.integers(3700, 12_000).map(lambda n: b"y " * (n // 2)),
        st.just(b"4142"),
        st.just(b"(null)"),
        st.just(b"a1=x"),
    ),
    min_size=1,
    max_size=80,
)


@settings(max_examples=60, deadline=None)
@given(ARGUMENTS, st.randoms(use_true_random=False))
def test_arguments_are_those_of_the_program_in_whatever_order_the_records_come(
    arguments: list[bytes], chance: random.Random
) -> None:
    lines = execution(7, arguments)
    chance.shuffle(lines)
    events, counters = decode(lines)
    (event,) = events
    assert isinstance(event, Executed)
    expected = [a.decode("utf-8", "surrogateescape")[:MAX_ARGUMENT] for a in arguments[:MAX_ARGUMENTS]]
    if not any(b"=" in a or b":" in a or b"-" in a for a in arguments):  # no business of redaction
        assert list(event.process.arguments) == expected
    assert len(event.process.arguments) == len(expected)
    long = any(len(a.decode("utf-8", "surrogateescape")) > MAX_ARGUMENT for a in arguments[:MAX_ARGUMENTS])
    assert event.process.cut == (long or len(arguments) > MAX_ARGUMENTS)
    assert counters.decode_errors == {}


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.randoms(use_true_random=False))
def test_events_that_interleave_are_told_apart(count: int, chance: random.Random) -> None:
    chains = [execution(serial, [b"x", b"%d" % serial], pid=serial) for serial in range(count)]
    lines = []
    while chains:
        chain = chance.choice(chains)
        lines.append(chain.pop(0))
        if not chain:
            chains.remove(chain)
    events, _ = decode(lines)
    found = {e.process.pid: e.process.arguments for e in events if isinstance(e, Executed)}
    assert found == {serial: ("x", str(serial)) for serial in range(count)}
    assert len(events) == count


def test_the_same_serial_and_time_of_two_nodes_are_two_events() -> None:
    one, two = execution(7, [b"x"], node="one"), execution(7, [b"y"], node="two")
    events, _ = decode([one[0], two[0], two[1], one[1], one[2], two[2]])
    assert [(e.process.host, e.process.arguments) for e in events if isinstance(e, Executed)] == [
        ("two", ("y",)),
        ("one", ("x",)),
    ]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=6), st.data())
def test_a_start_with_records_missing_is_told_once_and_as_cut(arguments: list[bytes], data: st.DataObject) -> None:
    whole = execution(7, arguments)
    lost = data.draw(st.sets(st.integers(1, len(whole) - 2), min_size=1))
    events, counters = decode([line for number, line in enumerate(whole) if number not in lost])
    (event,) = events
    assert isinstance(event, Executed)
    everything = lost == set(range(1, len(whole) - 1))
    short = len(b"\0".join(arguments)) < 128
    assert event.process.cut != (everything and short)
    assert bool(counters.source.get("audit_titles_used")) == everything


def test_an_incomplete_event_is_told_when_others_are_two_seconds_newer() -> None:
    decoder = AuditdDecoder(Counters())
    lines = execution(7, [b"x", b"y"])
    assert list(decoder.feed(lines[0] + b"\n" + lines[2] + b"\n")) == []
    assert list(decoder.feed(execution(8, [b"z"], second=SECOND + 2)[0] + b"\n")) == []
    (event,) = decoder.feed(execution(9, [b"z"], second=SECOND + 3)[0] + b"\n")
    assert isinstance(event, Executed)
    assert event.process.arguments == ("x", "y")
    assert decoder.waiting == 2


def test_a_clock_set_back_hands_nothing_out_too_early() -> None:
    lines = [*execution(7, [b"x", b"y"]), *execution(8, [b"x", b"z"], second=SECOND - 86_400)]
    events, counters = decode(lines)
    assert [e.process.arguments for e in events if isinstance(e, Executed)] == [("x", "y"), ("x", "z")]
    assert counters.decode_errors == {}


def test_a_full_table_hands_out_the_oldest_and_counts() -> None:
    lines = [execution(serial, [b"x"], pid=serial)[0] for serial in range(50)]
    events, counters = decode(lines, max_pending=10)
    assert [e.process.pid for e in events if isinstance(e, Executed)] == list(range(50))
    assert all(e.process.cut for e in events if isinstance(e, Executed))
    assert counters.source["audit_events_evicted"] == 40


def test_what_waits_is_bounded_in_bytes_too() -> None:
    lines = [line for serial in range(60) for line in execution(serial, [b"x", b"y" * 100_000])[1:]]
    counters = Counters()
    decoder = AuditdDecoder(counters, max_bytes=1 << 20)
    list(decoder.feed(b"\n".join(lines)))
    assert decoder._bytes <= (1 << 20) + 100_000
    assert counters.source["audit_events_evicted"] > 0


def test_a_command_line_of_two_mebibytes_is_one_event() -> None:
    events, counters = decode(execution(7, [b"x", *[b"y" * 131_000] * 16]))
    (event,) = events
    assert isinstance(event, Executed)
    assert (len(event.process.arguments), event.process.cut, counters.decode_errors) == (17, True, {})
    events, counters = decode(execution(7, [b"x"] * 200_000))
    assert (len(events), counters.decode_errors) == (1, {})


ADDRESSES = {
    "0200075BCB007109" + "00" * 8: Endpoint("203.0.113.9", 1883),
    "0002075BCB007109" + "00" * 8: Endpoint("203.0.113.9", 1883),
    "0A0022B300000000" + "20010DB8" + "00" * 11 + "09" + "00000000": Endpoint("2001:db8::9", 8883),
    "0A00075B00000000" + "00" * 10 + "FFFFCB007109" + "00000000": Endpoint("203.0.113.9", 1883),
}


@pytest.mark.parametrize("saddr", ADDRESSES)
@pytest.mark.parametrize(
    ("result", "established"),
    [
        (" success=yes exit=0", None),
        (" success=no exit=-115", None),
        (" success=no exit=-512", None),
        (" success=no exit=-111", False),
        (" success=no exit=-110", False),
    ],
)
def test_a_connection_is_told_with_what_is_known_of_it(saddr: str, result: str, established: bool | None) -> None:
    events, _ = decode(dial(7, saddr, result=result))
    (event,) = events
    assert isinstance(event, Dialled)
    assert (event.remote, event.established, event.local) == (ADDRESSES[saddr], established, None)
    assert (event.pid, event.executable, event.user) == (41, "/usr/bin/x", "33")
    assert decode(reversed(dial(7, saddr, result=result)))[0] == events


@pytest.mark.parametrize(
    ("saddr", "result"),
    [
        ("01002F72756E2F6E6F6E6500", " success=yes exit=0"),  # AF_UNIX
        ("100000000000000000000000", " success=yes exit=0"),  # netlink
        ("02000000CB007109" + "00" * 8, " success=yes exit=0"),  # port 0
        ("0000", " success=yes exit=0"),  # AF_UNSPEC
        ("0200075BCB007109" + "00" * 8, " success=no exit=-2"),
        ("0200075BCB007109" + "00" * 8, " success=no exit=-114"),  # EALREADY: told before
        ("0200075BCB007109" + "00" * 8, " success=no exit=-13"),  # EACCES: nothing was sent
    ],
)
def test_what_is_no_connection_is_not_told(saddr: str, result: str) -> None:
    events, counters = decode(dial(7, saddr, result=result))
    assert (events, counters.decode_errors) == ([], {})


def test_an_address_that_cannot_be_read_is_counted() -> None:
    events, counters = decode(dial(7, "0200075B", result=" success=yes exit=0"))
    assert (events, counters.decode_errors) == ([], {"sockaddr": 1})


@pytest.mark.parametrize(
    ("arch", "execve", "connect", "leave"),
    [
        ("c000003e", 59, 42, 231),
        ("c000003e", 322, 42, 231),
        ("c000003e", 0x40000000 + 520, 0x40000000 + 42, 0x40000000 + 231),
        ("c00000b7", 221, 203, 94),
        ("40000003", 11, 362, 252),
        ("40000028", 11, 283, 248),
        ("c00000f3", 281, 203, 94),
    ],
)
def test_the_numbers_of_each_architecture_are_known(arch: str, execve: int, connect: int, leave: int) -> None:
    saddr = next(iter(ADDRESSES))
    head = message(9)
    lines = [
        *execution(7, [b"x"], number=execve, arch=arch),
        *dial(8, saddr, number=connect, arch=arch, result=" success=yes exit=0"),
        (head % "SYSCALL" + syscall(leave, arch, result="")).encode(),
    ]
    events, counters = decode(lines)
    assert [type(event) for event in events] == [Executed, Dialled, Exited]
    assert counters.decode_errors == {}


def test_a_socketcall_is_a_connection_only_when_it_says_so() -> None:
    saddr = next(iter(ADDRESSES))
    result = " success=yes exit=0"
    assert len(decode(dial(7, saddr, number=102, arch="40000003", result=result, a0="3"))[0]) == 1
    assert decode(dial(7, saddr, number=102, arch="40000003", result=result, a0="2"))[0] == []


def test_a_failed_start_is_not_told() -> None:
    lines = execution(7, [b"x"])
    lines[0] = (message(7) % "SYSCALL" + syscall(result=" success=no exit=-2")).encode()
    assert decode(lines) == ([], Counters())


def test_an_address_of_another_call_is_no_connection() -> None:
    lines = dial(7, next(iter(ADDRESSES)), number=49, result=" success=yes exit=0")  # bind
    assert decode(lines) == ([], Counters())
    assert decode(reversed(lines)) == ([], Counters())


def test_process_ids_used_again_at_once_are_told_in_order() -> None:
    head = message(8)
    lines = [
        *execution(7, [b"x", b"1"]),
        (head % "SYSCALL" + syscall(231, result="")).encode(),
        *execution(9, [b"x", b"2"]),
    ]
    events, _ = decode(lines)
    assert [type(event) for event in events] == [Executed, Exited, Executed]


def test_names_come_from_the_enriched_part_and_an_unset_login_is_none() -> None:
    head = message(7) % "SYSCALL" + syscall().replace("auid=1000", "auid=4294967295")
    names = 'ARCH=x86_64 SYSCALL=execve AUID="unset" UID="www-data" GID="root"'
    lines = execution(7, [b"x"])
    for separator in ("\x1d", "\x1d "):
        lines[0] = (head + separator + names).encode()
        (event,) = decode(lines)[0]
        assert isinstance(event, Executed)
        assert (event.process.user, event.process.login_user) == ("www-data", None)


def test_what_a_program_writes_into_its_arguments_forges_no_record() -> None:
    forged = execution(8, [b"forged"], pid=666)
    lines = execution(7, [b"x", b"\n".join(forged), b'" a2="y', b'\x1dUID="evil"'])
    events, _ = decode(lines)
    (event,) = events
    assert isinstance(event, Executed)
    assert (event.process.pid, event.process.user) == (41, "33")
    assert event.process.arguments[2] == '" a2="y'


def test_raw_and_enriched_records_tell_the_same_but_for_names() -> None:
    data = (FOLDER / "auditd-commands.log").read_bytes()
    raw = b"\n".join(line.partition(b"\x1d")[0] for line in data.split(b"\n"))
    enriched_events, raw_events = decode(data.split(b"\n"))[0], decode(raw.split(b"\n"))[0]
    assert len(raw_events) == len(enriched_events)
    names = {(e.process.user, e.process.login_user) for e in raw_events if isinstance(e, Executed)}
    assert names == {("0", "34"), ("65534", "34")}


def test_a_log_cut_anywhere_tells_no_more_than_the_whole() -> None:
    data = (FOLDER / "auditd-interleaved.log").read_bytes()
    whole = decode(data.split(b"\n"))[0]
    for end in range(0, len(data), 997):
        events, _ = decode([data[:end]])
        finished = [event for event in events if event in whole]
        assert len(events) - len(finished) <= 8  # at most those that were being written: eight programs


def test_an_argument_whose_line_was_cut_is_no_whole_one() -> None:
    counters = Counters()
    decoder = AuditdDecoder(counters)
    log = (message(1) % "SYSCALL" + syscall() + "\n" + message(1) % "EXECVE" + 'argc=2 a0="nc" a1="10.0.0\n').encode()
    assert list(decoder.feed(log)) == []
    (event,) = decoder.finish()
    assert isinstance(event, Executed)
    assert event.process.arguments == ("nc", "10.0.0")
    assert event.process.cut
    assert counters.decode_errors == {"arguments": 1}
