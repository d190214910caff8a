"""Reads single records of Linux audit, as auditd writes them.

Formats: audit_log_execve_info, audit_log_untrustedstring and audit_log_exit of the kernel (auditsc.c, audit.c), and the
enriched part that auditd adds after a byte 0x1d (auditd.conf(5), `log_format = ENRICHED`). Whatever a program may
choose is written in quotes when it is printable and has no quote or space, else as hex digits; so nothing in a record
can be forged by a name.
"""

from __future__ import annotations

import re
from enum import IntEnum
from ipaddress import ip_address
from typing import Final, NamedTuple

from topicwarden.events import Endpoint
from topicwarden.hosts.addresses import normalised

RECORD: Final = re.compile(
    rb"(?:node=(\S{1,255}) )?type=(SYSCALL|EXECVE|SOCKADDR|PROCTITLE|EOE) "
    rb"msg=audit\((\d{1,10})\.(\d{1,9}):(\d{1,20})\): ?"
)
ENRICHED: Final = b"\x1d"
MAX_PROCTITLE: Final = 128
"""Bytes of a process's title that the kernel logs (MAX_PROCTITLE_AUDIT_LEN); one as long may have been cut."""


class Call(IntEnum):
    """The system calls that matter."""

    EXECUTE = 1
    CONNECT = 2
    EXIT = 3
    SOCKETCALL = 4
    """Of old 32-bit programs; it is a connect when its first argument is 3."""


def _calls(execve: int, execveat: int, connect: int, exit_group: int) -> dict[int, Call]:
    return {execve: Call.EXECUTE, execveat: Call.EXECUTE, connect: Call.CONNECT, exit_group: Call.EXIT}


_X32: Final = 0x40000000
_GENERIC: Final = _calls(221, 281, 203, 94)
CALLS: Final[dict[bytes, dict[int, Call]]] = {
    b"c000003e": {  # x86_64, with x32
        **_calls(59, 322, 42, 231),
        **_calls(_X32 + 520, _X32 + 545, _X32 + 42, _X32 + 231),
    },
    b"c00000b7": _GENERIC,  # aarch64
    b"c00000f3": _GENERIC,  # riscv64
    b"40000003": {**_calls(11, 358, 362, 252), 102: Call.SOCKETCALL},  # i386
    b"40000028": _calls(11, 387, 283, 248),  # arm
    b"c0000015": {**_calls(11, 362, 328, 234), 102: Call.SOCKETCALL},  # ppc64le
    b"80000016": {**_calls(11, 354, 362, 248), 102: Call.SOCKETCALL},  # s390x
}
"""By the audit architecture (linux/audit.h) and the number of the call (each architecture's own table)."""

_SYSCALL: Final = re.compile(
    rb"arch=([0-9a-f]{1,8}) syscall=(\d{1,10})(?: per=\w+)?(?: success=(\w+) exit=(-?\d{1,19}))?"
)
_DETAILS: Final = re.compile(
    rb" ppid=(\d{1,10}) pid=(\d{1,10}) auid=(\d{1,10}) uid=(\d{1,10}) .*? tty=(\S+) ses=\S+ comm=\S+ exe=(\S+)"
)
_NAME: Final = re.compile(rb"\b(AUID|UID)=\"([^\"]{1,256})\"")
_ARGUMENT: Final = re.compile(
    rb"\ba(\d{1,7})(?:\[(\d{1,7})\]|(_len))?=(?:\"([^\"]*)(\"?)|([0-9A-Fa-f]*)|(\d+))(?=\s|\Z)"
)
_ADDRESS: Final = re.compile(rb"saddr=([0-9A-Fa-f]*)")
UNSET: Final = b"4294967295"
_FIRST_ARGUMENT: Final = re.compile(rb" a0=([0-9a-f]{1,16}) ")

EINPROGRESS: Final = -115
REFUSED: Final = frozenset({-111, -110, -113, -101, -104, -112})
"""Results of connect that say that it was tried over the network and failed: ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH …"""
INTERRUPTED: Final = frozenset({-4, -512})
"""EINTR, and what becomes of it inside the kernel: the connection goes on being made."""


class Syscall(NamedTuple):
    """What a SYSCALL record says."""

    call: Call
    success: bool | None
    """None where the call does not return."""
    result: int
    pid: int
    parent_pid: int
    user: str
    login_user: str | None
    terminal: str | None
    executable: str


