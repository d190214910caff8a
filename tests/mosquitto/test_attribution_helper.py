"""The helper by itself: what it tells whom, what it refuses, and that nobody's behaviour stops it for others."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.brokers import wait_for
from tests.mosquitto.attribution_stage import (
    ANSWER,
    FOUND,
    NO_CONNECTION,
    NO_PROCESS,
    NOBODY,
    Asker,
    connection,
    helper_pid,
    needs_root,
    place,
    publish,
    request,
    stage,
    start,
)
from tests.mosquitto.plugin_build import build_plugin
from topicwarden.events import Dialled, Executed
from topicwarden.sources import Counters
from topicwarden_collectors.host.attributor import Attributor

__all__ = ["place"]
pytestmark = needs_root
BIG = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as raw:
    raw.recv(1)
"""


@pytest.fixture(params=["release", "sanitized"])
def helper(request: pytest.FixtureRequest, place: Path) -> Iterator[tuple[Attributor, Path, Counters]]:
    counters = Counters()
    attributor = start(place / "h" / "socket", counters, asan=request.param == "sanitized")
    yield attributor, place / "h" / "socket", counters
    attributor.read()
    assert "attributor_ended" not in counters.source  # it never crashed
    attributor.close()
    assert not (place / "h" / "socket").exists()


@contextlib.contextmanager
def acting_as(user: int) -> Iterator[None]:
    """Do something in this process in the name of another user."""
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


Helper = tuple[Attributor, Path, Counters]


def test_the_process_of_a_connection_is_told_to_the_asker_and_to_us(helper: Helper) -> None:
    attributor, where, counters = helper
    with Asker(where) as asker, connection() as (client, accepted):
        assert asker.ask(accepted) == (os.getpid(), FOUND)
        wait_for(lambda: os.getpid() in {pid_in(event) for event in attributor.read()}, "the record")
        client.close()
        assert asker.ask(accepted)[1] in {NO_CONNECTION, NO_PROCESS}
    assert counters.source["attributed"] == 1


def pid_in(event: object) -> int | None:
    return event.process.pid if isinstance(event, Executed) else None


def test_of_a_connection_whose_other_end_is_not_the_askers_nothing_is_told(helper: Helper) -> None:
    attributor, where, counters = helper
    with Asker(where) as asker, socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        with acting_as(NOBODY):
            accepted, _ = server.accept()
        with accepted:
            assert asker.ask(accepted) == (0, NO_CONNECTION)
        with connection() as (_, other):  # the records come in order: there is none of the first
            assert asker.ask(other)[1] == FOUND
        wait_for(lambda: attributor.read(), "the record")
    assert counters.source == {"attributed": 1}


def test_a_process_that_was_handed_anothers_socket_is_not_blamed(helper: Helper) -> None:
    attributor, where, _ = helper
    with Asker(where) as asker, socket.create_server(("127.0.0.1", 0)) as server:
        with acting_as(NOBODY):
            client = socket.socket()
        with client:
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                assert asker.ask(accepted) == (0, NO_PROCESS)
    wait_for(lambda: select.select([attributor], [], [], 0)[0], "the record")
    (dialled,) = attributor.read()
    assert isinstance(dialled, Dialled)
    assert (dialled.pid, dialled.user) == (None, "nobody")


def test_only_allowed_users_are_answered(helper: Helper) -> None:
    _, where, _ = helper
    assert where.stat().st_mode & 0o777 == 0o660
    assert where.owner() == "root"
    assert where.group() == "mosquitto"
    with acting_as(NOBODY), pytest.raises(PermissionError):
        Asker(where)
    where.chmod(0o666)
    with acting_as(NOBODY), Asker(where) as stranger:
        assert refused(stranger, bytes(64))


