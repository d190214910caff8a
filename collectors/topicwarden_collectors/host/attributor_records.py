"""What the helper topicwarden-attribute tells, as `brokers/mosquitto/attribute_wire.h` lays it out: no I/O, no clock.

A test compiles that header and compares every number here with it.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

from topicwarden.events import Dialled, Endpoint, Executed, HostEvent, Process
from topicwarden_collectors.host.procfs import container_of, terminal_of, user_name
from topicwarden_collectors.host.redaction import seen_command

VERSION: Final = 1
MAGIC: Final = 0x4F485754
PATH_MAX: Final = 4096
COMMAND_MAX: Final = 256 * 1024
CGROUP_MAX: Final = 4096
SOCKET_PATH_MAX: Final = 108
READY: Final = 1
CONNECTION: Final = 2
FAMILY_UNIX: Final = 1
FAMILY_IPV4: Final = 4
FAMILY_IPV6: Final = 6
CUT: Final = 0x01
NOBODY: Final = 0xFFFFFFFF

HEAD: Final = struct.Struct("<IIHBBBBHHHIIIQQQIIi16s16sIIIII")
"""struct tw_attribute_record"""
_BEGINNING: Final = struct.Struct("<IIHB")
_LENGTHS: Final = (PATH_MAX, PATH_MAX, COMMAND_MAX, CGROUP_MAX, SOCKET_PATH_MAX)
"""What each of the texts has at most, in their order."""
MAX_RECORD: Final = HEAD.size + sum(_LENGTHS)
_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")


class Result(IntEnum):
    """How a search ended: enum tw_attribute_result."""

    FOUND = 0
    NO_CONNECTION = 1
    NO_PROCESS = 2
    OUT_OF_TIME = 3
    GONE = 4


class Record(NamedTuple):
    """One record."""

    ready: bool
    """The first one: it says that the helper listens, and nothing else."""
    result: Result
    time_ns: int
    dropped: int
    """Records that the helper could not write so far."""
    family: int
    client: Endpoint | None
    """None for a unix socket."""
    broker: Endpoint
    """Of a unix socket its path, with port 0."""
    socket_uid: int | None
    pid: int
    """0: not found; then what follows is empty."""
    parent_pid: int | None
    started_ns: int
    """Nanoseconds from the start of the machine to the process's."""
    uid: int | None
    login_uid: int | None
    terminal: str | None
    executable: bytes
    parent_executable: bytes
    command: bytes
    """Arguments, each ended by a zero byte."""
    cut: bool
    cgroups: bytes


class RecordDecoder:
    """Cuts the helper's stream into records, however it comes in pieces."""

    def __init__(self) -> None:
        self.broken = False
        """Whether something came that is no record: then nothing after it can be read."""
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records these bytes complete. Exhaust it before the next call."""
        if self.broken:
            return
        self._rest += data
        at = 0
        while len(self._rest) - at >= HEAD.size:
            magic, size, version, kind = _BEGINNING.unpack_from(self._rest, at)
            good = magic == MAGIC and version == VERSION and kind in (READY, CONNECTION)
            if not good or not HEAD.size <= size <= MAX_RECORD:
                self.broken = True
                break
            if len(self._rest) - at < size:
                break
            record = read_record(bytes(self._rest[at : at + size]))
            if record is None:
                self.broken = True
                break
            at += size
            yield record
        del self._rest[: len(self._rest) if self.broken else at]


def read_record(data: bytes) -> Record | None:
    """Read one whole record; None when it is none."""
    if len(data) < HEAD.size:
        return None
    (
        magic, size, version, kind, result, family, flags, client_port, broker_port, _, pid, parent_pid, socket_user,
        time_ns, start_ticks, dropped, user, login_user, terminal, client_address, broker_address, *lengths,
    ) = HEAD.unpack_from(data)  # fmt: skip
    if (magic, version, size) != (MAGIC, VERSION, len(data)) or kind not in (READY, CONNECTION):
        return None
    if any(length > most for length, most in zip(lengths, _LENGTHS, strict=True)):
        return None
    if size != HEAD.size + sum(lengths) or result > max(Result) or max(time_ns, start_ticks * _TICK_NS) >= 1 << 63:
        return None
    if kind == CONNECTION and family not in (FAMILY_UNIX, FAMILY_IPV4, FAMILY_IPV6):
        return None
    texts, at = [], HEAD.size
    for length in lengths:
        texts.append(data[at : at + length])
        at += length
    executable, parent_executable, command, cgroups, path = texts
    of_unix = family == FAMILY_UNIX
    return Record(
        ready=kind == READY,
        result=Result(result),
        time_ns=time_ns,
        dropped=dropped,
        family=family,
        client=None if of_unix else _endpoint(family, client_address, client_port),
        broker=Endpoint(_text(path), 0) if of_unix else _endpoint(family, broker_address, broker_port),
        socket_uid=_known(socket_user),
        pid=pid if result == Result.FOUND else 0,
        parent_pid=parent_pid or None,
        started_ns=start_ticks * _TICK_NS,
        uid=_known(user),
        login_uid=_known(login_user),
        terminal=terminal_of(terminal & NOBODY),
        executable=executable,
        parent_executable=parent_executable,
        command=command,
        cut=bool(flags & CUT),
        cgroups=cgroups,
    )


def host_events(record: Record, host: str, booted_ns: int) -> list[HostEvent]:
    """Return what a record tells: the process, where it was found, as started when it was, and its connection.

    `booted_ns`: when the machine started, nanoseconds since the epoch. Without a process the connection still has the
    user who made it.
    """
    if record.ready:
        return []
    uid = record.uid if record.pid else record.socket_uid
    user = None if uid is None else user_name(uid)
    executable = _text(record.executable).removesuffix(" (deleted)")
    dialled = Dialled(
        record.time_ns,
        host,
        remote=record.broker,
        local=record.client,
        pid=record.pid or None,
        executable=(executable or None) if record.pid else None,
        user=user,
        transport="unix" if record.family == FAMILY_UNIX else "tcp",
        established=True,
    )
    if not record.pid:
        return [dialled]
    words = _text(record.command.removesuffix(b"\0")).split("\0") if record.command else []
    seen = seen_command(words, cut=record.cut, executable=executable)
    process = Process(
        host,
        record.pid,
        executable=executable,
        arguments=seen.arguments,
        cut=seen.cut,
        parent_pid=record.parent_pid,
        parent_executable=_text(record.parent_executable).removesuffix(" (deleted)") or None,
        user=user,
        login_user=None if record.login_uid is None else user_name(record.login_uid),
        terminal=record.terminal,
        container=container_of(record.cgroups),
        payload=seen.payload,
    )
    # A clock set back meanwhile would make it start after it connected.
    return [Executed(min(booted_ns + record.started_ns, record.time_ns), process), dialled]


def _endpoint(family: int, address: bytes, port: int) -> Endpoint:
    if family == FAMILY_IPV4:
        return Endpoint(str(ipaddress.IPv4Address(address[:4])), port)
    whole = ipaddress.IPv6Address(address)
    return Endpoint(str(whole.ipv4_mapped or whole), port)


def _known(user: int) -> int | None:
    return None if user == NOBODY else user


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
