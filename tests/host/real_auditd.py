"""Runs a real auditd with files of its own, and puts the kernel's audit back as it was whatever happens."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.brokers import wait_for

UID = 54_321
"""Rules are for this user's programs only: nothing else of the machine is audited."""
CONF = """\
local_events = yes
write_logs = yes
log_file = {folder}/audit.log
log_group = root
log_format = ENRICHED
flush = INCREMENTAL_ASYNC
freq = 50
max_log_file = 1
num_logs = 40
max_log_file_action = ROTATE
name_format = NONE
priority_boost = 0
space_left = 2
space_left_action = IGNORE
admin_space_left = 1
admin_space_left_action = IGNORE
disk_full_action = IGNORE
disk_error_action = IGNORE
use_libwrap = no
plugin_dir = {folder}/plugins.d
overflow_action = IGNORE
"""


@dataclass
class Auditd:
    """An audit daemon that runs."""

    log: Path
    pid: int

    def rotate(self) -> None:
        """Have it rotate its log (auditd(8), SIGUSR1)."""
        before = self.log.stat().st_ino
        os.kill(self.pid, signal.SIGUSR1)
        wait_for(lambda: self.log.exists() and self.log.stat().st_ino != before, "the rotation")

    def has_whole_event(self) -> bool:
        """Run a program; whether one of those run so is in the log with its first record."""
        self.run("true", "first")
        return b"type=SYSCALL" in self.log.read_bytes()

    def run(self, *command: str | bytes, check: bool = True) -> None:
        """Run a program that is audited."""
        subprocess.run(command, user=UID, extra_groups=[], stdin=subprocess.DEVNULL, capture_output=True, check=check)


def auditctl(*arguments: str) -> str:
    """Run auditctl; raises CalledProcessError when the kernel refuses."""
    done = subprocess.run(["auditctl", *arguments], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def _status() -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"^(\w+) (\d+)$", auditctl("-s"), re.MULTILINE)}


@contextlib.contextmanager
def auditd(folder: Path, rules: Sequence[str]) -> Iterator[Auditd]:
    """Start it with these rules of auditctl; skips, saying why, where the kernel lets nobody audit or somebody does."""
    if os.geteuid() != 0:
        pytest.skip("not root: the kernel lets nobody else set audit rules")
    if shutil.which("auditd") is None or shutil.which("auditctl") is None:
        pytest.skip("auditd is not installed (Debian: apt-get install auditd)")
    try:
        before = _status()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the kernel refuses audit here (a container?): {error.stderr.strip() or error}")
    if before["pid"]:
        pytest.skip(f"an audit daemon runs already (pid {before['pid']}), and the kernel has but one")
    if before["enabled"] == 2:
        pytest.skip("the audit rules are locked until the next boot (auditctl -e 2)")
    key = f"topicwarden-test-{os.getpid()}"
    (folder / "plugins.d").mkdir(mode=0o750)
    conf = folder / "auditd.conf"
    conf.write_text(CONF.format(folder=folder))
    conf.chmod(0o640)
    log = folder / "audit.log"
    with (folder / "output").open("wb") as output:
        daemon = subprocess.Popen(["auditd", "-n", "-c", folder, "-s", "nochange"], stdout=output, stderr=output)
    try:
        wait_for(
            lambda: daemon.poll() is not None or (log.exists() and b"DAEMON_START" in log.read_bytes()), "auditd's log"
        )
        if daemon.poll() is not None:
            pytest.skip(f"auditd cannot run here: {(folder / 'output').read_text().strip()}")
        auditctl("-b", "16384")
        for rule in rules:
            auditctl(*rule.split()[1:], "-F", f"uid={UID}", "-k", key)
        auditctl("-e", "1")
        running = Auditd(log, daemon.pid)
        # The first record after it started is often missing from its log (auditd 3.0.9, kernel 6.18).
        wait_for(running.has_whole_event, "the first whole event")
        running.rotate()
        yield running
    finally:
        for restore in (
            ("-D", "-k", key),
            ("-e", str(before["enabled"])),
            ("-b", str(before["backlog_limit"])),
        ):
            with contextlib.suppress(subprocess.CalledProcessError):
                auditctl(*restore)
        daemon.terminate()
        daemon.wait(20)
