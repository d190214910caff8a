"""The kernel's own word on TCP sockets: SOCK_DIAG (linux/inet_diag.h), asked for those open and told of those closed.

Of a closed socket the kernel (6.18, as seen) tells addresses, ports, its cookie and tcp_info; its user and inode read 0
whoever had it, and of one whose connection never came to stand the ports are gone too.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Collection, Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from topicwarden.hosts.addresses import normalised
from topicwarden_collectors.host.netlink import (
    DONE,
    ERROR,
    SOCK_DIAG,
    NetlinkSocket,
    attribute,
    attributes,
    half_word_filter,
    message,
    messages,
)

RECEIVE_BYTES: Final = 4 << 20
MAX_SOCKETS: Final = 65_536
"""Sockets taken of one answer."""
_BY_FAMILY: Final = 20
"""SOCK_DIAG_BY_FAMILY"""
_BOTH_FAMILIES: Final = 18
"""TCPDIAG_GETSOCK, the question of before Linux 3.3: it is answered for IPv4 and IPv6 in one walk over all sockets."""
_OLD_REQUEST: Final = struct.Struct("=BBBB48xII")
_DUMP: Final = 0x301
"""NLM_F_REQUEST | NLM_F_DUMP"""
_REQUEST: Final = struct.Struct("=BBBBI")
_SOCKET_ID_BYTES: Final = 48
_SOCKET: Final = struct.Struct("!BBBBHH16s16s")
_REST: Final = struct.Struct("=IQIIIII")
"""Interface, cookie, expiry, queues, user, inode."""
_SOCKET_BYTES: Final = _SOCKET.size + _REST.size
_INFO: Final = 2
"""INET_DIAG_INFO"""
_ACKNOWLEDGED_AT: Final = 120
_SENT_AT: Final = 200
"""Where tcp_info has tcpi_bytes_acked (4.1) and tcpi_bytes_sent (4.19)."""
_BYTECODE: Final = 1
"""INET_DIAG_REQ_BYTECODE"""
_JUMP: Final = 1
_REMOTE_AT_LEAST: Final = 4
_REMOTE_AT_MOST: Final = 5
"""INET_DIAG_BC_JMP, _D_GE, _D_LE"""
_MAX_PORTS: Final = 2000
_DESTROYED: Final = 0b101
"""The mask of the groups SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY."""
_REMOTE_PORT_AT: Final = 22
"""Where a message of a closed socket has its remote port."""
_ANSWER_S: Final = 2.0
_FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)


class State(IntEnum):
    """States of a TCP socket; their values are the kernel's."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECEIVED = 3
    FIN_WAIT_1 = 4
    FIN_WAIT_2 = 5
    TIME_WAIT = 6
    CLOSED = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECEIVED = 12


CONNECTED: Final = (
    State.ESTABLISHED,
    State.SYN_SENT,
    State.FIN_WAIT_1,
    State.FIN_WAIT_2,
    State.CLOSE_WAIT,
    State.LAST_ACK,
    State.CLOSING,
)
"""The states of a connection that somebody made or tries to make and that is not over."""
_STATES: Final = {int(state): state for state in State}


class TcpSocket(NamedTuple):
    """A TCP socket as the kernel tells of it."""

    state: State
    local_address: str
    local_port: int
    remote_address: str
    remote_port: int
    cookie: int
    """Unlike any other socket's since the machine was started."""
    inode: int
    """0: no process has it (any more)."""
    uid: int | None
    """Who made it; None: not told."""
    sent: int | None = None
    """Bytes of data sent, repeated ones included."""
    acknowledged: int | None = None
    """What the other side has acknowledged, its answer to our wish to connect (one byte) included."""


def read_socket(body: bytes) -> TcpSocket | None:
    """Read an inet_diag_msg with its attributes; None when it is none."""
    if len(body) < _SOCKET_BYTES:
        return None
    family, number, _, _, local_port, remote_port, local, remote = _SOCKET.unpack_from(body)
    _, cookie, _, _, _, uid, inode = _REST.unpack_from(body, _SOCKET.size)
    state = _STATES.get(number)
    if state is None or family not in _FAMILIES:
        return None
    sent = acknowledged = None
    if len(body) > _SOCKET_BYTES:
        info = attributes(body[_SOCKET_BYTES:]).get(_INFO, b"")
        acknowledged, sent = _number(info, _ACKNOWLEDGED_AT), _number(info, _SENT_AT)
    return TcpSocket(
        state,
        _address(family, local),
        local_port,
        _address(family, remote),
        remote_port,
        cookie,
        inode,
        uid if inode else None,
        sent,
        acknowledged,
    )


def _number(info: bytes, at: int) -> int | None:
    return int.from_bytes(info[at : at + 8], "little" if _LITTLE else "big") if len(info) >= at + 8 else None


_LITTLE: Final = struct.pack("=H", 1) == b"\1\0"


def _address(family: int, data: bytes) -> str:
    text = socket.inet_ntop(family, data[:4] if family == socket.AF_INET else data)
    return text if family == socket.AF_INET else normalised(text) or text


