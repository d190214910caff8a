"""Runs the real program as its own process, the way a user does."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.brokers import Mosquitto, mosquitto, wait_for
from tests.mosquitto.plugin_build import build_plugin

PROGRAM = [sys.executable, "-m", "topicwarden"]


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with what would change the output taken out."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    return {**kept, **more}


def run(*arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment())


def findings(stdout: str) -> list[dict[str, Any]]:
    """Return the last document of each finding in jsonl output, by fingerprint, without what is told twice."""
    last: dict[str, dict[str, Any]] = {}
    for line in stdout.splitlines():
        document = json.loads(line)
        if document["type"] == "finding":
            last[document["fingerprint"]] = {name: value for name, value in document.items() if name != "event"}
    return sorted(last.values(), key=lambda document: document["fingerprint"])


@dataclass
class Watch:
    """A running `topicwarden watch`."""

    process: subprocess.Popen[str]
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Return once a line on stdout or stderr holds `text`; fail showing both when none does in time."""
        try:
            wait_for(lambda: any(text in line for line in [*self.out, *self.err]), f"{text!r}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\nstdout:\n{''.join(self.out)}\nstderr:\n{''.join(self.err)}") from None

    @property
    def stdout(self) -> str:
        """Everything on stdout so far."""
        return "".join(self.out)

    @property
    def stderr(self) -> str:
        """Everything on stderr so far."""
        return "".join(self.err)


@contextlib.contextmanager
def watch(*arguments: str | Path) -> Iterator[Watch]:
    """Run `topicwarden watch` while entered; whatever happens it is gone afterwards."""
    process = subprocess.Popen(
        [*PROGRAM, "watch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    watching = Watch(process)
    readers = [
        threading.Thread(target=lambda: watching.out.extend(iter(process.stdout.readline, ""))),  # type: ignore[union-attr]
        threading.Thread(target=lambda: watching.err.extend(iter(process.stderr.readline, ""))),  # type: ignore[union-attr]
    ]
    for reader in readers:
        reader.start()
    try:
        yield watching
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        for reader in readers:
            reader.join(10)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@contextlib.contextmanager
def broker_with_plugin(folder: Path, *config: str) -> Iterator[tuple[Mosquitto, Path]]:
    """Run a Mosquitto with the plugin; yields it and its ring. As root it stays root, so that it may write here."""
    ring = folder / "m.ring"
    plugin = [f"plugin {build_plugin()}", f"plugin_opt_ring {ring}", "plugin_opt_slots 4096"]
    with mosquitto(folder / "broker", [*plugin, "user root", *config]) as broker:
        yield broker, ring