def refused(asker: Asker, data: bytes) -> bool:
    """Send something; whether the helper hangs up."""
    try:
        asker.socket.send(data)
        return asker.socket.recv(64) == b""
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_requests_that_are_none_end_the_connection_and_harm_nobody_else(place: Path) -> None:
    counters = Counters()
    attributor = start(place / "h" / "socket", counters, asan=True)
    with Asker(place / "h" / "socket") as good, connection() as (_, accepted):
        whole = request(7, accepted)

        @settings(max_examples=150, deadline=None)
        @given(
            st.binary(min_size=1, max_size=200)
            | st.binary(min_size=64, max_size=64)
            | st.tuples(st.integers(0, 63), st.binary(min_size=1, max_size=8)).map(
                lambda change: (whole[: change[0]] + change[1] + whole[change[0] + len(change[1]) :])[:64]
            )
        )
        @example(whole[:63])
        @example(whole + b"\0")
        @example(bytes(60_000))
        def any_request(data: bytes) -> None:
            hung_up = contextlib.suppress(BrokenPipeError, ConnectionResetError)
            with Asker(place / "h" / "socket") as bad, hung_up:
                bad.socket.send(data)
                answer = bad.socket.recv(64)
                assert answer == b"" or ANSWER.unpack(answer)[0] == 1
            attributor.read()

        any_request()
        assert good.ask(accepted) == (os.getpid(), FOUND)
    attributor.read()
    assert "attributor_ended" not in counters.source
    attributor.close()


def test_a_crowd_of_brokers_is_turned_away_and_room_is_made_when_one_leaves(helper: Helper) -> None:
    _, where, _ = helper
    with connection() as (_, accepted), contextlib.ExitStack() as stack:
        crowd: list[Asker] = []
        while True:
            asker = stack.enter_context(Asker(where))
            if len(crowd) == 16:
                assert refused(asker, request(1, accepted))
                break
            assert asker.ask(accepted)[1] == FOUND
            crowd.append(asker)
        crowd[3].socket.close()

        def answered() -> bool:
            with Asker(where) as another:
                return not refused(another, request(1, accepted))

        wait_for(answered, "room for another")


def test_of_several_requests_that_wait_only_the_last_is_answered(helper: Helper) -> None:
    _, where, _ = helper
    pid = helper_pid()
    with Asker(where) as asker, connection() as (_, accepted):
        assert asker.ask(accepted)[1] == FOUND  # it knows this asker by now
        os.kill(pid, 19)
        for number in range(100, 110):
            asker.socket.send(request(number, accepted))
        os.kill(pid, 18)
        assert ANSWER.unpack(asker.socket.recv(64))[1] == 109


def test_when_we_do_not_read_brokers_are_answered_all_the_same_and_what_is_lost_is_counted(helper: Helper) -> None:
    attributor, where, counters = helper
    with socket.create_server(("127.0.0.1", 0)) as server, Asker(where) as asker:
        command = [sys.executable, "-c", BIG, str(server.getsockname()[1]), *["w" * 100_000] * 4]
        with subprocess.Popen(command) as process:
            accepted, _ = server.accept()
            with accepted:
                asked = 12
                for _ in range(asked):
                    assert asker.ask(accepted) == (process.pid, FOUND)
                came = 0

                def all_known() -> bool:
                    nonlocal came, asked
                    assert asker.ask(accepted)[1] == FOUND
                    asked += 1
                    came += sum(isinstance(event, Executed) for event in attributor.read())
                    return attributor.dropped > 0 and came + attributor.dropped == asked

                wait_for(all_known, "every record to be there or counted")
    assert counters.lost == attributor.dropped
    assert counters.gaps >= 1


def test_the_helper_keeps_two_capabilities_and_can_get_no_other(helper: Helper) -> None:
    del helper
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{helper_pid()}/status").read_text().splitlines())
    kept = f"{1 << 19 | 1 << 2:016x}"
    assert [status[name] for name in ("CapPrm", "CapEff", "CapBnd")] == [kept] * 3
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Groups"].strip() == ""


# ---- starting and ending


