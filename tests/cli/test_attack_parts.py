"""What `attack` is made of: sessions that leave nothing behind, servers of our own, and every test played on them."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Event

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import wait_for
from topicwarden.cli.atomic_shell import AtomicShell
from topicwarden.cli.atomics import Atomic
from topicwarden.cli.attack_plan import Planned, read_plan
from topicwarden.cli.sessions import run_session
from topicwarden.errors import ObservationError
from topicwarden.sources import Staged
from topicwarden_collectors.mosquitto.stage import stage as mosquitto_stage
from topicwarden_collectors.xmpp.stage import stage as xmpp_stage

ATTACKED, APPROVED, NOBODYS = (f"127.83.{os.getpid() % 250 + 1}.{last}" for last in (7, 8, 9))
PLAN = {planned.label: planned for planned in read_plan()}
QUICK = [label for label, planned in PLAN.items() if not planned.expected.optional]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pids_in(path: Path, count: int) -> list[int]:
    wait_for(lambda: path.exists() and len(path.read_text().split()) == count, "the processes to tell their numbers")
    return [int(word) for word in path.read_text().split()]


def test_a_commands_status_and_output_are_kept(tmp_path: Path) -> None:
    output = tmp_path / "output"
    ended = run_session(["sh", "-c", "echo out; echo err >&2; exit 3"], tmp_path, output, 20, None)
    assert (ended.status, ended.timed_out) == (3, False)
    assert output.read_text() == "out\nerr\n"


def test_a_command_has_no_terminal_and_no_input(tmp_path: Path) -> None:
    output = tmp_path / "output"
    run_session(["sh", "-c", "cat; (exec < /dev/tty) 2> /dev/null || echo none"], tmp_path, output, 20, None)
    assert output.read_text() == "none\n"


def test_what_a_command_leaves_running_is_ended(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    run_session(["sh", "-c", f"sleep 1000 & echo $! > {told}"], tmp_path, tmp_path / "output", 20, None)
    (left,) = pids_in(told, 1)
    wait_for(lambda: not alive(left), "the process left behind to be gone")


def test_a_command_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    script = f"trap '' TERM; sleep 1000 & echo $$ $! > {told}; while :; do sleep 1000; done"
    ended = run_session(["sh", "-c", script], tmp_path, tmp_path / "output", 0.5, None)
    assert (ended.status, ended.timed_out) == (None, True)
    for pid in pids_in(told, 2):
        wait_for(lambda pid=pid: not alive(pid), "it to be gone")  # type: ignore[misc]


def test_a_command_is_ended_when_it_is_told_to(tmp_path: Path) -> None:
    stop = Event()
    told = tmp_path / "pid"

    def end_it() -> None:
        pids_in(told, 1)
        stop.set()

    ender = threading.Thread(target=end_it)
    ender.start()
    ended = run_session(["sh", "-c", f"echo $$ > {told}; sleep 1000"], tmp_path, tmp_path / "output", 60, stop)
    ender.join()
    assert (ended.status, ended.timed_out) == (None, False)


def atomic(command: str, cleanup: str | None = None, **more: object) -> Atomic:
    executor = {"name": "sh", "command": command, "cleanup_command": cleanup}
    return Atomic.model_validate(
        {"name": "n", "description": "d", "supported_platforms": ["linux"], "executor": executor, **more}
    )


@pytest.mark.parametrize("command", ["exit 0", "exit 1", "sleep 1000"], ids=["ends well", "fails", "hangs"])
def test_the_clean_up_is_always_run(command: str, tmp_path: Path) -> None:
    played = AtomicShell(tmp_path, Event(), seconds=1).play(atomic(command, "touch cleaned"), {}, tmp_path / "output")
    assert (tmp_path / "cleaned").exists()
    assert played.cleanup_status == 0
    assert (played.failure is None) == (command == "exit 0")


def test_the_clean_up_is_run_after_a_test_was_stopped(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    played = AtomicShell(tmp_path, stop).play(atomic("sleep 1000", "touch cleaned"), {}, tmp_path / "output")
    assert (tmp_path / "cleaned").exists()
    assert played.failure == "it was ended early"


def test_a_clean_up_that_fails_is_told(tmp_path: Path) -> None:
    played = AtomicShell(tmp_path, Event()).play(atomic("exit 0", "exit 4"), {}, tmp_path / "output")
    assert played.failure == "its clean-up failed"


def test_what_a_test_needs_and_is_not_there_is_told_in_its_words(tmp_path: Path) -> None:
    dependencies = [
        {"description": "needs #{tool}", "prereq_command": "command -v #{tool}", "get_prereq_command": None},
        {"description": "needs sh", "prereq_command": "command -v sh", "get_prereq_command": None},
    ]
    tool = {"tool": {"description": "d", "type": "string", "default": "no-such-tool"}}
    needy = atomic("#{tool}", dependencies=dependencies, input_arguments=tool)
    assert AtomicShell(tmp_path, Event()).unmet(needy, {}) == ["needs no-such-tool"]
    assert AtomicShell(tmp_path, Event()).unmet(needy, {"tool": "cat"}) == []


def test_a_test_for_a_person_is_not_played(tmp_path: Path) -> None:
    manual = atomic("x", executor={"name": "manual", "steps": "look at the screen"})
    with pytest.raises(ObservationError, match="for a person"):
        AtomicShell(tmp_path, Event()).play(manual, {}, tmp_path / "output")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Staged]]:
    folder = tmp_path_factory.mktemp("stages")
    with contextlib.ExitStack() as stack:
        yield {
            "mosquitto": stack.enter_context(mosquitto_stage(folder / "mosquitto", [ATTACKED, APPROVED])),
            "xmpp": stack.enter_context(xmpp_stage(folder / "xmpp", [ATTACKED])),
        }


class Listener:
    """Hears everything that is published, as an attacker's other end does."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _client, _data, message: self.heard.append(
            (message.topic, bytes(message.payload))
        )
        subscribed = Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect(ATTACKED, port)
        self._client.loop_start()
        self._client.subscribe("#")
        assert subscribed.wait(20)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.mark.parametrize("label", QUICK)
