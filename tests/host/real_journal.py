"""Runs a real journald of our own, in a mount namespace where nobody else sees it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import wait_for

JOURNALD = Path("/lib/systemd/systemd-journald")
MACHINE = Path("/etc/machine-id")
SEND = """
import os, socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
os.setuid(int(sys.argv[2]))
sender.send(sys.stdin.buffer.read())
"""


@dataclass
class Journal:
    """A journal daemon that runs."""

    socket: Path
    folder: Path

    @property
    def command(self) -> tuple[str, ...]:
        """What to run as journalctl."""
        return ("journalctl", "-D", str(self.folder))

    def write(self, message: bytes, *, tag: bytes = b"sysmon", user: int | None = None) -> None:
        """Write an entry, as root or another user; the message in binary form, so that it may hold anything."""
        entry = b"SYSLOG_IDENTIFIER=%s\nMESSAGE\n%s%s\n" % (tag, len(message).to_bytes(8, "little"), message)
        if user is None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(entry, str(self.socket))
        else:
            command = [sys.executable, "-c", SEND, str(self.socket), str(user)]
            subprocess.run(command, input=entry, check=True)


@contextlib.contextmanager
def journald() -> Iterator[Journal]:
    """Start it; skips, saying why, where mount namespaces cannot be had."""
    if os.geteuid() != 0:
        pytest.skip("not root: a journald of our own needs a mount namespace")
    if not JOURNALD.exists() or not MACHINE.exists() or shutil.which("journalctl") is None:
        pytest.skip("systemd is not installed (Debian: apt-get install systemd)")
    script = f"mount -t tmpfs tmpfs /run && mkdir -p /run/systemd /run/log/journal && exec {JOURNALD}"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    daemon = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        run = Path(f"/proc/{daemon.pid}/root/run")
        journal = Journal(run / "systemd/journal/socket", run / "log/journal" / MACHINE.read_text().strip())
        # Until it has another root than ours, that is our own journal.
        wait_for(
            lambda: (
                daemon.poll() is not None
                or (Path(f"/proc/{daemon.pid}/exe").resolve() == JOURNALD.resolve() and journal.socket.exists())
            ),
            "journald's socket",
        )
        if daemon.poll() is not None:
            assert daemon.stderr is not None
            pytest.skip(f"journald cannot run in a namespace of its own here: {daemon.stderr.read().strip()}")
        yield journal
    finally:
        daemon.terminate()
        daemon.wait(20)
        assert daemon.stderr is not None
        daemon.stderr.close()
