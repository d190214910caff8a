"""What /proc tells of processes (proc_pid_stat(5) and its likes), read piece by piece through one open folder.

An open folder of /proc stands for one process: once that has ended, reading in it fails, whoever has its number then.
Every file is read to a bound. What a program may write there itself (its command line, its name) is told as such.
"""

from __future__ import annotations

import os
import pwd
import re
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from topicwarden_collectors.host.redaction import RAW_LINE

PROC: Final = Path("/proc")
MAX_COMMAND: Final = RAW_LINE
"""Bytes read of a command line, which may have 2 MiB and more."""
_MAX_FILE: Final = 8192
_TICK_NS: Final = 10**9 // os.sysconf("SC_CLK_TCK")
_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD"""
_UNSET: Final = 0xFFFFFFFF
_PTS_MAJORS: Final = range(136, 144)
_TTY_MAJOR: Final = 4
_FIRST_SERIAL: Final = 64
_TERMINALS: Final = {204: "ttyAMA", 188: "ttyUSB", 229: "hvc"}
_UIDS: Final = re.compile(rb"^Uid:\t(\d{1,10})\t", re.MULTILINE)
_EFFECTIVE: Final = re.compile(rb"^CapEff:\t([0-9a-f]{1,32})$", re.MULTILINE)
_CAP_SYS_PTRACE: Final = 19
_CONTAINER: Final = re.compile(rb"(?<![0-9a-f])([0-9a-f]{64})(?:\.scope)?(?=[/\n:]|$)")
_OTHER_CONTAINER: Final = re.compile(rb"/(?:lxc(?:\.payload)?[./]|machine-)([\w.@-]{1,64}?)(?:\.scope)?(?=/|\n|$)")
_SOCKET: Final = re.compile(r"socket:\[(\d{1,20})\]")


class ProcessState(NamedTuple):
    """A process as /proc shows it."""

    pid: int
    parent_pid: int
    name: str
    """The kernel's name of it, at most 15 characters; a program may change its own."""
    ended: bool
    """Whether it is a zombie: of its program only the name is left."""
    kernel: bool
    """Whether it is a thread of the kernel."""
    started_ns: int
    """Nanoseconds from the start of the machine to its own, in steps of a tick (10 ms)."""
    terminal: str | None
    executable: str | None
    """None: gone, or not ours to see."""
    arguments: tuple[str, ...]
    cut: bool
    uid: int | None
    login_uid: int | None
    container: str | None


def read_process(pid: int) -> ProcessState | None:
    """Read a process; None when there is none (any more)."""
    folder = _open_folder(pid)
    if folder is None:
        return None
    try:
        # What a process loses first when it ends comes first.
        command, cut = _command_line(folder)
        executable = _executable(folder)
        stat = _stat_fields(_read(folder, "stat"))
        if stat is None:
            return None
        name, fields = stat
        uids = _UIDS.search(_read(folder, "status"))
        login = _read(folder, "loginuid", 32)
        return ProcessState(
            pid,
            int(fields[1]),
            name,
            fields[0] in b"ZXx",
            bool(int(fields[6]) & _KERNEL_THREAD),
            int(fields[19]) * _TICK_NS,
            terminal_of(int(fields[4])),
            executable,
            command,
            cut,
            None if uids is None else int(uids[1]),
            int(login) if login.isdigit() and int(login) != _UNSET else None,
            container_of(_read(folder, "cgroup")),
        )
    finally:
        os.close(folder)


def started_ns(pid: int) -> int | None:
    """Return nanoseconds from the start of the machine to the process's; None when there is none."""
    folder = _open_folder(pid)
    if folder is None:
        return None
    try:
        stat = _stat_fields(_read(folder, "stat"))
    finally:
        os.close(folder)
    return None if stat is None else int(stat[1][19]) * _TICK_NS


def executable_of(pid: int) -> str | None:
    """Return the path of a process's program; None: gone, or not ours to see."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")  # noqa: PTH115 - often, and a Path costs
    except OSError:
        return None


def parent_of(pid: int) -> int | None:
    """Return a process's parent; None when there is none."""
    folder = _open_folder(pid)
    if folder is None:
        return None
    try:
        stat = _stat_fields(_read(folder, "stat"))
    finally:
        os.close(folder)
    return None if stat is None else int(stat[1][1])


