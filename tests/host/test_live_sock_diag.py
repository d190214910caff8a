"""TCP sockets as the kernel tells of them: bytes it has sent, any others, and the running kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.brokers import free_port, wait_for
from topicwarden_collectors.host.netlink import messages
from topicwarden_collectors.host.procfs_net import ListedSockets, read_line
from topicwarden_collectors.host.sock_diag import (
    ClosedSockets,
    SocketDump,
    State,
    TcpSocket,
    read_socket,
    remote_ports_bytecode,
)

# Recorded from Linux 6.18, x86_64: a connection to 127.83.0.1:1883 that sent 123 bytes, ended; one to [::1]:8883, open.
ENDED = bytes.fromhex(
    "7c010000140000000000000000000000020700008b0c075b7f0000010000000000000000000000007f53000100000000000000000000"
    "0000000000004429000000000000000000000000000001000000000000000000000005000a00060000001c010200070000000007aa01"
    "e01c0300000000000080000018020000000000000000000000000000000000000000000000000000000000000000000000000000ffff"
    "0000d7ff00002400000014000000ffffff7f0b000000cbff00000300000000000000d7ff0000000000007d18497205000000ffffffff"
    "ffffffff7c0000000000000000000000000000000400000003000000000000000b0000000000000001000000a28b8eb1000000000000"
    "0000000000000000000000000000000000000000000002000000000000007b0000000000000000000000000000000000000000000000"
    "000000000000010000000100000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000"
)
OPEN = bytes.fromhex(
    "7c00000012000200070000002239f1ec0a010000a6ae22b3000000000000000000000000000000010000000000000000000000000000"
    "000100000000462900000000000000000000000000000000000000000000c8960e00050008000000000008000f00000000000c001500"
    "01000000000000000600160012000000"
)


def body(datagram: bytes) -> bytes:
    if struct.pack("=H", 1) != b"\1\0":
        pytest.skip("the recorded bytes are of a little-endian machine")
    (one,) = messages(datagram)
    assert one is not None
    return one.body


def test_an_open_socket_is_read() -> None:
    assert read_socket(body(OPEN)) == TcpSocket(State.ESTABLISHED, "::1", 42670, "::1", 8883, 0x2946, 956104, 0)


def test_of_an_ended_connection_its_ends_and_what_was_sent_are_read_and_no_user() -> None:
    assert read_socket(body(ENDED)) == TcpSocket(
        State.CLOSED, "127.0.0.1", 35596, "127.83.0.1", 1883, 0x2944, 0, None, sent=123, acknowledged=124
    )


@given(st.sampled_from([ENDED, OPEN]), st.integers(0, 400), st.integers(0, 255), st.integers(0, 400))
def test_a_damaged_socket_raises_nothing(datagram: bytes, at: int, byte: int, length: int) -> None:
    data = body(datagram)
    read_socket((data[:at] + bytes([byte]) + data[at + 1 :])[:length])


@given(st.binary(max_size=400))
def test_no_bytes_make_the_reader_raise(data: bytes) -> None:
    read_socket(data)
    read_line(data)


def run_bytecode(program: bytes, port: int) -> bool:
    """Run a program of inet_diag as inet_diag_bc_run does, checking each step as inet_diag_bc_audit does."""
    length = len(program)
    at = 0
    while at < length:
        code, yes, no = struct.unpack_from("=BBH", program, at)
        if code == 1:
            holds = False
        else:
            _, _, operand = struct.unpack_from("=BBH", program, at + 4)
            holds = port >= operand if code == 4 else port <= operand
            assert code in (4, 5)
        step = yes if holds else no
        assert step >= (4 if code == 1 else 8)
        assert step % 4 == 0
        assert step <= length - at + 4
        at += step
    return at == length


@given(st.sets(st.integers(0, 0xFFFF), min_size=1, max_size=200), st.integers(0, 0xFFFF), st.data())
def test_the_program_takes_sockets_connected_to_the_wanted_ports_and_no_others(
    wanted: set[int], port: int, data: st.DataObject
) -> None:
    port = data.draw(st.sampled_from([port, *sorted(wanted)]))
    assert run_bytecode(remote_ports_bytecode(wanted), port) == (port in wanted)


@contextlib.contextmanager
def connection(address: str, port: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with (
        socket.create_server((address, port), family=family) as listener,
        socket.create_connection((address, port)) as ours,
    ):
        theirs, _ = listener.accept()
        with theirs:
            yield ours, theirs


@contextlib.contextmanager
def dump(ports: set[int]) -> Iterator[SocketDump]:
    found = SocketDump(ports)
    try:
        yield found
    finally:
        found.close()


@pytest.mark.parametrize("address", ["127.83.7.1", "::1"])
@pytest.mark.parametrize("families", [None, (socket.AF_INET, socket.AF_INET6)])
def test_the_kernel_tells_which_sockets_are_connected_to_a_port(address: str, families: tuple[int, ...] | None) -> None:
    port, other = free_port(), free_port()
    with connection(address, port) as (ours, theirs), connection(address, other), dump({port}) as sockets:
        if families is not None:
            sockets._families = families
        (one,) = sockets.connected()
        name = ours.getsockname()
        assert (one.local_address, one.local_port, one.remote_address, one.remote_port) == (*name[:2], address, port)
        assert (one.inode, one.uid, one.state) == (os.fstat(ours.fileno()).st_ino, os.getuid(), State.ESTABLISHED)
        listening = {(found.local_address, found.local_port) for found in sockets.listening()}
        assert {(address, port), (address, other)} <= listening
        # The other end is connected to a port that nobody asked for.
        assert theirs.getpeername()[1] == one.local_port


def test_an_address_of_ipv4_in_an_ipv6_socket_is_told_as_ipv4() -> None:
    port = free_port()
    with (
        socket.create_server(("127.83.7.1", port)),
        socket.socket(socket.AF_INET6) as ours,
        dump({port}) as sockets,
    ):
        ours.connect(("::ffff:127.83.7.1", port))
        (one,) = sockets.connected()
        assert (one.local_address, one.remote_address) == ("127.0.0.1", "127.83.7.1")


def test_so_many_ports_that_no_program_holds_them_are_told_apart_by_us() -> None:
    port = free_port()
    with connection("127.83.7.1", port) as (ours, _), dump(set(range(1, 3000)) | {port}) as sockets:
        assert os.fstat(ours.fileno()).st_ino in {one.inode for one in sockets.connected()}


def test_what_proc_lists_is_what_the_kernel_answers() -> None:
    port = free_port()
    with connection("127.83.7.1", port), connection("::1", port), dump({port}) as sockets:
        listed = ListedSockets({port})
        kernel = {one._replace(cookie=one.inode) for one in sockets.connected()}
        assert len(kernel) == 2
        assert set(listed.connected()) == kernel
        ours = {one._replace(cookie=one.inode) for one in sockets.listening() if one.local_port == port}
        assert {one for one in listed.listening() if one.local_port == port} == ours
        assert listed.malformed == 0


def wait_for_ends(ended: ClosedSockets) -> list[TcpSocket]:
    found: list[TcpSocket] = []

    def come() -> bool:
        found.extend(ended.read(10))
        return bool(found)

    wait_for(come, "the end of a connection")
    return found


def test_the_kernel_tells_of_a_connection_that_has_ended() -> None:
    port, other = free_port(), free_port()
    ended = ClosedSockets({port})
    try:
        with connection("127.83.7.1", other), connection("127.83.7.1", port) as (ours, theirs):
            local = ours.getsockname()[1]
            ours.sendall(b"x" * 41)
            assert theirs.recv(100)
        (one,) = wait_for_ends(ended)
        assert (one.local_port, one.remote_port, one.sent) == (local, port, 41)
        assert one.acknowledged
    finally:
        ended.close()


def test_an_ended_connection_has_the_cookie_it_had_when_it_was_open() -> None:
    port = free_port()
    ended = ClosedSockets({port})
    try:
        with dump({port}) as sockets, connection("127.83.7.1", port):
            (one,) = sockets.connected()
        assert [last.cookie for last in wait_for_ends(ended)] == [one.cookie]
    finally:
        ended.close()
