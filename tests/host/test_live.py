"""This machine watched live: real programs, real connections, real brokers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import Mosquitto, free_port, mosquitto, wait_for
from tests.collector_contract import PAYLOAD_MARK, CollectorContract, Stage
from tests.host.following import Running, rows_of, running
from tests.mosquitto.plugin_build import build_plugin
from topicwarden.errors import ObservationError
from topicwarden.events import Dialled, Endpoint, Executed, Exited
from topicwarden.sources import Collector
from topicwarden_collectors.host import attributor, live_sources, netlink_process, procfs
from topicwarden_collectors.host.live import LiveCollector
from topicwarden_collectors.host.live_connections import PUBSUB_PORTS

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root is told of processes by the kernel and may look at other users' descriptors"
)
CONTAINERS = pytest.mark.skipif(
    subprocess.run(["unshare", "--net", "--pid", "--fork", "--mount-proc", "true"], capture_output=True).returncode
    != 0,
    reason="a container cannot be made here (unshare needs CAP_SYS_ADMIN)",
)


def can_listen() -> bool:
    try:
        netlink_process.ProcessEvents().close()
    except ObservationError:
        return False
    return True


KERNEL_TELLS = pytest.mark.skipif(
    not can_listen(), reason="the kernel tells of processes only in its initial namespaces, and this is a container"
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as running_broker:
        # Whoever asked whether it answers has gone.
        wait_for(lambda: "closed its connection" in running_broker.log.read_text(), "the first client's end")
        yield running_broker


def publish(port: int, message: str = "hello") -> list[str]:
    return ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-t", "a/b", "-m", message]


def run(program: list[str]) -> int:
    """Run a program to its end; its process id."""
    with subprocess.Popen(program) as process:
        pass
    assert process.returncode == 0
    return process.pid


def watch(collector: LiveCollector, act: Callable[[], Any], seen: Callable[[Running], object]) -> Running:
    """Watch while something is done in another thread, until it was seen."""

    async def go() -> Running:
        async with running(collector) as watched:
            done = asyncio.create_task(asyncio.to_thread(act))
            await watched.until(done.done, "the end of it")
            await done
            await watched.until(lambda: seen(watched), "what was done")
        return watched

    return asyncio.run(go())


def dialled(watched: Running, port: int) -> list[Dialled]:
    return [event for event in watched.events if isinstance(event, Dialled) and event.remote.port == port]


def published(watched: Running, port: int) -> list[Dialled]:
    """The same without who only asked whether the broker answers, and said nothing."""
    return [event for event in dialled(watched, port) if event.sent != 0]


def executed(watched: Running, pid: int) -> list[Executed]:
    return [event for event in watched.events if isinstance(event, Executed) and event.process.pid == pid]


class Children:
    """Runs programs and remembers their process ids."""

    def __init__(self, *programs: list[str]) -> None:
        self.programs = programs
        self.pids: list[int] = []

    def __call__(self) -> None:
        for program in self.programs:
            self.pids.append(run(program))


@KERNEL_TELLS
def test_a_program_that_lives_a_moment_is_seen_with_its_end() -> None:
    act = Children(["sh", "-c", "sleep 0.2; exit 0"])
    watched = watch(
        LiveCollector("h"),
        act,
        lambda it: any(isinstance(event, Exited) and event.pid in act.pids for event in it.events),
    )
    (event,) = executed(watched, act.pids[0])
    process = event.process
    assert (process.host, process.executable) == ("h", os.path.realpath("/bin/sh"))
    assert (process.arguments, process.cut) == (("sh", "-c", "sleep 0.2; exit 0"), False)
    assert (process.parent_pid, process.user) == (os.getpid(), "root")
    assert process.parent_executable == os.path.realpath(sys.executable)
    order = [type(one) for one in watched.events if one in (event, Exited(one.time_ns, "h", act.pids[0]))]
    assert order == [Executed, Exited]
    sleeps = [one for one in watched.events if isinstance(one, Executed) and one.process.parent_pid == act.pids[0]]
    assert [one.process.arguments for one in sleeps] == [("sleep", "0.2")]
    assert [one.process.parent_executable for one in sleeps] == [process.executable]


def test_every_publish_is_seen_with_its_ends_and_never_with_a_process_that_did_not_make_it(broker: Mosquitto) -> None:
    act = Children(*[publish(broker.port)] * 20)
    watched = watch(LiveCollector("h", ports={broker.port}), act, lambda it: len(published(it, broker.port)) >= 20)
    found = published(watched, broker.port)
    assert len(found) == 20
    assert all(one.remote == Endpoint("127.0.0.1", broker.port) and one.established for one in found)
    locals_of = [one.local for one in found]
    assert len(set(locals_of)) == 20
    log = broker.log.read_text()
    assert all(one is not None and f"New connection from {one.address}:{one.port}" in log for one in locals_of)
    pids = [one.pid for one in found if one.pid is not None]
    assert set(pids) <= set(act.pids)
    assert len(pids) == len(set(pids))


def test_a_connection_that_lasts_is_seen_with_its_process_its_user_and_its_port(broker: Mosquitto) -> None:
    command = ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(broker.port), "-t", "#", "-u", "joe", "-P", "geheim"]
    with subprocess.Popen(command) as subscriber:
        try:
            watched = watch(LiveCollector("h", ports={broker.port}), lambda: 0, lambda it: dialled(it, broker.port))
        finally:
            subscriber.kill()
    (found,) = dialled(watched, broker.port)
    assert (found.pid, found.executable, found.user) == (subscriber.pid, "/usr/bin/mosquitto_sub", "root")
    assert found.local is not None
    assert f"New connection from 127.0.0.1:{found.local.port}" in broker.log.read_text()
    (event,) = executed(watched, subscriber.pid)
    assert event.process.arguments[-3:] == ("joe", "-P", "***")
    assert event.time_ns <= found.time_ns
    assert watched.events.index(event) < watched.events.index(found)


def test_a_connection_over_ipv6_is_seen() -> None:
    port = free_port()
    with (
        socket.create_server(("::1", port), family=socket.AF_INET6),
        subprocess.Popen(["nc", "-6", "::1", str(port)], stdin=subprocess.PIPE) as client,
    ):
        try:
            watched = watch(LiveCollector("h", ports={port}), lambda: 0, lambda it: dialled(it, port))
        finally:
            client.kill()
    (found,) = dialled(watched, port)
    assert (found.remote, found.pid) == (Endpoint("::1", port), client.pid)


def test_our_own_connections_are_left_out() -> None:
    port = free_port()
    with socket.create_server(("127.83.9.1", port)):
        collector = LiveCollector("h", ports={port})

        def act() -> None:
            with socket.create_connection(("127.83.9.1", port)):
                wait_for(lambda: any(one.told for one in collector._connections._open.values()), "ours to be seen")
            run(["nc", "-N", "-w", "1", "127.83.9.1", str(port)])

        watched = watch(collector, act, lambda it: dialled(it, port))
    assert all(one.pid != os.getpid() for one in dialled(watched, port))
    assert len(dialled(watched, port)) == 1


def test_a_worker_that_never_started_a_program_is_told_before_its_connection() -> None:
    port = free_port()
    script = f"""
        import os, socket, time
        if os.fork() == 0:
            ours = socket.create_connection(("127.83.9.1", {port}))
            time.sleep(60)
        else:
            os.wait()
    """
    with (
        socket.create_server(("127.83.9.1", port)),
        subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], start_new_session=True) as parent,
    ):
        try:
            watched = watch(LiveCollector("h", ports={port}), lambda: 0, lambda it: dialled(it, port))
        finally:
            os.killpg(parent.pid, 9)
    (found,) = dialled(watched, port)
    assert found.pid not in (None, parent.pid)
    (worker,) = executed(watched, found.pid or 0)
    assert worker.process.parent_pid == parent.pid
    assert watched.events.index(worker) < watched.events.index(found)


@KERNEL_TELLS
def test_with_the_helper_each_publish_is_told_once_and_with_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributor, "find_program", lambda: build_plugin("attribute"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # the broker goes on as another user
        own = folder / "broker"
        own.mkdir()
        shutil.chown(own, "mosquitto")
        where = folder / "helper" / "socket"
        config = [
            *("user mosquitto", "listener {port} 127.0.0.1", f"plugin {build_plugin()}"),
            *(f"plugin_opt_ring {own}/ring", f"plugin_opt_attribute {where}"),
        ]

        with mosquitto(own, config, listener=False) as asking:
            port = asking.port
            collector = LiveCollector("h", ports={port}, attributor_socket=where)
            act = Children(*[publish(port)] * 25)
            watched = watch(collector, act, lambda it: len(published(it, port)) >= 25)
    assert sorted(one.pid or 0 for one in published(watched, port)) == sorted(act.pids)
    for pid in act.pids:
        events = executed(watched, pid)
        assert events[-1].process.executable == "/usr/bin/mosquitto_pub"
        assert events[-1].process.arguments[-2:] == ("-m", "<payload>")
    assert not where.exists()


STORM = """
import os, sys
for _ in range(int(sys.argv[1])):
    pid = os.posix_spawn("/bin/true", ["true"], {})
    print(pid)
    os.waitpid(pid, 0)