def run(place: Path, *arguments: str, stdout: int = subprocess.PIPE) -> subprocess.Popen[bytes]:
    command = [str(build_plugin("attribute")), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE, cwd=place)


def ending(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """What a helper that ends by itself says."""
    with process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    return process.returncode, said


def test_what_it_cannot_do_it_says_and_leaves(place: Path) -> None:
    open_to_all = place / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert ending(run(place))[0] == 2
    assert ending(run(place, "relative"))[0] == 2
    assert ending(run(place, "/" + "x" * 200))[0] == 2
    assert ending(run(place, "--allow", "no such user", "/x/y"))[0] == 2
    assert ending(run(place, "--group", "no such group", "/x/y"))[0] == 2
    assert "writable by nobody else" in ending(run(place, f"{open_to_all}/socket"))[1]
    assert "must be a pipe" in ending(run(place, f"{place}/h/socket", stdout=subprocess.DEVNULL))[1]
    (place / "file").write_text("precious")
    status, said = ending(run(place, f"{place}/file"))
    assert (status, "in use" in said) == (3, True)
    assert (place / "file").read_text() == "precious"


def test_it_ends_with_its_input_on_sigterm_and_when_nobody_reads_it(place: Path) -> None:
    where = place / "h" / "socket"
    for end in ("stdin", "sigterm", "stdout"):
        with run(place, str(where)) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert len(process.stdout.read(120)) == 120
            assert where.is_socket()
            if end == "stdin":
                process.stdin.close()
            elif end == "stdout":
                process.stdout.close()
            else:
                process.terminate()
            assert process.wait(20) == 0
        assert not where.exists()


def test_a_living_helpers_place_is_left_alone_and_a_dead_ones_is_taken(place: Path) -> None:
    where = place / "h" / "socket"
    with run(place, str(where)) as first:
        assert first.stdout is not None
        first.stdout.read(120)
        assert ending(run(place, str(where)))[0] == 3
        assert where.is_socket()
        first.kill()
    assert where.is_socket()
    attributor = start(where, Counters())
    with Asker(where) as asker, connection() as (_, accepted):
        assert asker.ask(accepted)[1] == FOUND
    attributor.close()


# ---- a helper that is none


@pytest.mark.parametrize("behaviour", ["silent", "others' answers", "nonsense", "hangs up", "other version"])
def test_whatever_listens_in_the_helpers_place_logins_succeed(behaviour: str, place: Path) -> None:
    where = place / "fake"
    stop = threading.Event()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(where))
        where.chmod(0o666)
        listening.listen(4)
        listening.settimeout(0.05)

        def misbehave() -> None:
            connections: list[socket.socket] = []
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    connections.append(listening.accept()[0])
                    connections[-1].settimeout(0.005)
                for one in connections:
                    with contextlib.suppress(OSError):
                        asked = one.recv(64)
                        if behaviour == "others' answers":
                            for number in range(200):
                                one.send(ANSWER.pack(1, number + 1000, 1, 0), socket.MSG_DONTWAIT)
                        elif behaviour == "nonsense":
                            one.send(b"?" * 500)
                        elif behaviour == "other version":
                            one.send(ANSWER.pack(2, int.from_bytes(asked[4:8], "little"), 1, 0))
                        elif behaviour == "hangs up":
                            one.close()
            for one in connections:
                one.close()

        thread = threading.Thread(target=misbehave)
        thread.start()
        try:
            options = [f"plugin_opt_attribute {where}", "plugin_opt_attribute_wait 10"]
            with stage(place, options, helper=False, asan=True) as here:
                for number in range(12):
                    publish(here.broker.port, f"c{number}")
                assert set(here.ports()) == {f"c{number}" for number in range(12)}
                counts = here.counts()
                assert counts["attributed"] == 0
                assert sum(count for name, count in counts.items() if name.startswith("attribution")) == 12
        finally:
            stop.set()
            thread.join()
