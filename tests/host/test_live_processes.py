"""Processes are told when they start a program, or are first met; and which of them are watched closely."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.brokers import wait_for
from topicwarden.events import Executed, Exited, HostEvent, Process
from topicwarden.sources import Counters
from topicwarden_collectors.host import procfs
from topicwarden_collectors.host.live_processes import LiveProcesses
from topicwarden_collectors.host.live_watching import MAX_LOOKS, MAX_WATCHED, Watching, likely
from topicwarden_collectors.host.netlink_process import Happened, ProcessEvent


class Told:
    def __init__(self, capacity: int = 1000) -> None:
        self.events: list[HostEvent] = []
        self.counters = Counters()
        self.processes = LiveProcesses("h", self.counters, self.events.append, capacity=capacity)

    def happened(self, happened: Happened, pid: int, parent: int | None = None, at: int | None = None) -> None:
        at = time.monotonic_ns() if at is None else at
        event = ProcessEvent(happened, 0, 0, at, pid, parent)
        self.processes.happened(event, self.processes.look(event), time.time_ns() - time.monotonic_ns())

    @property
    def executed(self) -> list[Process]:
        return [event.process for event in self.events if isinstance(event, Executed)]


@contextmanager
def sleeper(*arguments: str) -> Iterator[int]:
    with subprocess.Popen(["sleep", "60", *arguments]) as process:
        try:
            wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"), "sleep")
            yield process.pid
        finally:
            process.kill()


def ended_pid() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_started_program_is_told_and_its_end() -> None:
    told = Told()
    with sleeper("0") as pid:
        told.happened(Happened.FORK, pid, os.getpid())
        assert told.events == []
        told.happened(Happened.EXEC, pid)
        told.happened(Happened.EXIT, pid)
    executed, exited = told.events
    assert isinstance(executed, Executed)
    assert isinstance(exited, Exited)
    process = executed.process
    assert (process.host, process.pid, process.parent_pid) == ("h", pid, os.getpid())
    assert (process.executable, process.arguments) == (os.path.realpath("/bin/sleep"), ("sleep", "60", "0"))
    assert (process.user, process.cut) == (procfs.user_name(os.getuid()), False)
    assert abs(executed.time_ns - time.time_ns()) < 60 * 10**9
    assert exited.pid == pid


def test_secrets_are_taken_out() -> None:
    told = Told()
    command = ["sh", "-c", "read line", "mosquitto_pub", "--password", "geheim"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        wait_for(lambda: Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sh"), "the shell")
        told.happened(Happened.EXEC, process.pid)
        assert process.stdin is not None
        process.stdin.close()
    assert told.executed[0].arguments == (*command[:-1], "***")


def test_of_a_process_that_was_gone_before_it_was_read_the_parent_is_told() -> None:
    told = Told()
    assert told.processes.met(os.getpid())
    pid = ended_pid()
    told.happened(Happened.FORK, pid, os.getpid())
    told.happened(Happened.EXEC, pid)
    process = told.executed[1]
    assert (process.executable, process.arguments, process.cut, process.user) == ("", (), True, None)
    assert (process.parent_pid, process.parent_executable) == (os.getpid(), procfs.executable_of(os.getpid()))
    assert told.counters.source["processes_gone"] == 1


def test_a_number_that_another_process_has_by_now_tells_nothing_of_the_one_before() -> None:
    told = Told()
    with sleeper() as pid:
        told.happened(Happened.EXEC, pid, at=time.monotonic_ns() - 60 * 10**9)
    assert told.executed[0].arguments == ()


def test_the_parent_is_who_started_it_even_when_another_has_it_now() -> None:
    told = Told()
    with sleeper() as pid:
        told.happened(Happened.FORK, pid, 4711)
        told.happened(Happened.EXEC, pid)
        told.happened(Happened.EXEC, pid)
    assert [process.parent_pid for process in told.executed] == [4711, 4711]


def test_a_copy_that_starts_no_program_runs_that_of_its_parent() -> None:
    told = Told()
    told.processes.met(os.getpid())
    told.happened(Happened.FORK, 900_001, os.getpid())
    told.happened(Happened.FORK, 900_002, 900_001)
    assert told.processes.executable(900_002) == procfs.executable_of(os.getpid())
    assert told.processes.executable(900_003) is None
    assert list(told.processes.newest)[:2] == [900_002, 900_001]


def test_a_loop_of_parents_ends() -> None:
    told = Told()
    told.happened(Happened.FORK, 900_001, 900_002)
    told.happened(Happened.FORK, 900_002, 900_001)
    assert told.processes.executable(900_001) is None


def test_the_end_of_a_process_that_was_not_told_is_not_told() -> None:
    told = Told()
    told.happened(Happened.FORK, 900_001, os.getpid())
    told.happened(Happened.EXIT, 900_001)
    assert told.events == []


def test_a_process_that_was_there_before_us_is_told_once_with_the_time_it_began() -> None:
    told = Told()
    with sleeper() as pid:
        assert told.processes.met(pid)
        assert not told.processes.met(pid)
        began_ns = Path(f"/proc/{pid}").stat().st_ctime_ns
    (event,) = told.events
    assert isinstance(event, Executed)
    assert abs(event.time_ns - began_ns) < 10**9
    assert not told.processes.met(ended_pid())


def test_a_start_that_waited_to_be_read_while_its_process_was_met_is_not_told_twice() -> None:
    told = Told()
    before = time.monotonic_ns()
    with sleeper() as pid:
        told.happened(Happened.FORK, pid, os.getpid(), at=before)
        assert told.processes.met(pid)
        told.happened(Happened.EXEC, pid, at=before)
        assert len(told.executed) == 1
        told.happened(Happened.EXEC, pid)
        assert len(told.executed) == 2


def test_what_the_kernel_did_not_tell_is_found_by_comparing() -> None:
    told = Told()
    with sleeper() as pid, sleeper() as other:
        told.processes.met(pid)
        told.processes.met(other)
        told.processes.compare([pid, other])
        assert len(told.events) == 2
        told.processes.compare([pid])
        assert [event.pid for event in told.events if isinstance(event, Exited)] == [other]


def test_a_process_that_went_on_with_another_program_is_told_again() -> None:
    told = Told()
    with subprocess.Popen(["sh", "-c", "read line; exec sleep 60"], stdin=subprocess.PIPE) as process:
        try:
            wait_for(lambda: told.processes.met(process.pid), "the shell")
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()

            def again() -> bool:
                told.processes.compare([process.pid])
                return told.processes.met(process.pid)

            wait_for(again, "the program after it")
        finally:
            process.kill()
    assert [one.arguments[0] for one in told.executed] == ["sh", "sleep"]
    assert not any(isinstance(event, Exited) for event in told.events)


def test_what_another_source_knows_is_news_when_we_know_less() -> None:
    told = Told()
    pid = ended_pid()
    told.happened(Happened.EXEC, pid)
    assert told.processes.told_by_another(Executed(time.time_ns(), Process("h", pid, "/usr/bin/mosquitto_pub")))


def test_what_another_source_tells_first_is_not_told_again() -> None:
    told = Told()
    before = time.monotonic_ns()
    with sleeper() as pid:
        event = Executed(time.time_ns(), Process("h", pid, "/usr/bin/sleep", parent_pid=4711))
        assert told.processes.told_by_another(event)
        told.happened(Happened.EXEC, pid, at=before)
        assert told.events == []
        assert told.processes.executable(pid) == "/usr/bin/sleep"


def test_what_another_source_tells_too_late_is_no_news() -> None:
    told = Told()
    with sleeper() as pid:
        began_ns = procfs.utc_of_start(procfs.started_ns(pid) or 0)
        told.happened(Happened.EXEC, pid)
        assert not told.processes.told_by_another(Executed(began_ns, Process("h", pid, "/usr/bin/sleep")))
        told.happened(Happened.EXIT, pid)
        assert not told.processes.told_by_another(Executed(began_ns, Process("h", pid, "/usr/bin/sleep")))
    other = Executed(began_ns + 10**9, Process("h", pid, "/usr/bin/other"))
    assert told.processes.told_by_another(other)


def test_processes_are_kept_bounded_and_those_forgotten_counted() -> None:
    told = Told(capacity=10)
    for pid in range(900_000, 900_050):
        told.happened(Happened.FORK, pid, 1)
        told.happened(Happened.EXEC, pid)
    assert told.processes.evicted == 40
    for pid in range(900_100, 900_150):
        told.happened(Happened.FORK, pid, 1)
    assert told.processes.evicted == 80
    assert len(list(told.processes.newest)) == 20


@pytest.mark.parametrize(
    ("executable", "arguments", "expected"),
    [
        ("/usr/bin/mosquitto_pub", (), True),
        ("/usr/bin/nc.openbsd", (), True),
        ("/usr/bin/python3.11", ("python3", "x.py"), True),
        ("/bin/bash", ("bash", "-c", "exec 3<>/dev/tcp/10.0.0.1/1883"), True),
        ("/opt/x", ("x", "mqtt://broker"), True),
        ("", (), False),
        ("/bin/ls", ("ls", "-l"), False),
        ("/usr/lib/nc/ls", ("ls",), False),
    ],
)
def test_a_program_that_may_speak_to_a_broker_is_told_from_others(
    executable: str, arguments: tuple[str, ...], expected: bool
) -> None:
    assert likely(Process("h", 1, executable, arguments)) is expected


def test_a_likely_program_is_watched_for_a_while_and_no_longer_than_it_lives() -> None:
    watching = Watching(0.0)
    watching.started(Process("h", 1, "mosquitto_pub"), 0.0)
    watching.started(Process("h", 2, "mosquitto_sub"), 0.1)
    assert watching.watched(0.2)
    assert list(watching) == [1, 2]
    watching.ended(1)
    assert list(watching) == [2]
    assert not watching.watched(9.0)


def test_connections_are_looked_at_for_a_likely_program_always_and_for_others_when_they_have_a_new_socket() -> None:
    watching = Watching(0.0)
    watching.started(Process("h", 1, "/bin/x"), 0.0)
    assert not watching.worth({})
    assert [watching.worth({7: 1}) for _ in range(MAX_LOOKS + 1)] == [True] * MAX_LOOKS + [False]
    assert watching.worth({7: 1, 8: 1})
    watching.started(Process("h", 2, "mosquitto_pub"), 0.0)
    assert watching.worth({})


@given(st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 0.1), st.booleans()), max_size=200))
def test_watching_takes_no_more_than_its_share(steps: list[tuple[float, float, bool]]) -> None:
    """What is saved up and one last look come on top of the share."""
    watching = Watching(0.0, share=0.08, others_share=0.02)
    now = spent = 0.0
    for pid, (gap, cost, is_likely) in enumerate(steps):
        now += gap
        watching.started(Process("h", pid, "mosquitto_pub" if is_likely else "/bin/x"), now)
        if watching.watched(now):
            watching.spent(cost)
            spent += cost
            now += cost
        assert len(watching) <= 2 * MAX_WATCHED
    assert spent <= 0.1 * now + 2 * (1.0 + 0.1) + 1e-6