"""


@KERNEL_TELLS
def test_a_storm_of_programs_is_seen_whole_or_what_is_missing_is_told() -> None:
    started: list[int] = []

    def act() -> None:
        done = subprocess.run([sys.executable, "-c", STORM, "1500"], capture_output=True, text=True, check=True)
        started.extend(map(int, done.stdout.split()))

    collector = LiveCollector("h")
    # The last of them has ended when its end was told.
    watched = watch(
        collector, act, lambda it: any(isinstance(event, Exited) and event.pid == started[-1] for event in it.events)
    )
    told = {event.process.pid for event in watched.events if isinstance(event, Executed)}
    missing = set(started) - told
    assert len(missing) <= collector.counters.lost
    assert not collector.counters.decode_errors
    assert len({event.process.parent_pid for pid in started for event in executed(watched, pid)}) == 1


@KERNEL_TELLS
def test_what_the_kernel_had_no_room_for_is_told_and_what_is_there_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink_process, "RECEIVE_BYTES", 4096)
    collector = LiveCollector("h")
    monkeypatch.undo()
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        # Nobody reads yet.
        run([sys.executable, "-c", STORM, "200"])
        try:
            watched = watch(collector, lambda: run(["true"]), lambda it: it.gaps and executed(it, sleeper.pid))
        finally:
            sleeper.kill()
    assert collector.counters.lost > 0
    assert sum(notice.count for notice in watched.notices if notice.code == "TW901") == collector.counters.lost
    assert {notice.scope for notice in watched.notices} == {"process events"}


def descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def test_closing_leaves_nothing_open_and_what_was_done_before_is_handed_over() -> None:
    before = descriptors()
    collector = LiveCollector("h")
    assert collector.observing
    assert len(descriptors()) > len(before)

    async def go() -> list[int]:
        pids = []
        async for batch in collector.batches():
            pids += [event.process.pid for event in batch.hosts if isinstance(event, Executed)]
            if len(pids) == len(set(pids)) and not collector.observing:
                break
            if pids:
                process = await asyncio.create_subprocess_exec("true")
                await process.wait()
                await collector.close()
                pids.append(-process.pid)
        return pids

    pids = asyncio.run(go())
    assert descriptors() == before
    if can_listen():
        assert any(-pid in pids for pid in pids if pid < 0)


def test_a_collector_that_was_never_asked_for_batches_can_be_closed() -> None:
    before = descriptors()

    async def go() -> None:
        collector = LiveCollector("h")
        await collector.close()
        assert [batch async for batch in collector.batches()] == []

    asyncio.run(go())
    assert descriptors() == before


CHILD = """
import asyncio, json, os, socket, subprocess, sys
import encodings.idna, concurrent.futures.thread
from topicwarden.events.host_rows import host_row
from topicwarden_collectors.host.live import LiveCollector
from topicwarden_collectors.host.live_connections import PUBSUB_PORTS

