"""Names chosen by attackers, and crowds of clients, neither break the plugin nor lose or mix up anything."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import MOSQUITTO, free_port, port_answers, wait_for
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_cases import Case, Running, running
from tests.mosquitto.plugin_events import mode_of, read_events
from tests.mosquitto.plugin_mqtt import Client, packet, text
from tests.mosquitto.plugin_sanitizer import sanitizer_environment

HOSTILE = [
    "spoof (d0, q0, r0, m0, 'a/b', ... (1 bytes))",
    "quote'\"`$(id)",
    "line\u2028separator\u2029",
    "bidi\u202eesrever\u202c",
    "%s%n%p",
    "\U0001f4a3" * 300,
    "e\u0301" * 700,
    "x" * 1024,
    "x" * 1025,
    "ü" * 600,
    "long" * 16000,
]


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    case = Case("hostile", ["allow_anonymous true", "max_inflight_messages 0"], options=["plugin_opt_deliver all"])
    folder = tmp_path_factory.mktemp("hostile") / "run"
    with running(case, folder, build_plugin("asan"), None, sanitizer_environment()) as run:
        yield run
        assert run.broker.stop() == 0, run.broker.log.read_text(errors="replace")[-4000:]


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_client_id_user_and_topic_arrive_as_they_were_sent(name: str, sanitized: Running) -> None:
    topic = name.replace("#", "").replace("+", "")[:60000]
    with Client(sanitized.ports[0], name, name, "x", version=5) as client:
        assert client.code == 0
        assert client.publish(topic, b"x", 1) in {0, 16}
    rows, counters = read_events(sanitized.ring)
    assert not counters.unresolved
    assert not counters.decode_errors
    last = [row for row in rows if row["action"] == "publish"][-1]
    size = len(name.encode())
    for found, whole in ((last["client"]["client_id"], name), (last["client"]["user"], name)):
        if size <= 1024:
            assert found == whole
        else:
            assert found != whole
            assert found.startswith(whole[:200])
    assert last["resource"]["name"] == topic if size <= 1024 else topic.startswith(last["resource"]["name"])
    assert last["resource"].get("length", size) == len(topic.encode())


def test_two_long_ids_of_different_lengths_with_the_same_beginning_stay_two_clients(sanitized: Running) -> None:
    first, second = "same" * 500 + "1", "same" * 500 + "22"
    with Client(sanitized.ports[0], first) as one, Client(sanitized.ports[0], second) as two:
        for _ in range(3):
            one.publish("by/one", qos=1)
            two.publish("by/two", qos=1)
    rows, _ = read_events(sanitized.ring)
    by_topic = {
        topic: {row["client"]["client_id"] for row in rows if row.get("resource", {}).get("name") == topic}
        for topic in ("by/one", "by/two")
    }
    assert all(len(clients) == 1 for clients in by_topic.values())
    assert by_topic["by/one"] != by_topic["by/two"]


def test_broken_packets_and_half_logins_leave_no_trace_and_no_damage(sanitized: Running) -> None:
    before = len(read_events(sanitized.ring)[0])
    connect = packet(0x10, text("MQTT") + b"\x04\xc2\0\x3c" + text("half") + text("user"))
    for data in (b"", b"\x10", connect[:9], connect, packet(0x30, b"\0\1a"), b"\xff" * 64):
        with socket.create_connection(("127.0.0.1", sanitized.ports[0])) as broken:
            broken.sendall(data)
    with Client(sanitized.ports[0], "after") as client:
        client.publish("after", qos=1)
    after = read_events(sanitized.ring)[0][before:]
    assert {row["client"]["client_id"] for row in after} == {"after"}


@pytest.mark.parametrize("variant", ["release", "asan"])
def test_ten_thousand_clients_at_once_are_told_apart(variant: str, tmp_path: Path) -> None:
    count = 10_000 if variant == "release" else 2_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, count + 200), hard))
        count = min(count, hard - 200)
    lines = ["allow_anonymous true", "max_connections -1", "log_type error"]
    case = Case("crowd", lines, options=["plugin_opt_slots 131072"])
    environment = sanitizer_environment() if variant == "asan" else None
    with running(case, tmp_path / "run", build_plugin(variant), None, environment) as run:
        with crowd(run.ports[0], count) as sockets:
            for number, one in enumerate(sockets):
                one.sendall(packet(0x30, text(f"crowd/{number}") + b"x"))
                one.sendall(packet(0x30, text(f"crowd/{number}") + b"y"))
            with Client(run.ports[0], "last") as last:
                last.ping()

            def all_there() -> object:
                return sum(row["action"] == "publish" for row in read_events(run.ring)[0]) >= 2 * count

            wait_for(all_there, "every publish")
        rows, counters = read_events(run.ring)
    assert not counters.unresolved
    published = [row for row in rows if row["action"] == "publish"]
    assert all(row["resource"]["name"] == f"crowd/{row['client']['client_id'][1:]}" for row in published)
    assert len({row["client"]["client_id"] for row in published}) == count
    assert sum(row["action"] == "authenticate" for row in rows) >= count
    assert not [row for row in rows if row["action"] == "connect"]


@contextlib.contextmanager
def crowd(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Keep `count` clients connected: their ids are c0, c1 …"""
    sockets: list[socket.socket] = []
    try:
        for start in range(0, count, 100):
            group = range(start, min(start + 100, count))
            new = [socket.create_connection(("127.0.0.1", port)) for _ in group]
            sockets += new
            for number, one in zip(group, new, strict=True):
                one.sendall(packet(0x10, text("MQTT") + b"\x04\x02\0\0" + text(f"c{number}")))
            with selectors.DefaultSelector() as selector:
                for one in new:
                    selector.register(one, selectors.EVENT_READ)
                while selector.get_map():
                    for key, _ in selector.select(10):
                        assert sockets[0].fileno() >= 0
                        assert key.fileobj.recv(4) == b"\x20\x02\0\0"  # type: ignore[union-attr]  # registered above
                        selector.unregister(key.fileobj)
        yield sockets
    finally:
        for one in sockets:
            one.close()


