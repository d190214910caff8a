"""The kernel's own word on processes: the process events connector (linux/cn_proc.h), over netlink.

An event has the number of its processor and counts up there, so what was lost can be counted. Its time is the kernel's
monotonic clock. The kernel tells only listeners in its initial namespaces of users and processes: others are ignored
without a word (cn_proc_mcast_ctl), and those in another network namespace get ECONNREFUSED.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from enum import IntEnum
from typing import Final, NamedTuple

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.host.netlink import CONNECTOR, DONE, NetlinkSocket, message

RECEIVE_BYTES: Final = 16 << 20
"""Room for some 20 000 events: several seconds of 100 000 programs a minute."""
_CONNECTOR_ID: Final = (1, 1)
"""CN_IDX_PROC, CN_VAL_PROC"""
_GROUPS: Final = 1
"""The mask of group CN_IDX_PROC."""
_LISTEN: Final = 1
_IGNORE: Final = 2
_HEAD: Final = struct.Struct("=IHHIIIIIIHH")
"""nlmsghdr, cn_msg"""
_EVENT: Final = struct.Struct("=IHHIIIIIIHHIIQIIII")
"""nlmsghdr, cn_msg, the beginning of proc_event and of what any kind of event holds."""
_ACKNOWLEDGED: Final = 0
_MAX_WAITING: Final = 4096
"""Datagrams looked at for the kernel's answer; those before it happened before we listened."""


class Happened(IntEnum):
    """The events that matter; their values are the kernel's."""

    FORK = 0x1
    EXEC = 0x2
    EXIT = 0x80000000


class ProcessEvent(NamedTuple):
    """One event of a process as a whole; those of its further threads are left out."""

    happened: Happened
    processor: int
    sequence: int
    monotonic_ns: int
    pid: int
    parent_pid: int | None = None
    """Of a fork."""


class Passed(NamedTuple):
    """An event that does not matter, or of a thread; it counts in the sequence."""

    processor: int
    sequence: int


class Answer(NamedTuple):
    """The kernel's answer to the wish to listen, ours or another's; it counts in the sequence."""

    processor: int
    sequence: int
    error: int


_HAPPENED: Final = {int(kind): kind for kind in Happened}


def read_event(datagram: bytes) -> ProcessEvent | Passed | Answer | None:
    """Read a datagram of the connector; None when it is none."""
    if len(datagram) < _EVENT.size:
        return None
    (
        length, kind, _, _, _, index, value, sequence, _, size, _,
        what, processor, time_ns, first, second, third, fourth,
    ) = _EVENT.unpack_from(datagram)  # fmt: skip
    if kind != DONE or (index, value) != _CONNECTOR_ID or length > len(datagram) or size < _EVENT.size - _HEAD.size:
        return None
    if what == _ACKNOWLEDGED:
        return Answer(processor, sequence, first if first < 1 << 31 else (1 << 32) - first)
    happened = _HAPPENED.get(what)
    if happened is Happened.FORK:
        # parent's thread and process, child's thread and process
        if third == fourth:
            return ProcessEvent(happened, processor, sequence, time_ns, fourth, second)
    elif happened is not None and first == second:
        return ProcessEvent(happened, processor, sequence, time_ns, second)
    return Passed(processor, sequence)


class Sequences:
    """Counts events that are missing, by what each processor counts."""

    def __init__(self) -> None:
        self._next: dict[int, int] = {}

    def missing(self, processor: int, sequence: int) -> int:
        """Take an event's number; return how many before it did not come.

        A number that goes back is a count begun anew, not a loss of four thousand millions.
        """
        expected = self._next.get(processor)
        self._next[processor] = (sequence + 1) & 0xFFFFFFFF
        if expected is None:
            return 0
        gap = (sequence - expected) & 0xFFFFFFFF
        return gap if gap < 1 << 31 else 0


class ProcessEvents:
    """Listens to the connector."""

    def __init__(self) -> None:
        """Begin to listen; raises ObservationError when the kernel does not let us, or does not answer."""
        try:
            self._socket = NetlinkSocket(CONNECTOR, groups=_GROUPS, receive_bytes=RECEIVE_BYTES)
        except OSError as error:
            raise _refused(error) from error
        try:
            self._listen()
        except OSError as error:
            self.close()
            raise _refused(error) from error
        except BaseException:
            self.close()
            raise

    def _listen(self) -> None:
        """Ask to be told; the kernel answers before `send` returns, unless it ignores us."""
        self._socket.send(_operation(_LISTEN))
        for _ in range(_MAX_WAITING):
            datagram = self._socket.receive()
            if datagram is None:
                break
            answer = read_event(datagram)
            if isinstance(answer, Answer):
                if answer.error:
                    raise OSError(answer.error, os.strerror(answer.error))
                return
        raise ObservationError(
            Problem(
                "the kernel does not answer: it tells of processes only in its initial namespaces",
                hint="run it on the host itself, or in a container with --pid=host --net=host and no user namespace",
            )
        )

    @property
    def overruns(self) -> int:
        """How many times the kernel had no room for an event."""
        return self._socket.overruns

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """Return the next datagram, None when there is none."""
        return self._socket.receive()

    def close(self) -> None:
        """Have the kernel stop telling us; may be called again."""
        with contextlib.suppress(OSError):
            self._socket.send(_operation(_IGNORE))
        self._socket.close()


def _operation(operation: int) -> bytes:
    """Return a message to the connector."""
    body = struct.pack("=IIIIHHI", *_CONNECTOR_ID, 0, 0, 4, 0, operation)
    return message(DONE, 0, body)


def _refused(error: OSError) -> ObservationError:
    if error.errno in (errno.EPERM, errno.EACCES):
        return ObservationError(
            Problem(
                f"the kernel does not tell us of processes: {error.strerror}",
                hint="run it as root, or with CAP_NET_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
            )
        )
    return ObservationError(
        Problem(
            f"the kernel does not tell us of processes: {error.strerror or error}",
            hint="run it on the host itself, in its initial namespaces; the kernel needs CONFIG_PROC_EVENTS",
        )
    )
