"""The kernel's own audit and a real auditd, from the rules that we tell people to add to the events."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from tests.brokers import free_port
from tests.host.following import running
from tests.host.real_auditd import auditd
from topicwarden.events import Dialled, Endpoint, Executed, Exited
from topicwarden.sources import SourceOptions
from topicwarden_collectors.host.blind_spots import AUDIT_CONNECTIONS, AUDIT_EXECUTIONS, AUDIT_EXITS
from topicwarden_collectors.host.package import PACKAGE

RULES = [rule for rules in (AUDIT_EXECUTIONS, AUDIT_CONNECTIONS, AUDIT_EXITS) for rule in rules.splitlines()]
"""Without their key."""
TRUE = shutil.which("true") or "/bin/true"
NETCAT = shutil.which("nc") or "nc"


def test_every_program_is_seen_once_while_auditd_rotates_its_log(tmp_path: Path) -> None:
    rules = [rule.removesuffix(" -k topicwarden") for rule in RULES]
    assert all(rule.startswith("auditctl -a always,exit ") for rule in rules)
    programs, port = 200, free_port()
    with auditd(tmp_path, rules) as daemon:

        def act() -> None:
            for number in range(programs):
                daemon.run(TRUE, str(number))
                if number % 40 == 20:
                    daemon.rotate()
            daemon.run(NETCAT, "-w1", "127.0.0.1", str(port), check=False)
            # As long as a command line gets: auditd rotates by itself, and the records of one event are parted.
            daemon.run(TRUE, "long", *[b"\xff\xfe" + b"x y" * 43_000] * 15)
            daemon.run(TRUE, "last")

        async def run() -> None:
            source = f"auditd:{daemon.log}"
            options = SourceOptions(host="here", state_dir=tmp_path / "state")
            async with running(PACKAGE.watch(source, options)) as tail:
                acting = asyncio.create_task(asyncio.to_thread(act))
                await tail.until(
                    lambda: any(isinstance(e, Executed) and e.process.arguments[1:] == ("last",) for e in tail.events),
                    "the last program",
                )
                await acting
            executed = [event.process for event in tail.events if isinstance(event, Executed)]
            executed = [process for process in executed if process.arguments[1:] != ("first",)]
            assert [process.arguments[1] for process in executed if process.executable.endswith("true")] == [
                *map(str, range(programs)),
                "long",
                "last",
            ]
            assert {process.host for process in executed} == {"here"}
            (long,) = [process for process in executed if process.arguments[1:2] == ("long",)]
            assert long.cut
            assert len(long.arguments) == 17
            assert long.arguments[16].encode("utf-8", "surrogateescape").startswith(b"\xff\xfex yx y")
            (dialled,) = {event.remote for event in tail.events if isinstance(event, Dialled)}
            assert dialled == Endpoint("127.0.0.1", port)
            # Those that end by exit_group: each of them.
            ended = {event.pid for event in tail.events if isinstance(event, Exited)}
            assert {process.pid for process in executed[:programs]} <= ended
            assert not tail.notices
            assert not any("no record of" in spot.what for spot in tail.collector.blind_spots())

        asyncio.run(run())
