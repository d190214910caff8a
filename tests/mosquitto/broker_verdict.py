"""Asks the real broker whether it accepts a configuration, without letting it open a listener."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import MOSQUITTO


@dataclass(frozen=True)
class Verdict:
    """What mosquitto said about a configuration file."""

    accepted: bool
    places: list[tuple[str, int]]
    """File and line of its complaints, innermost first."""
    said: str


def verdict(config: Path) -> Verdict:
    """Return the installed broker's verdict on `config`.

    The file is read through a copy ending in a pid_file that cannot be written: mosquitto reads its configuration,
    then writes that file, and only then opens listeners, so which of the two messages comes tells what it thinks.
    """
    probe = config.with_name("probe-" + config.name + ".txt")
    text = config.read_bytes()
    probe.write_bytes(text + (b"" if text.endswith(b"\n") or not text else b"\n") + b"pid_file /nonexistent/pid\n")
    done = subprocess.run([MOSQUITTO, "-c", str(probe)], capture_output=True, check=False, timeout=20)
    said = done.stderr.decode(errors="replace")
    places = [
        (file.replace(str(probe), str(config)), int(line))
        for file, line in re.findall(r"Error found at (.*):(\d+)\.\n", said)
    ]
    accepted = "Unable to write pid file" in said
    if not accepted and done.returncode == 0:
        raise AssertionError(f"mosquitto neither accepted nor refused:\n{said}")
    return Verdict(accepted, places, said)