def remote_ports_bytecode(ports: Collection[int]) -> bytes:
    """Return a program for INET_DIAG_REQ_BYTECODE that takes sockets connected to one of these ports.

    Five operations a port: at least, its operand, at most, its operand, and a jump to the end, which means to take it.
    """
    wanted = sorted(set(ports))
    length = 20 * len(wanted)
    program = []
    for number, port in enumerate(wanted):
        end = length - 20 * number
        beyond = 24 if number == len(wanted) - 1 else 20  # past the end means not to take it
        program += [
            (_REMOTE_AT_LEAST, 8, beyond),
            (0, 0, port),
            (_REMOTE_AT_MOST, 8, beyond - 8),
            (0, 0, port),
            (_JUMP, 4, end - 16),
        ]
    return b"".join(struct.pack("=BBH", *operation) for operation in program)


def dump_request(family: int, states: Collection[State], ports: Collection[int] | None, *, sequence: int) -> bytes:
    """Return the request for all TCP sockets of a family in these states, connected to these ports (None: to any).

    AF_UNSPEC asks for both families at once.
    """
    mask = 0
    for state in states:
        mask |= 1 << state
    if family == socket.AF_UNSPEC:
        body = _OLD_REQUEST.pack(family, 0, 0, 0, mask, 0)
    else:
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, mask) + bytes(_SOCKET_ID_BYTES)
    if ports is not None and 0 < len(ports) <= _MAX_PORTS:
        body += attribute(_BYTECODE, remote_ports_bytecode(ports))
    kind = _BOTH_FAMILIES if family == socket.AF_UNSPEC else _BY_FAMILY
    return message(kind, _DUMP, body, sequence=sequence)


class SocketDump:
    """Asks for the sockets open now. An answer that was cut short counts as `incomplete`."""

    def __init__(self, ports: Collection[int]) -> None:
        """`ports`: which remote ports matter. Raises OSError when the kernel does not answer."""
        self.malformed = 0
        self.incomplete = 0
        self._ports = frozenset(ports)
        self._sequence = 0
        self._socket = NetlinkSocket(SOCK_DIAG, receive_bytes=RECEIVE_BYTES)
        self._waiting = select.poll()
        self._waiting.register(self._socket, select.POLLIN)
        self._families: tuple[int, ...] = (socket.AF_UNSPEC,)
        try:
            try:
                self.connected()
            except OSError:
                self._families = _FAMILIES
                self.connected()
        except BaseException:
            self._socket.close()
            raise

    def connected(self) -> list[TcpSocket]:
        """Return the sockets connected, or being connected, to the ports that matter. Raises OSError."""
        return [one for one in self._ask(CONNECTED, self._ports) if one.remote_port in self._ports]

    def listening(self) -> list[TcpSocket]:
        """Return the listening sockets. Raises OSError."""
        return self._ask((State.LISTEN,), None)

    def close(self) -> None:
        """Close it; may be called again."""
        self._socket.close()

    def _ask(self, states: Collection[State], ports: Collection[int] | None) -> list[TcpSocket]:
        found: list[TcpSocket] = []
        for family in self._families:
            self._sequence += 1
            self._socket.send(dump_request(family, states, ports, sequence=self._sequence))
            self._take(found)
        return found

    def _take(self, found: list[TcpSocket]) -> None:
        """Take one answer. The kernel writes its first part while we ask, and each other one as we read."""
        overruns = self._socket.overruns
        deadline = time.monotonic() + _ANSWER_S
        while True:
            datagram = self._socket.receive()
            if self._socket.overruns > overruns:
                self.incomplete += 1
                overruns = self._socket.overruns
            if datagram is None:
                left = deadline - time.monotonic()
                if left <= 0 or not self._waiting.poll(left * 1000):
                    raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
                continue
            for one in messages(datagram):
                if one is None:
                    self.malformed += 1
                elif one.sequence != self._sequence:
                    continue  # of an answer that came too late
                elif one.kind == DONE:
                    return
                elif one.kind == ERROR:
                    number = -struct.unpack_from("=i", one.body)[0] if len(one.body) >= 4 else errno.EPROTO
                    raise OSError(number, os.strerror(number))
                elif len(found) >= MAX_SOCKETS:
                    self.incomplete += 1
                elif (tcp := read_socket(one.body)) is not None:
                    found.append(tcp)
                else:
                    self.malformed += 1


class ClosedSockets:
    """Told by the kernel of each TCP socket that ends, connected to the ports that matter."""

    def __init__(self, ports: Collection[int]) -> None:
        """Join the groups; raises OSError when we may not. Others' sockets are dropped inside the kernel."""
        self.malformed = 0
        self._ports = frozenset(ports)
        self._socket = NetlinkSocket(
            SOCK_DIAG,
            groups=_DESTROYED,
            receive_bytes=RECEIVE_BYTES,
            program=half_word_filter(_REMOTE_PORT_AT, self._ports),
        )

    @property
    def overruns(self) -> int:
        """How many times the kernel had no room for one."""
        return self._socket.overruns

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def read(self, most: int) -> Iterator[TcpSocket]:
        """Yield what has come, of at most `most` datagrams."""
        for _ in range(most):
            datagram = self._socket.receive()
            if datagram is None:
                return
            for one in messages(datagram):
                tcp = None if one is None or one.kind != _BY_FAMILY else read_socket(one.body)
                if tcp is None:
                    self.malformed += 1
                elif tcp.remote_port in self._ports:
                    yield tcp

    def close(self) -> None:
        """Close it; may be called again."""
        self._socket.close()