def read_syscall(body: bytes) -> Syscall | Call | None:
    """Read a SYSCALL record: all of it when its call matters; None when it cannot be read; else just `Call(…)`.

    A call that matters and did not succeed comes back as its bare `Call` too: nothing happened.
    """
    match = _SYSCALL.match(body)
    if match is None:
        return None
    arch, number, success, result = match.groups()
    call = CALLS.get(arch, {}).get(int(number))
    if call is Call.SOCKETCALL:
        first = _FIRST_ARGUMENT.search(body)
        call = Call.CONNECT if first is not None and int(first[1], 16) == 3 else None
    if call is None:
        return Call.SOCKETCALL
    code = int(result or 0)
    if not happened(call, success, code):
        return call
    details = _DETAILS.search(body, match.end())
    if details is None:
        return None
    parent, pid, auid, uid, tty, exe = details.groups()
    names = dict(_NAME.findall(body, body.find(ENRICHED) + 1)) if ENRICHED in body else {}
    return Syscall(
        call=call,
        success=None if success is None else success == b"yes",
        result=code,
        pid=int(pid),
        parent_pid=int(parent),
        user=_name(names.get(b"UID"), uid),
        login_user=None if auid == UNSET else _name(names.get(b"AUID"), auid),
        terminal=None if tty == b"(none)" else untrusted(tty),
        executable=untrusted(exe).removesuffix(" (deleted)"),
    )


def happened(call: Call, success: bytes | None, code: int) -> bool:
    """Whether a call did something: programs are started by success only, connections are also tried."""
    if call is Call.EXIT:
        return True
    if success == b"yes":
        return True
    return call is Call.CONNECT and (code == EINPROGRESS or code in REFUSED or code in INTERRUPTED)


def _name(name: bytes | None, number: bytes) -> str:
    if name is None or name.startswith(b"unknown("):
        return number.decode()
    return name.decode("utf-8", "surrogateescape")


def untrusted(value: bytes) -> str:
    """Return a field that a program may choose: quoted, or hex digits; what is neither stays as it is."""
    return _bytes_of(value).decode("utf-8", "surrogateescape")


def _bytes_of(value: bytes) -> bytes:
    if value.startswith(b'"'):
        return value[1:].removesuffix(b'"')
    if value == b"(null)":
        return b""
    try:
        return bytes.fromhex(value[: len(value) // 2 * 2].decode("ascii"))
    except ValueError:
        return value


class ArgumentPart(NamedTuple):
    """An argument of an EXECVE record, or a part of one, or (`length`) how long one in parts is."""

    argument: int
    part: int | None
    value: bytes
    encoded: int
    """Characters it takes in the record, quotes not counted."""
    length: int | None = None


def argument_parts(body: bytes, most: int) -> tuple[list[ArgumentPart], int]:
    """Return the arguments below `most` in an EXECVE record, and how many whole others there are."""
    end = body.find(ENRICHED)
    found: list[ArgumentPart] = []
    others = 0
    for match in _ARGUMENT.finditer(body, 0, len(body) if end < 0 else end):
        number = int(match[1])
        if match[3] is not None:
            digits = match[6] if match[6] is not None else match[7]
            if digits is not None and digits.isdigit() and len(digits) <= 10:
                found.append(ArgumentPart(number, None, b"", 0, int(digits)))
            continue
        part = None if match[2] is None else int(match[2])
        if number >= most and part is None:
            others += 1
            continue
        quoted, hexadecimal = match[4], match[6]
        if quoted is not None and not match[5] and part is None:
            # A relay cut the line: the beginning of an argument, whose rest does not come.
            found.append(ArgumentPart(number, 0, quoted, len(quoted)))
        elif quoted is not None:
            found.append(ArgumentPart(number, part, quoted, len(quoted)))
        elif hexadecimal is not None and len(hexadecimal) % 2 == 0:
            found.append(ArgumentPart(number, part, bytes.fromhex(hexadecimal.decode()), len(hexadecimal)))
    return found, others


def argument_count(body: bytes) -> int | None:
    """Return how many arguments an EXECVE record's event has; None in its second and later records."""
    match = re.match(rb"argc=(\d{1,7})\b", body)
    return None if match is None else int(match[1])


def read_title(body: bytes) -> tuple[list[str], bool] | None:
    """Return the arguments that a PROCTITLE record holds, and whether they may be cut."""
    match = re.match(rb"proctitle=(\S+)", body)
    if match is None:
        return None
    value = _bytes_of(match[1].partition(ENRICHED)[0])
    words = value.removesuffix(b"\0").split(b"\0")
    return [word.decode("utf-8", "surrogateescape") for word in words], len(value) >= MAX_PROCTITLE


def read_address(body: bytes) -> Endpoint | bool | None:
    """Read a SOCKADDR record: the address where it is one of IP, None where it is of another kind, False if broken.

    The family is in the byte order of the machine (struct sockaddr); all that runs Linux audit today and matters here
    is little-endian but s390x, so both orders are read: no family of one order is a family of the other.
    """
    match = _ADDRESS.match(body)
    if match is None or len(match[1]) < 4 or len(match[1]) % 2:
        return False
    data = bytes.fromhex(match[1].decode())
    family = data[0] or data[1]
    port = int.from_bytes(data[2:4], "big")
    if family == 2 and len(data) >= 8:
        text = str(ip_address(data[4:8]))
    elif family == 10 and len(data) >= 24:
        text = str(ip_address(data[8:24]))
    else:
        return False if family in (2, 10) else None
    address = normalised(text)
    return Endpoint(address, port) if port and address is not None else None