def test_it_does_what_it_says_on_a_server_of_our_own(label: str, staged: Mapping[str, Staged], tmp_path: Path) -> None:
    planned: Planned = PLAN[label]
    server = staged[planned.expected.stage]
    values = {**planned.values(ATTACKED, server, tmp_path), "seconds": "1", "count": "3", "interval": "0"}
    shell = AtomicShell(tmp_path, Event())
    assert shell.unmet(planned.atomic, values) == []
    listener = Listener(staged["mosquitto"].ports["mqtt"])
    try:
        played = shell.play(planned.atomic, values, tmp_path / "output")
        assert played.failure is None, (tmp_path / "output").read_text(errors="replace")
        said = (tmp_path / "output").read_bytes()
        if planned.expected.port == "xmpp":
            assert b"<stream:features>" in said
        elif "commands" in str(planned.atomic.input_arguments.get("topic")):
            assert listener.heard == []
        else:
            expected = 3 if "count" in planned.atomic.input_arguments else 1
            wait_for(lambda: len(listener.heard) >= expected, "what is published")
            assert len({topic for topic, _ in listener.heard}) == 1
    finally:
        listener.close()
    assert not (tmp_path / "systemd-udevd-worker").exists()


def test_servers_listen_on_their_own_addresses_only(staged: Mapping[str, Staged]) -> None:
    ports = [("mosquitto", "mqtt"), ("mosquitto", "unusual"), ("xmpp", "xmpp")]
    for server, port in ports:
        for address in (ATTACKED, NOBODYS):
            with socket.socket() as probe:
                answer = probe.connect_ex((address, staged[server].ports[port]))
            assert answer == (0 if address == ATTACKED else errno.ECONNREFUSED)


def test_a_server_whose_address_is_taken_is_an_error_and_leaves_nothing_running(
    staged: Mapping[str, Staged], tmp_path: Path
) -> None:
    for start in (mosquitto_stage, xmpp_stage):
        with pytest.raises(ObservationError, match="did not start"), start(tmp_path / start.__module__, [ATTACKED]):
            raise AssertionError("it runs")
