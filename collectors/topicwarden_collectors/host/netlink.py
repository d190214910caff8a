"""Netlink: the messages of a datagram, the attributes of a message, and sockets that say when the kernel lost some.

Formats: linux/netlink.h, linux/filter.h. Whatever is received is checked: lengths are the sender's word.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

SOCK_DIAG: Final = 4
"""NETLINK_SOCK_DIAG"""
CONNECTOR: Final = 11
"""NETLINK_CONNECTOR"""
ERROR: Final = 2
"""NLMSG_ERROR"""
DONE: Final = 3
"""NLMSG_DONE"""
MAX_DATAGRAM: Final = 1 << 16
"""Bytes asked for at once; the kernel fills at most 32 KiB of an answer to a dump."""
_HEADER: Final = struct.Struct("=IHHII")
_ATTRIBUTE: Final = struct.Struct("=HH")
_ATTRIBUTE_TYPE: Final = 0x3FFF
"""What is left of an attribute's type without NLA_F_NESTED and NLA_F_NET_BYTEORDER."""
_SO_ATTACH_FILTER: Final = 26
_SO_RCVBUFFORCE: Final = 33
_LOAD_HALF: Final = 0x28
"""BPF_LD | BPF_H | BPF_ABS"""
_JUMP_EQUAL: Final = 0x15
"""BPF_JMP | BPF_JEQ | BPF_K"""
_RETURN: Final = 0x06
"""BPF_RET | BPF_K"""
_MAX_FILTER: Final = 4096
"""BPF_MAXINSNS"""


class Message(NamedTuple):
    """One netlink message."""

    kind: int
    flags: int
    sequence: int
    body: bytes


def message(kind: int, flags: int, body: bytes, *, sequence: int = 0) -> bytes:
    """Return a message with its header."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(datagram: bytes) -> Iterator[Message | None]:
    """Yield the messages of a datagram, and None where one says a length that cannot be: then nothing follows."""
    at = 0
    while at < len(datagram):
        if at + _HEADER.size > len(datagram):
            yield None
            return
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size or at + length > len(datagram):
            yield None
            return
        yield Message(kind, flags, sequence, datagram[at + _HEADER.size : at + length])
        at += _aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute, padded."""
    data = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value
    return data + bytes(_aligned(len(data)) - len(data))


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes of a message by kind; what comes after one whose length cannot be is left out."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            break
        found[kind & _ATTRIBUTE_TYPE] = data[at + _ATTRIBUTE.size : at + length]
        at += _aligned(length)
    return found


def half_word_filter(offset: int, accepted: Collection[int]) -> bytes | None:
    """Return a classic BPF program that takes datagrams whose 16 bits at `offset` are one of these, network order.

    None when there are too many for one program.
    """
    program = [(_LOAD_HALF, 0, 0, offset)]
    for value in sorted(accepted):
        program += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, MAX_DATAGRAM)]
    program.append((_RETURN, 0, 0, 0))
    if len(program) > _MAX_FILTER:
        return None
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


class NetlinkSocket:
    """A netlink socket that never blocks and takes messages from the kernel only."""

    def __init__(self, protocol: int, *, groups: int = 0, receive_bytes: int, program: bytes | None = None) -> None:
        """Open it; raises OSError. `groups`: mask of the multicast groups to join; `program`: what to let through.

        The groups are joined by bind: joined by NETLINK_ADD_MEMBERSHIP alone, a socket that is not bound yet got
        nothing of SOCK_DIAG (kernel 6.18).
        """
        self.overruns = 0
        """How many times the kernel had no room for a message."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        try:
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, receive_bytes)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            if program is not None:
                instructions = ctypes.create_string_buffer(program, len(program))
                head = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
            self._socket.bind((0, groups))
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor; -1 when it is closed."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send messages to the kernel; raises OSError."""
        self._socket.sendto(data, (0, 0))

    def receive(self) -> bytes | None:
        """Return the next datagram, None when there is none; raises OSError when the socket is of no use any more."""
        while True:
            try:
                datagram, sender = self._socket.recvfrom(MAX_DATAGRAM)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                continue
            if sender[0] == 0:
                return datagram

    def close(self) -> None:
        """Close it; may be called again."""
        with contextlib.suppress(OSError):
            self._socket.close()


def _aligned(length: int) -> int:
    return (length + 3) & ~3
