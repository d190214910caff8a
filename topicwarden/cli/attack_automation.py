"""The well-behaved counterpart of attacks: sanctioned automation that publishes to an approved broker all the while."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from pathlib import Path
from threading import Event, Thread
from typing import Final, Self

from topicwarden.cli.sessions import run_session
from topicwarden.errors import ObservationError, Problem

PROGRAM: Final = "plant-status"
"""What starts the tools: a shell under a name of its own, as a service is."""
CLIENTS: Final = "plant-"
"""How the ids of its clients begin."""
ENOUGH: Final = 12
"""Publishes after which what is as regular as this would be called a beacon."""
_LIMIT_SECONDS: Final = 900.0
# As regular as an attacker's beacon, and as short-lived: what tells it apart is who it is and where it goes.
_SCRIPT: Final = """\
mosquitto_sub -h "$1" -p "$2" -i plant-board -t plant/+/+/status > /dev/null &
while mosquitto_pub -h "$1" -p "$2" -i plant-status -q 1 -t plant/north/board/status -m "all well"; do
    echo published
    sleep 1
done
"""


def policy(approved: str, port: int) -> str:
    """Return a policy that knows the automation and the approved broker, and nothing of any attack."""
    user, host = pwd.getpwuid(os.geteuid()).pw_name, socket.gethostname()
    tools = "".join(
        f'    - {{process: {tool}, hosts: ["{host}"], users: ["{user}"], parents: [{PROGRAM}]}}\n'
        for tool in ("mosquitto_pub", "mosquitto_sub")
    )
    return f"""\
# The plant: its status board, the broker it uses, and the tools that its automation runs.
topicwarden: 1
roles:
  status: {{members: [{{client: plant-status}}], publish: [{{topic: plant/north/board/status}}]}}
  board: {{members: [{{client: plant-board}}], subscribe: [{{topic: plant/+/+/status}}]}}
inventory:
  brokers: [{{address: {approved}, ports: [{port}], host: "{host}"}}]
  tools:
{tools}"""


class Automation:
    """Runs from when it is entered until it is left."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        self._folder = folder
        self._log = folder / "automation.log"
        self._command = ["-c", _SCRIPT, PROGRAM, address, str(port)]
        self._stop = Event()
        self._thread = Thread(target=self._run, name="automation")

    @property
    def published(self) -> int:
        """How often it has published so far."""
        return self._log.read_text("utf-8", "replace").count("published\n") if self._log.exists() else 0

    @property
    def failure(self) -> str | None:
        """What went wrong, in words; None: it runs."""
        if self._thread.is_alive():
            return None
        return f"the automation ended: {self._log.read_text('utf-8', 'replace')[-300:]}"

    def __enter__(self) -> Self:
        shell = shutil.which("sh")
        if shell is None:
            raise ObservationError(Problem("there is no sh here"))
        shutil.copy(shell, self._folder / PROGRAM)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        program = str(self._folder / PROGRAM)
        run_session([program, *self._command], self._folder, self._log, _LIMIT_SECONDS, self._stop)
