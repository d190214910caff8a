"""A broker whose plugin asks the real helper, as a system has them: the broker as its own user, the helper as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.brokers import Mosquitto, mosquitto, wait_for
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_events import read_events
from tests.mosquitto.plugin_sanitizer import sanitizer_environment
from topicwarden.events import Dialled, Executed, HostEvent, Process
from topicwarden.sources import Counters
from topicwarden_collectors.host.attributor import PROGRAM, Attributor
from topicwarden_collectors.mosquitto.ring_file import RingFile

REQUEST = struct.Struct("=IIB3xIHHIQ16s16s")
"""struct tw_attribute_request"""
ANSWER = struct.Struct("=IIII")
FOUND, NO_CONNECTION, NO_PROCESS = 0, 1, 2
NOBODY = 65534


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "the helper needs root, and so do other users' processes"
    effective = int(re.findall(r"^CapEff:\t(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)[0], 16)
    if not effective >> 19 & 1 or not effective >> 2 & 1:
        return "the helper needs CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, which this container does not have"
    try:
        pwd.getpwnam("mosquitto")
    except KeyError:
        return "there is no user mosquitto: Debian's package makes it"
    return None


REASON = _why_not()
needs_root = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter; pytest's own are closed to the broker's."""
    folder = Path(tempfile.mkdtemp(prefix="topicwarden-attribution-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@dataclass
class Stage:
    """A broker, and the helper it asks (None: there is none)."""

    broker: Mosquitto
    ring: Path
    helper: Attributor | None
    counters: Counters
    events: list[HostEvent] = field(default_factory=list)
    """What the helper told so far."""

    def told(self, count: int) -> list[HostEvent]:
        """Return the helper's events once there are so many: it answers the broker first, and then tells us."""

        def all_there() -> bool:
            if self.helper is not None:
                self.events += self.helper.read()
            return len(self.events) >= count

        wait_for(all_there, f"{count} events of the helper")
        return self.events

    def rows(self) -> list[dict[str, Any]]:
        """Return what the ring holds."""
        rows, counters = read_events(self.ring)
        assert not counters.decode_errors
        return rows

    def ports(self) -> dict[str, int | None]:
        """Return each client's port by its id, as the plugin saw it."""
        return {row["client"]["client_id"]: row["client"].get("port") for row in self.rows()}

    def counts(self) -> dict[str, int]:
        """Return the plugin's own counters."""
        ring = RingFile(self.ring)
        try:
            return dict(ring.counts())
        finally:
            ring.close()


@contextlib.contextmanager
def stage(
    place: Path,
    options: Sequence[str] = (),
    config: Sequence[str] = (),
    *,
    helper: bool = True,
    asan: bool = False,
) -> Iterator[Stage]:
    """Run both. `options`: of the plugin, beside `plugin_opt_attribute` where there is a `helper`.

    `config`: more of the broker's; with a listener of its own, for `{port}`, there is no other.
    """
    where = place / "helper" / "socket"
    own = place / "broker"
    own.mkdir()
    shutil.chown(own, "mosquitto")
    counters = Counters()
    attributor = start(where, counters, asan=asan) if helper else None
    try:
        lines = [
            "user mosquitto",
            "log_type all",
            f"plugin {build_plugin('asan' if asan else 'release')}",
            f"plugin_opt_ring {own}/ring",
            *([f"plugin_opt_attribute {where}"] if helper else []),
            *options,
            *config,
        ]
        env = {**os.environ, **sanitizer_environment()} if asan else None
        listener = not any("{port}" in line for line in config)
        with mosquitto(own, lines, listener=listener, env=env) as broker:
            yield Stage(broker, own / "ring", attributor, counters)
            assert broker.stop() == 0, broker.log.read_text(errors="replace")[-4000:]
    finally:
        if attributor is not None:
            attributor.close()


def start(where: Path, counters: Counters, *, asan: bool = False, allow: Sequence[str] = ()) -> Attributor:
    """Start the helper at a socket."""
    program = build_plugin("attribute-asan" if asan else "attribute")
    return Attributor(where, counters, host="here", program=program, allow=allow)


def helper_pid() -> int:
    """Return the process id of the helper, a child of ours."""
    children = subprocess.run(["pgrep", "-P", str(os.getpid()), "-f", PROGRAM], capture_output=True, check=True)
    return int(children.stdout)


def publish(port: int, client_id: str, *arguments: str) -> None:
    """Run mosquitto_pub once, to its end."""
    command = ["mosquitto_pub", "-p", str(port), "-i", client_id, "-t", "x", "-m", client_id, *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=20)


def told(events: Sequence[HostEvent]) -> dict[int, tuple[Process, Dialled]]:
    """Return the process and the connection of each client port among a helper's events."""
    found = {}
    for executed, dialled in zip(events[::2], events[1::2], strict=True):
        assert isinstance(executed, Executed)
        assert isinstance(dialled, Dialled)
        assert executed.process.pid == dialled.pid
        assert executed.time_ns <= dialled.time_ns
        assert dialled.local is not None
        found[dialled.local.port] = (executed.process, dialled)
    return found


class Asker:
    """Asks the helper as a plugin does."""

    def __init__(self, where: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        self._id = 0
        try:
            self.socket.connect(str(where))
        except OSError:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def ask(self, accepted: socket.socket) -> tuple[int, int]:
        """Ask whose the other end of an accepted IPv4 connection is; return the process id and the result."""
        self._id += 1
        self.socket.send(request(self._id, accepted))
        version, number, pid, result = ANSWER.unpack(self.socket.recv(64))
        assert (version, number) == (1, self._id)
        return pid, result


def request(number: int, accepted: socket.socket) -> bytes:
    """A request about an accepted IPv4 connection."""
    (client, client_port), (own, own_port) = accepted.getpeername(), accepted.getsockname()
    addresses = [socket.inet_aton(address).ljust(16, b"\0") for address in (client, own)]
    return REQUEST.pack(1, number, 4, 0, client_port, own_port, 0, 0, *addresses)


@contextlib.contextmanager
def connection(family: int = socket.AF_INET) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP connection within this process: the client's end, and the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        client.connect(server.getsockname())
        accepted, _ = server.accept()
        with accepted:
            yield client, accepted