def may_trace() -> bool:
    """Whether we may look into other users' processes (CAP_SYS_PTRACE)."""
    try:
        match = _EFFECTIVE.search((PROC / "self" / "status").read_bytes())
    except OSError:
        return False
    return match is not None and bool(int(match[1], 16) >> _CAP_SYS_PTRACE & 1)


def pids() -> list[int]:
    """Return the numbers of all processes that we may see, the newest first. Raises OSError.

    Numbers are given in a circle: the newest is at or below the last one given, which /proc/loadavg tells.
    """
    numbers = sorted(int(name) for name in os.listdir(PROC) if name.isdigit())  # noqa: PTH208 - a Path each costs much
    try:
        last = int((PROC / "loadavg").read_bytes().split()[4])
    except (OSError, ValueError, IndexError):
        last = 1 << 30
    return [pid for pid in reversed(numbers) if pid <= last] + [pid for pid in reversed(numbers) if pid > last]


def socket_inodes(pid: int, most: int) -> Iterator[int]:
    """Yield the inodes of the sockets a process has open, of at most `most` descriptors; nothing when we may not see.

    One by one, because looking at each descriptor is what costs.
    """
    path = f"/proc/{pid}/fd"
    try:
        names = os.listdir(path)  # noqa: PTH208 - called for each process at each connection
    except OSError:
        return
    for name in names[:most]:
        try:
            match = _SOCKET.fullmatch(os.readlink(f"{path}/{name}"))  # noqa: PTH115 - once for each descriptor
        except OSError:
            continue
        if match is not None:
            yield int(match[1])


def terminal_of(number: int) -> str | None:
    """Return the name of a terminal by its device number as stat tells it (`pts0`, `tty1`); 0 is none."""
    if not number:
        return None
    major, minor = (number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00)
    if major in _PTS_MAJORS:
        return f"pts{(major - _PTS_MAJORS.start) * 256 + minor}"
    if major == _TTY_MAJOR:
        return f"tty{minor}" if minor < _FIRST_SERIAL else f"ttyS{minor - _FIRST_SERIAL}"
    return f"{_TERMINALS[major]}{minor}" if major in _TERMINALS else f"{major}:{minor}"


def container_of(cgroups: bytes) -> str | None:
    """Return the identifier of the container that a process's cgroups name, the innermost; None: it is in none.

    The forms of Docker (`/docker/ID`, `docker-ID.scope`), containerd and CRI-O below Kubernetes' `kubepods`
    (`cri-containerd-ID.scope`, `crio-ID.scope`, `/POD/ID`), Podman (`libpod-ID.scope`): 64 hex digits each; and the
    names of LXC (`lxc.payload.NAME`) and systemd-nspawn (`machine-NAME.scope`).
    """
    found = _CONTAINER.findall(cgroups)
    if not found:
        found = _OTHER_CONTAINER.findall(cgroups)
    return found[-1].decode("ascii", "replace") if found else None


@lru_cache(maxsize=1024)
def user_name(uid: int) -> str:
    """Return the name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


def utc_of_start(since_start_ns: int) -> int:
    """Return the time, nanoseconds since the epoch, of something so long after the start of the machine."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_start_ns


def _open_folder(pid: int) -> int | None:
    try:
        return os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _read(folder: int, name: str, most: int = _MAX_FILE) -> bytes:
    """Return the beginning of a file; b'' when it is gone, is not there, or is not ours to see."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return b""
    try:
        return os.read(file, most)
    except OSError:
        return b""
    finally:
        os.close(file)


def _stat_fields(stat: bytes) -> tuple[str, list[bytes]] | None:
    """Return the name and what follows it: a program may put blanks and brackets into its name, not after it."""
    begin, end = stat.find(b"("), stat.rfind(b")")
    fields = stat[end + 1 :].split()
    if begin < 0 or end < begin or len(fields) < 20:
        return None
    return stat[begin + 1 : end].decode("utf-8", "surrogateescape"), fields


def _command_line(folder: int) -> tuple[tuple[str, ...], bool]:
    """Return the arguments, and whether there are more than were read."""
    data = _read(folder, "cmdline", MAX_COMMAND + 1)
    cut = len(data) > MAX_COMMAND
    if not data:
        return (), False
    data = data[:MAX_COMMAND].removesuffix(b"\0")
    return tuple(data.decode("utf-8", "surrogateescape").split("\0")), cut


def _executable(folder: int) -> str | None:
    try:
        return os.readlink("exe", dir_fd=folder).removesuffix(" (deleted)")
    except OSError:
        return None
