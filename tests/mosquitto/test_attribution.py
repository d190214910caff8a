"""Which process a client of this machine is: the broker, its plugin and the helper as they run in earnest."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.brokers import wait_for
from tests.mosquitto.attribution_stage import helper_pid, needs_root, place, publish, stage, told
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_cases import Case, running, transcript
from tests.mosquitto.plugin_mqtt import Client
from topicwarden.events import Dialled, Endpoint, Executed
from topicwarden_collectors.mosquitto import ring_layout as layout
from topicwarden_collectors.mosquitto.ring_file import RingFile

__all__ = ["place"]
pytestmark = needs_root
RUNS = 200
LOGGED = re.compile(r"New client connected from \S+:(\d+) as (\S+) \(")


def test_of_200_rapid_runs_at_least_195_are_joined_to_process_program_and_command_line(place: Path) -> None:
    # The longest wait there is, so that what else runs on this machine matters less; the benchmark has the default.
    with stage(place, ["plugin_opt_attribute_wait 100"]) as here:
        assert here.helper is not None
        for number in range(RUNS):
            publish(here.broker.port, f"c{number}")
        processes = told(here.told(2 * here.counts()["attributed"]))
        joined = 0
        for client_id, port in here.ports().items():
            process, dialled = processes.get(port or 0, (None, None))
            if process is None or dialled is None or client_id not in process.arguments:
                continue
            assert process.executable.endswith("/mosquitto_pub")
            assert (process.parent_pid, process.user) == (os.getpid(), "root")
            assert dialled.remote == Endpoint("127.0.0.1", here.broker.port)
            assert dialled.established
            joined += 1
        assert joined >= 195, (here.counts(), here.counters.source)
        assert here.helper.dropped == 0
        counts = here.counts()
        assert sum(counts[name] for name in counts if name.startswith("attribut")) == RUNS


def test_without_the_helper_every_port_is_the_one_in_the_brokers_log_and_no_process_is_known(place: Path) -> None:
    with stage(place, ["plugin_opt_peer_port on"], helper=False) as here:
        for number in range(50):
            publish(here.broker.port, f"c{number}")
        logged = {client_id: int(port) for port, client_id in LOGGED.findall(here.broker.log.read_text())}
        assert here.ports() == logged
        counts = here.counts()
        assert not any(count for name, count in counts.items() if name.startswith(("attribut", "peers")))


def test_without_the_options_no_port_is_known_and_the_ring_says_so(place: Path) -> None:
    with stage(place, helper=False) as here:
        publish(here.broker.port, "c")
        assert here.ports() == {"c": None}
        ring = RingFile(here.ring)
        assert not ring.mode & (layout.MODE_PEER_PORT | layout.MODE_ATTRIBUTE)
        ring.close()


@pytest.mark.parametrize("asan", [False, True], ids=["release", "sanitized"])
def test_every_kind_of_local_connection_is_joined_and_a_port_changes_with_the_connection(
    asan: bool, place: Path
) -> None:
    unix = place / "broker" / "mqtt.sock"
    listeners = ["listener {port}", f"listener 0 {unix}"]
    with stage(place, config=listeners, asan=asan) as here:
        connected: dict[str, tuple[str, int]] = {}
        ways = {
            "ipv4": (socket.AF_INET, "127.0.0.1"),
            "other loopback": (socket.AF_INET, "127.9.8.7"),
            "mapped": (socket.AF_INET6, "::ffff:127.0.0.1"),
            "ipv6": (socket.AF_INET6, "::1"),
            "ipv4 again": (socket.AF_INET, "127.0.0.1"),
        }
        for name, (family, address) in ways.items():
            with socket.socket(family) as raw:
                raw.connect((address, here.broker.port))
                connected[name] = raw.getsockname()[:2]
                log_in(raw, name)
                # It stays until it was found: here a late helper is as good.
                here.told(2 * len(connected))
                leave(raw)
        with Client(str(unix), "unix"):
            events = here.told(2 * len(ways) + 2)
        wait_for(lambda: len(here.ports()) == 6, "every client's events")
        assert here.ports() == {**{name: port for name, (_, port) in connected.items()}, "unix": None}
        processes = told(events[:-2])
        for address, port in connected.values():
            process, dialled = processes[port]
            assert process.pid == os.getpid()
            assert dialled.local == Endpoint(address.removeprefix("::ffff:"), port)
        executed, by_unix = events[-2:]
        assert isinstance(executed, Executed)
        assert isinstance(by_unix, Dialled)
        assert (executed.process.pid, by_unix.pid, by_unix.transport) == (os.getpid(), os.getpid(), "unix")
        assert (by_unix.remote, by_unix.local) == (Endpoint(str(unix), 0), None)


def log_in(raw: socket.socket, client_id: str) -> None:
    """Log in over a connection that is there already."""
    name = client_id.encode()
    body = b"\0\4MQTT\4\2\0\x3c" + len(name).to_bytes(2, "big") + name
    raw.settimeout(10)
    raw.sendall(bytes([0x10, len(body)]) + body)
    assert raw.recv(4) == b"\x20\2\0\0"


def leave(raw: socket.socket) -> None:
    """Disconnect, and wait until the broker has seen it."""
    raw.sendall(b"\xe0\0")
    assert raw.recv(1) == b""


def test_a_connection_made_by_a_thread_is_its_processs(place: Path) -> None:
    with stage(place) as here:
        clients: list[Client] = []
        thread = threading.Thread(target=lambda: clients.append(Client(here.broker.port, "threaded")))
        thread.start()
        thread.join()
        ((process, _),) = told(here.told(2)).values()
        clients[0].disconnect()
        assert process.pid == os.getpid()
        assert Path(process.executable) == Path(sys.executable).resolve()


def test_a_client_known_by_its_certificate_that_comes_back_has_its_new_port(place: Path) -> None:
    """No login is seen of it: it is met at its first action, and its context may be one that was freed before."""
    own = [
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=device",
        "-keyout",
        "key",
        "-out",
        "crt",
    ]
    subprocess.run(["openssl", "req", *own], cwd=place, check=True, capture_output=True)
    (place / "key").chmod(0o644)
    files = [f"cafile {place}/crt", f"certfile {place}/crt", f"keyfile {place}/key"]
    config = ["listener {port} 127.0.0.1", *files, "require_certificate true", "use_identity_as_username true"]
    with stage(place, config=config) as here:
        ports = []
        for number in range(3):
            client = Client(here.broker.port, "c", certificate=(f"{place}/crt", f"{place}/crt", f"{place}/key"))
            ports.append(client.socket.getsockname()[1])
            assert client.publish(f"round/{number}", qos=1) == 0
            here.told(2 * len(ports))
            client.disconnect()
        wait_for(lambda: [row["action"] for row in here.rows()].count("disconnect") == 3, "every client's events")
        for action in ("connect", "publish", "disconnect"):
            assert [row["client"]["port"] for row in here.rows() if row["action"] == action] == ports
        assert set(told(here.events)) == set(ports)


def test_a_refused_login_is_joined_too(place: Path) -> None:
    (place / "passwords").write_text("alice:$7$101$AAAA$AAAA\n")
    options = ["plugin_opt_attribute_wait 100"]
    with stage(place, options, [f"password_file {place}/passwords"]) as here:
        refused = Client(here.broker.port, "guess", "alice", "wrong")
        assert refused.code == 5
        ((process, dialled),) = told(here.told(2)).values()
        assert process.pid == os.getpid()
        wait_for(lambda: here.rows(), "the refused login")
        (row,) = [row for row in here.rows() if row["action"] == "authenticate"]
        assert dialled.local is not None
        assert (row["outcome"], row["client"]["port"]) == ("denied", dialled.local.port)


LOGIN = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 10) as raw:
    raw.sendall(b"\\x10\\x0d\\0\\4MQTT\\4\\2\\0\\x3c\\0\\1l")
    sys.exit(raw.recv(4) != b"\\x20\\2\\0\\0")
"""


