"""A Prosody for attacks to be played against. Nothing in it is observed: what talks to it is, on the host."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.sources import Staged

XMPP: Final = 5222
START_SECONDS: Final = 20.0
STOP_SECONDS: Final = 10.0


@contextlib.contextmanager
def stage(folder: Path, addresses: Sequence[str]) -> Iterator[Staged]:
    """Run it; `topicwarden.sources.Stage`."""
    program = shutil.which("prosody")
    if program is None:
        raise ObservationError(Problem("prosody is not installed", hint="apt-get install prosody"))
    for address in addresses:
        with socket.socket() as probe:
            if probe.connect_ex((address, XMPP)) == 0:
                raise ObservationError(Problem(f"Prosody did not start: something answers at {address}:{XMPP} already"))
    folder = folder.resolve()
    for name in ("data", "certificates"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    config, log = folder / "prosody.cfg.lua", folder / "prosody.log"
    config.write_text(_configuration(folder, addresses))
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603 - a fixed program
            [program, "--config", str(config), "-F"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        # It goes on when an address is not free: only its own words say that it has it.
        while not all(f"{address}]:{XMPP}" in log.read_text("utf-8", "replace") for address in addresses):
            if server.poll() is not None or time.monotonic() > deadline:
                said = log.read_text("utf-8", "replace")[-500:]
                raise ObservationError(Problem(f"Prosody did not start: {said}", str(config)))
            time.sleep(0.02)
        yield Staged("Prosody", {"xmpp": XMPP})
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(STOP_SECONDS)


def _configuration(folder: Path, addresses: Sequence[str]) -> str:
    """Return a configuration with clients' connections in the clear, and nothing else."""
    interfaces = ", ".join(_quoted(address) for address in addresses)
    return f"""\
run_as_root = true
pidfile = {_quoted(str(folder / "prosody.pid"))}
data_path = {_quoted(str(folder / "data"))}
certificates = {_quoted(str(folder / "certificates"))}
admins = {{}}
modules_enabled = {{ "saslauth", "disco" }}
modules_disabled = {{ "s2s", "tls", "offline" }}
c2s_require_encryption = false
c2s_ports = {{ {XMPP} }}
c2s_interfaces = {{ {interfaces} }}
c2s_direct_tls_ports = {{}}
s2s_ports = {{}}
authentication = "internal_hashed"
log = {{ info = "*console" }}
VirtualHost "localhost"
"""


def _quoted(text: str) -> str:
    """Return a Lua string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
