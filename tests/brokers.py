"""Starts real brokers on free loopback ports with their own data folders, and stops them whatever happens."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FIRST_PORT: Final = 20_000
_WORKERS: Final = 6
_PORTS: Final = 2000
_NUMBERS: Final = itertools.count(secrets.randbelow(_PORTS))
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago, and that nobody else is given.

    Each process that runs tests has ports of its own, below those that the system gives to connections.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = _FIRST_PORT + worker % _WORKERS * _PORTS + next(_NUMBERS) % _PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Return once `condition()` is true; fail naming `what` when it does not come true in time: a busy machine's."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.01)


def port_answers(port: int) -> bool:
    """Whether something accepts connections on 127.0.0.1:port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@dataclass
class Mosquitto:
    """A running broker of the test's own."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    config: Path
    log: Path
    """What the broker wrote to stderr."""

    def reload(self) -> None:
        """Have it read its configuration again (SIGHUP)."""
        self.process.send_signal(signal.SIGHUP)

    def stop(self) -> int:
        """Stop it in an orderly way and return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
        return self.process.returncode


@contextlib.contextmanager
def mosquitto(
    folder: Path,
    config: Sequence[str] = (),
    *,
    listener: bool = True,
    allow_anonymous: bool = True,
    executable: str = MOSQUITTO,
    env: dict[str, str] | None = None,
) -> Iterator[Mosquitto]:
    """Run a Mosquitto whose configuration is `config` after a listener line; files go to `folder`.

    With `listener=False` the configuration names its own listeners; `{port}` in any line is replaced by the free port.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    lines = [line.replace("{port}", str(port)) for line in config]
    if listener:
        lines = [*lines, f"listener {port} 127.0.0.1"]
    if allow_anonymous:
        lines = ["allow_anonymous true", *lines]
    path = folder / "mosquitto.conf"
    path.write_text("\n".join([*lines, ""]))
    log = folder / "stderr.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([executable, "-c", str(path)], stdout=stderr, stderr=stderr, cwd=folder, env=env)
    broker = Mosquitto(process, port, folder, path, log)
    try:
        wait_for(lambda: port_answers(port) or process.poll() is not None, "the broker's listener")
        if process.poll() is not None:
            raise AssertionError(
                f"mosquitto did not start (status {process.returncode}):\n{log.read_text(errors='replace')}"
            )
        yield broker
    finally:
        broker.stop()