def test_a_broker_without_a_listener_line_is_answered_for_as_before(tmp_path: Path) -> None:
    """2.0.11 allows everybody then, even against an explicit false; later versions do not: the plugin steps aside."""
    answers = []
    for name, plugin in (("without", []), ("with", [f"plugin {build_plugin()}", f"plugin_opt_ring {tmp_path}/ring"])):
        port = free_port()
        config = tmp_path / f"{name}.conf"
        user = ["user root"] if os.getuid() == 0 else []
        config.write_text("\n".join([*user, *plugin, "allow_anonymous false", ""]))
        with (tmp_path / f"{name}.log").open("wb") as log:
            broker = subprocess.Popen([MOSQUITTO, "-c", str(config), "-p", str(port)], stdout=log, stderr=log)
            try:
                wait_for(lambda port=port: port_answers(port), "the broker")  # type: ignore[misc]  # bound at once
                for user_name in (None, "alice"):
                    client = Client(port, "c", user_name, None)
                    answers.append((name, user_name, client.code))
                    client.disconnect()
                broker.send_signal(signal.SIGHUP)
                wait_for(lambda name=name: b"Reloading" in (tmp_path / f"{name}.log").read_bytes(), "reload")  # type: ignore[misc]
                for user_name in (None, "alice"):
                    client = Client(port, "c", user_name, None)
                    answers.append((name, user_name, client.code))
                    client.disconnect()
                if name == "with":
                    assert mode_of(tmp_path / "ring") & 0x33 == 0x01
            finally:
                broker.terminate()
                broker.wait(10)
    half = len(answers) // 2
    assert [answer[1:] for answer in answers[:half]] == [answer[1:] for answer in answers[half:]]


def test_the_ring_takes_the_place_of_a_link_and_follows_none(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    ring = tmp_path / "run" / "ring"
    ring.parent.mkdir()
    ring.symlink_to(precious)
    case = Case("link", ["allow_anonymous true"], options=[f"plugin_opt_ring {ring}"])
    with running(case, tmp_path / "broker", build_plugin(), None):
        assert not ring.is_symlink()
    assert precious.read_text() == "precious"
    assert [path.name for path in ring.parent.iterdir()] == ["ring"]


def test_a_full_file_system_leaves_the_broker_running_and_no_half_ring(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = shutil.which("mount")
    if os.getuid() != 0 or not mount:
        pytest.skip("needs root to mount a small file system")
    mounted = subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        case = Case("full", ["allow_anonymous true"], options=[f"plugin_opt_ring {small}/ring"])
        with running(case, tmp_path / "broker", build_plugin(), None) as run:
            with Client(run.ports[0], "c") as client:
                assert client.publish("a", qos=1) == 0
            assert "cannot reserve its space" in run.broker.log.read_text()
        assert not list(small.iterdir())
    finally:
        subprocess.run(["umount", small], check=True)
