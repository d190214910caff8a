"""What /proc tells of processes, asked of processes of our own."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.brokers import wait_for
from topicwarden_collectors.host import procfs
from topicwarden_collectors.host.live_owners import SocketOwners, eldest

ID = "0123456789abcdef" * 4
OTHER = "fedcba9876543210" * 4


@contextmanager
def child(*command: str | bytes) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that waits for its input to end; it runs when the block begins."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            wait_for(lambda: started(process.pid), "the program to be started")
            yield process
        finally:
            process.kill()


def started(pid: int) -> bool:
    """Whether a copy of us has become another program; its arguments are there a moment after its path is."""
    return (
        procfs.executable_of(pid) != procfs.executable_of(os.getpid())
        and Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    )


@pytest.mark.parametrize(
    ("cgroups", "container"),
    [
        (f"0::/docker/{ID}\n", ID),
        (f"0::/system.slice/docker-{ID}.scope\n", ID),
        (f"12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n0::/system.slice/containerd.service\n", ID),
        (f"0::/docker/{OTHER}/docker/{ID}\n", ID),
        (f"0::/kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796/{ID}\n", ID),
        (f"0::/kubepods.slice/kubepods-pod123.slice/cri-containerd-{ID}.scope\n", ID),
        (f"0::/kubepods.slice/kubepods-besteffort.slice/crio-{ID}.scope\n", ID),
        (f"0::/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}\n", ID),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", ID),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n", ID),
        (f"4:memory:/ecs/55091c13-b8cf-4801-b527-f4601742204d/{ID}\n", ID),
        ("0::/lxc.payload.web1/system.slice/cron.service\n", "web1"),
        ("7:cpu:/lxc/web1\n", "web1"),
        ("0::/machine.slice/machine-deb12.scope/payload\n", "deb12"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", None),
        ("0::/system.slice/mosquitto.service\n", None),
        (f"0::/system.slice/{ID}0\n", None),
        ("0::/\n", None),
        ("", None),
    ],
)
def test_the_container_of_a_process_is_told_by_its_cgroups(cgroups: str, container: str | None) -> None:
    assert procfs.container_of(cgroups.encode()) == container


@given(st.binary(max_size=300))
def test_no_cgroups_make_the_reader_raise(cgroups: bytes) -> None:
    procfs.container_of(cgroups)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        *((0, None), (136 << 8, "pts0"), (136 << 8 | 7, "pts7"), (137 << 8 | 1, "pts257")),
        *((136 << 8 | 0x100000, "pts256"), (4 << 8 | 1, "tty1"), (4 << 8 | 64, "ttyS0")),
        *((229 << 8, "hvc0"), (250 << 8 | 3, "250:3")),
    ],
)
def test_a_terminal_has_the_name_that_audit_gives_it(number: int, name: str | None) -> None:
    assert procfs.terminal_of(number) == name


def test_a_process_is_read_with_all_there_is_to_know() -> None:
    with child("cat", "-", "a b", "") as process:
        state = procfs.read_process(process.pid)
        assert state is not None
        assert (state.pid, state.parent_pid, state.name) == (process.pid, os.getpid(), "cat")
        assert state.executable == os.path.realpath("/bin/cat")
        assert (state.arguments, state.cut) == (("cat", "-", "a b", ""), False)
        assert (state.ended, state.kernel, state.uid, state.container) == (False, False, os.getuid(), None)
        assert abs(procfs.utc_of_start(state.started_ns) - Path(f"/proc/{process.pid}").stat().st_ctime_ns) < 10**9
        assert procfs.started_ns(process.pid) == state.started_ns
        assert procfs.parent_of(process.pid) == os.getpid()


def test_of_a_command_line_of_megabytes_and_no_utf8_the_beginning_is_read() -> None:
    arguments = [b"\xff\xfe", *[b"\xe2\x28" + b"x" * 100_000] * 15]
    with child("tail", "-f", "-", "/dev/null", *arguments) as process:
        state = procfs.read_process(process.pid)
    assert state is not None
    assert state.cut
    assert sum(map(len, state.arguments)) < procfs.MAX_COMMAND
    assert [one.encode("utf-8", "surrogateescape") for one in state.arguments[4:5]] == [b"\xff\xfe"]


def test_a_program_whose_name_has_brackets_and_line_feeds_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1\n(x"
    program.symlink_to(sys.executable)
    script = "import sys; open('/proc/self/comm', 'w').write('b) R 7 7 7\\n('); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([program, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        state = procfs.read_process(process.pid)
        process.kill()
    assert state is not None
    assert (state.name, state.parent_pid) == ("b) R 7 7 7\n(", os.getpid())


def test_of_a_process_that_ended_and_was_not_waited_for_its_name_is_left() -> None:
    with subprocess.Popen(["true"]) as process:
        wait_for(lambda: (state := procfs.read_process(process.pid)) is not None and state.ended, "the end of it")
        state = procfs.read_process(process.pid)
        assert state is not None
        assert (state.name, state.executable, state.arguments, state.uid) == ("true", None, (), os.getuid())
    assert procfs.read_process(process.pid) is None
    assert procfs.started_ns(process.pid) is None
    assert list(procfs.socket_inodes(process.pid, 10)) == []


def test_a_program_that_was_deleted_keeps_its_path(tmp_path: Path) -> None:
    program = tmp_path / "cat"
    program.write_bytes(Path("/bin/cat").read_bytes())
    program.chmod(0o755)
    with child(str(program)) as process:
        program.unlink()
        state = procfs.read_process(process.pid)
    assert state is not None
    assert state.executable == str(program)


def test_the_terminal_a_program_was_started_from_is_told() -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp("cat", ["cat"])
    try:
        wait_for(lambda: started(pid), "the program to be started")
        state = procfs.read_process(pid)
        assert state is not None
        # Only there, of all places, can the name of the terminal be asked for.
        assert state.terminal == str(Path(f"/proc/{pid}/fd/0").readlink()).removeprefix("/dev/").replace("/", "")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def test_a_thread_of_the_kernel_is_told_from_a_process() -> None:
    threads = [pid for pid in procfs.pids() if (state := procfs.read_process(pid)) is not None and state.kernel]
    names = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in threads]
    assert not any(names)
    assert os.getpid() not in threads


def test_all_processes_are_listed_once_and_the_newest_first() -> None:
    with child("cat") as process:
        numbers = procfs.pids()
        last = int(Path("/proc/loadavg").read_text().split()[4])
    assert len(numbers) == len(set(numbers))
    assert {os.getpid(), process.pid} <= set(numbers)
    older = [pid for pid in numbers if pid > last]
    assert numbers == [pid for pid in numbers if pid <= last] + older
    assert older == sorted(older, reverse=True)


def test_a_user_without_a_name_is_a_number() -> None:
    assert procfs.user_name(0) == "root"
    assert procfs.user_name(3_999_999_999) == "3999999999"


def test_whose_a_socket_is_says_its_inode_wherever_it_is_looked_for() -> None:
    with socket.socket() as ours, child("cat"):
        inode = os.fstat(ours.fileno()).st_ino
        owners = SocketOwners()
        assert owners.among({inode}, [os.getppid(), os.getpid()]) == {inode: os.getpid()}
        assert owners.anywhere({inode}) == ({inode: os.getpid()}, True)
        assert inode in owners.sockets([os.getpid()])
        assert owners.among({1}, [os.getpid()]) == {}


def test_a_socket_that_children_inherited_is_that_of_the_process_they_have_it_from() -> None:
    with socket.socket() as ours:
        script = "sleep 60 & echo $!; wait"
        command = ["sh", "-c", script]
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[ours.fileno()]) as shell:
            assert shell.stdout is not None
            sleeper = int(shell.stdout.readline())
            try:
                inode = os.fstat(ours.fileno()).st_ino
                assert inode in procfs.socket_inodes(sleeper, 100)
                assert eldest(sleeper, inode) == os.getpid()
                assert SocketOwners().anywhere({inode})[0] == {inode: os.getpid()}
                ours.close()
                assert eldest(sleeper, inode) == shell.pid
            finally:
                os.kill(sleeper, signal.SIGKILL)
                shell.kill()


def test_a_search_that_takes_too_long_goes_on_the_next_time() -> None:
    with socket.socket() as ours:
        inode = os.fstat(ours.fileno()).st_ino
        owners = SocketOwners(scan_s=0)
        found: dict[int, int] = {}
        finished = False
        for _ in range(100_000):
            some, finished = owners.anywhere({inode})
            found |= some
            if finished:
                break
        assert finished
        assert found == {inode: os.getpid()}
        assert owners.unfinished > 0