def test_a_long_command_line_is_cut_and_has_no_password_in_it(place: Path) -> None:
    with stage(place, ["plugin_opt_attribute_wait 100"]) as here:
        arguments = [str(here.broker.port), "--password", "S3cretS3cret", *["w" * 100_000] * 6]
        assert subprocess.call([sys.executable, "-c", LOGIN, *arguments]) == 0
        ((process, _),) = told(here.told(2)).values()
        assert process.cut
        assert "S3cret" not in repr(process)
        assert process.arguments[3:5] == (str(here.broker.port), "--password")


@pytest.mark.parametrize("asan", [False, True], ids=["release", "sanitized"])
def test_a_hanging_helper_is_left_alone_after_three_questions_and_every_login_succeeds(asan: bool, place: Path) -> None:
    with stage(place, ["plugin_opt_attribute_wait 20"], asan=asan) as here:
        helper = helper_pid()
        os.kill(helper, signal.SIGSTOP)
        try:
            for number in range(30):
                publish(here.broker.port, f"c{number}")
        finally:
            os.kill(helper, signal.SIGCONT)
        counts = here.counts()
        # One more whenever ten seconds have passed: how fast this machine is must not matter.
        assert 3 <= counts["attribution_late"] < 10
        assert counts["attribution_late"] + counts["attribution_skipped"] == 30
        assert None not in here.ports().values()
        assert here.broker.log.read_text().count("does not answer in time") == 1


