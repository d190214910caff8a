"""Runs a Mosquitto of our own, for the demo and for attacks that are played."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.findings import data_dir

START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0
Address = tuple[str, int]


@contextlib.contextmanager
def running_broker(config: Path, log: Path, addresses: Sequence[Address], *, own: Sequence[Path]) -> Iterator[None]:
    """Run a Mosquitto with this configuration while entered; it answers at all `addresses`.

    `own`: files and folders that it must read or write, even where it drops to its own user. Raises ObservationError
    with its last words when it is not installed or does not start, and when another's server has one of the addresses.
    """
    for host, port in filter(answers, addresses):
        raise ObservationError(Problem(f"the broker did not start: something answers at {host}:{port} already"))
    for path in (*own, config):
        hand_over(path)
    with log.open("wb") as output:
        broker = subprocess.Popen(  # noqa: S603 - a fixed program
            [tool_path("mosquitto"), "-c", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not all(map(answers, addresses)):
            if broker.poll() is not None or time.monotonic() > deadline:
                said = log.read_text("utf-8", "replace")[-500:]
                raise ObservationError(Problem(f"the broker did not start: {said}", str(config)))
            time.sleep(0.02)
        yield
    finally:
        broker.terminate()
        try:
            broker.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            broker.kill()
            broker.wait(STOP_SECONDS)


def build_plugin(folder: Path) -> Path:
    """Build the plugin from its source into `folder`; raises ObservationError with the compiler's words."""
    folder.mkdir(parents=True, exist_ok=True)
    source = data_dir("brokers") / "mosquitto"
    built = subprocess.run(  # noqa: S603 - fixed arguments of our own
        [tool_path("make"), "-s", "-C", str(source), f"OUT={folder.resolve()}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if built.returncode != 0:
        hint = "apt-get install gcc make mosquitto-dev libmosquitto-dev"
        raise ObservationError(Problem(f"the plugin cannot be built: {built.stderr[-800:]}", str(source), hint=hint))
    return folder.resolve() / "topicwarden_mosquitto.so"


def tool_path(tool: str) -> str:
    """Return the tool's path; /usr/sbin is not on every user's PATH."""
    path = shutil.which(tool) or shutil.which(tool, path="/usr/sbin:/usr/bin:/usr/local/sbin")
    if path is None:
        package = {"mosquitto": "mosquitto", "make": "make"}.get(tool, "mosquitto-clients mosquitto")
        raise ObservationError(Problem(f"{tool} is not installed", hint=f"apt-get install {package}"))
    return path


def hand_over(path: Path) -> None:
    """Give a file to the user that Mosquitto drops to, when we are root; otherwise it is ours already."""
    if os.geteuid() == 0:
        with contextlib.suppress(LookupError):  # no such user: Mosquitto stays root
            shutil.chown(path, "mosquitto")


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(address: Address) -> bool:
    """Whether something accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(address) == 0
