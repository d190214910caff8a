"""TCP sockets as /proc/net/tcp and tcp6 list them (proc_net_tcp of the kernel), where SOCK_DIAG is not to be had."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from topicwarden.hosts.addresses import normalised
from topicwarden_collectors.host.procfs import PROC
from topicwarden_collectors.host.sock_diag import CONNECTED, MAX_SOCKETS, State, TcpSocket

_LINE: Final = re.compile(
    rb"\s*\d+: ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4}) ([0-9A-F]{2}) "
    rb"\S+ \S+ \S+ +(\d{1,10}) +\d+ (\d{1,20}) "
)
_STATES: Final = {int(state): state for state in State}


def read_line(line: bytes) -> TcpSocket | None:
    """Read a line; None when it is none. There are no cookies: the inode stands for it, 0 where that is 0."""
    match = _LINE.match(line)
    if match is None:
        return None
    local, local_port, remote, remote_port, number, uid, inode = match.groups()
    state = _STATES.get(int(number, 16))
    if state is None or len(local) != len(remote):
        return None
    return TcpSocket(
        state,
        _address(local),
        int(local_port, 16),
        _address(remote),
        int(remote_port, 16),
        int(inode),
        int(inode),
        int(uid) if int(inode) else None,
    )


def _address(digits: bytes) -> str:
    """Return an address: words of 32 bits, each a number in the order of this machine."""
    words = [int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    text = socket.inet_ntop(socket.AF_INET if len(words) == 1 else socket.AF_INET6, packed)
    return normalised(text) or text


class ListedSockets:
    """Reads the lists; the same questions as `SocketDump` answers."""

    def __init__(self, ports: Collection[int], *, folder: Path = PROC / "net") -> None:
        """`ports`: which remote ports matter. Raises OSError when there are no lists."""
        self.malformed = 0
        self.incomplete = 0
        self._ports = frozenset(ports)
        self._lists = [path for path in (folder / "tcp", folder / "tcp6") if path.exists()]
        if not self._lists:
            raise FileNotFoundError(f"{folder / 'tcp'} is not there")

    def connected(self) -> list[TcpSocket]:
        """Return the sockets connected, or being connected, to the ports that matter. Raises OSError."""
        return [one for one in self._read() if one.state in CONNECTED and one.remote_port in self._ports]

    def listening(self) -> list[TcpSocket]:
        """Return the listening sockets. Raises OSError."""
        return [one for one in self._read() if one.state is State.LISTEN]

    def close(self) -> None:
        """Nothing stays open."""

    def _read(self) -> Iterator[TcpSocket]:
        left = MAX_SOCKETS
        for path in self._lists:
            with path.open("rb") as lines:
                next(lines, None)  # the names of the columns
                for line in lines:
                    if not left:
                        self.incomplete += 1
                        return
                    left -= 1
                    one = read_line(line)
                    if one is None:
                        self.malformed += 1
                    else:
                        yield one