def test_a_helper_that_died_is_started_again_and_asked_again(place: Path) -> None:
    with stage(place) as here:
        assert here.helper is not None
        publish(here.broker.port, "before")
        before = here.counts()["attributed"]
        os.kill(helper_pid(), signal.SIGKILL)

        def ended() -> bool:
            here.told(0)
            return "attributor_ended" in here.counters.source

        def attributed() -> bool:
            publish(here.broker.port, "after")
            return here.counts()["attributed"] > before

        wait_for(ended, "the helper's end to be seen")
        assert here.helper.running
        wait_for(attributed, "a process found by the new helper")
        assert here.counts()["attribution_absent"] >= 1
        assert here.broker.log.read_text().count("nobody answers") == 1


def test_where_nobody_listens_every_login_succeeds_and_is_counted(place: Path) -> None:
    with stage(place, [f"plugin_opt_attribute {place}/nobody"], helper=False) as here:
        for number in range(20):
            publish(here.broker.port, f"c{number}")
        assert here.counts()["attribution_absent"] == 20
        assert None not in here.ports().values()


@pytest.mark.parametrize("hanging", [False, True], ids=["answering", "hanging"])
def test_no_decision_is_another_with_a_helper(hanging: bool, place: Path) -> None:
    """Every answer to a script of clients, over two reloads, is that of the same broker without the plugin."""
    (place / "other").mkdir()
    with stage(place / "other"):
        helper = helper_pid()
        where = place / "other" / "helper" / "socket"
        case = Case(
            "asked",
            ["allow_anonymous true", "acl_file {folder}/acl", "password_file {folder}/passwords"],
            options=[f"plugin_opt_attribute {where}", f"plugin_opt_attribute_wait {5 if hanging else 100}"],
        )
        if hanging:
            os.kill(helper, signal.SIGSTOP)
        try:
            with running(case, place / "with", build_plugin(), None) as run:
                with_helper = transcript(run, case)
                ring = RingFile(run.ring)
                counts = ring.counts()
                ring.close()
        finally:
            os.kill(helper, signal.SIGCONT)
        with running(case, place / "without", None, None) as run:
            assert transcript(run, case) == with_helper
        if hanging:
            assert counts["attribution_late"] >= 3
        else:
            assert counts["attributed"] > 20