async def main(port):
    collector = LiveCollector("h", ports={port})
    rows = []
    async def collect():
        async for batch in collector.batches():
            rows.extend(map(host_row, batch.hosts))
    task = asyncio.create_task(collect())
    def connections():
        return [row for row in rows if row["event"] == "dialled"]
    def programs():
        return [row for row in rows if row["event"] == "executed" and row["process"]["arguments"][1:] == ("8.25",)]
    sleeper = subprocess.Popen(["sleep", "8.25"])
    with socket.create_server(("127.83.9.2", port)):
        client = subprocess.Popen(["nc", "127.83.9.2", str(port)], stdin=subprocess.PIPE)
        for _ in range(2000):
            if connections() and programs():
                break
            await asyncio.sleep(0.01)
        client.kill(); client.wait()
        client.stdin.close()
    sleeper.kill(); sleeper.wait()
    await collector.close()
    await task
    spots = [[spot.what, spot.fix] for spot in collector.blind_spots()]
    print(json.dumps({"client": client.pid, "sleeper": sleeper.pid, "title": collector.title, "spots": spots,
                      "connections": connections(), "programs": programs()}))
"""
AS_NOBODY = CHILD + "os.setgroups([]); os.setgid(65534); os.setuid(65534)\nasyncio.run(main(int(sys.argv[1])))\n"
IN_CONTAINER = (
    CHILD + "subprocess.run(['ip', 'link', 'set', 'lo', 'up'], check=True)\nasyncio.run(main(int(sys.argv[1])))\n"
)


def child(script: str, *before: str) -> dict[str, Any]:
    port = free_port()
    command = [*before, sys.executable, "-W", "error", "-c", script, str(port)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    found["port"] = port
    return found


def said(found: dict[str, Any], what: str) -> list[str | None]:
    return [fix for spot, fix in found["spots"] if what in spot]


def test_another_user_sees_its_own_and_is_told_what_root_would_see() -> None:
    found = child(AS_NOBODY)
    (connection,) = found["connections"]
    assert (connection["pid"], connection["user"]) == (found["client"], "nobody")
    assert connection["remote"] == {"address": "127.83.9.2", "port": found["port"]}
    (program,) = found["programs"]
    assert program["process"]["pid"] == found["sleeper"]
    (fix,) = said(found, "of other users' processes")
    assert fix is not None
    assert "CAP_SYS_PTRACE" in fix


@CONTAINERS
def test_in_a_container_proc_is_looked_at_and_it_is_told_what_that_misses() -> None:
    found = child(IN_CONTAINER, "unshare", "--net", "--pid", "--fork", "--mount-proc")
    assert "processes that last" in found["title"]
    (connection,) = found["connections"]
    assert connection["pid"] == found["client"]
    (program,) = found["programs"]
    assert program["process"]["pid"] == found["sleeper"]
    (fix,) = said(found, "processes that live shorter than")
    assert fix is not None
    assert "initial namespaces" in fix


@CONTAINERS
def test_a_kernel_that_ignores_us_is_noticed_at_once() -> None:
    script = """
        from topicwarden.errors import ObservationError
        from topicwarden_collectors.host.netlink_process import ProcessEvents
        try:
            ProcessEvents()
        except ObservationError as error:
            print(error.problems[0].message, "|", error.problems[0].hint)
    """
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if can_listen():
        assert done.stdout.startswith("the kernel does not answer")
    assert "|" in done.stdout


class TestTheContract(CollectorContract):
    @contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        with mosquitto(folder / "broker") as broker:
            collector = LiveCollector("h", ports={broker.port})

            def act() -> None:
                run(publish(broker.port, PAYLOAD_MARK))

            def shows(rows: list[dict[str, Any]]) -> bool:
                return any(row["event"] == "dialled" and row["remote"]["port"] == broker.port for row in rows)

            yield Stage(collector, act, shows, None, rows_of=rows_of)
            asyncio.run(collector.close())

    def build_on_nothing(self, folder: Path) -> Collector:
        patch = pytest.MonkeyPatch()
        try:
            # A machine that lets nobody look at anything cannot be had here.
            patch.setattr(live_sources, "ProcessEvents", refuse)
            patch.setattr(live_sources, "ClosedSockets", refuse)
            patch.setattr(live_sources, "SocketDump", refuse)
            patch.setattr(live_sources, "ListedSockets", refuse)
            patch.setattr(procfs, "pids", list)
            return LiveCollector("h")
        finally:
            patch.undo()


def refuse(*_: object) -> None:
    raise ObservationError if not _ else PermissionError


def test_the_ports_looked_at_are_those_of_the_protocols_and_not_everybodys() -> None:
    assert {1883, 8883, 5672, 5671, 61613, 61614, 5222, 5223, 5269} <= PUBSUB_PORTS
    assert not {80, 443} & PUBSUB_PORTS
