"""Hosts beside brokers, as a user watches and checks them: who ran what against which broker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import mosquitto
from tests.cli.program import findings, run, watch
from topicwarden.cli.check import side_by_side
from topicwarden.cli.resolving import resolve
from topicwarden.cli.sources import host_package_for, runs_here
from topicwarden.events import (
    Action,
    Certainty,
    Client,
    Dialled,
    Endpoint,
    EventBatch,
    EventBuilder,
    Executed,
    Identity,
    Outcome,
    Process,
    Resource,
    ResourceKind,
    Tables,
)
from topicwarden.events.recording import open_recorder
from topicwarden.policy import parse_policy
from topicwarden.sources import load_hosts

SECOND = 1_000_000_000
START = 1_795_427_880 * SECOND
GOLDEN = Path(__file__).parents[1] / "host" / "golden"
POLICY = """topicwarden: 1
roles:
  sensor: {members: [{user: sensor-1}], publish: [{topic: "plant/%u/telemetry"}]}
"""


def batch_of(*, rows: list[int] = [], hosts: list[int] = []) -> EventBatch:  # noqa: B006 - never changed
    builder = EventBuilder(Tables())
    client = Client("b", "mqtt", "c")
    for time in rows:
        builder.add(time, Action.PUBLISH, client, Resource(ResourceKind.TOPIC, "t"))
    for time in hosts:
        builder.host(Executed(time, Process("h", 1)))
    return builder.take()


def first_of(batch: EventBatch) -> int:
    return min([*batch.time_ns.tolist(), *(event.time_ns for event in batch.hosts)], default=-1)


def test_files_are_read_side_by_side_as_their_times_go() -> None:
    broker = [batch_of(rows=[10, 90]), batch_of(rows=[100])]
    host = [batch_of(hosts=[5]), batch_of(hosts=[50]), batch_of(), batch_of(hosts=[120])]
    order = [first_of(batch) for batch in side_by_side([broker, iter(host), []])]
    assert order == [5, 10, 50, -1, 100, 120]


def test_a_source_that_is_a_brokers_is_not_taken_for_a_hosts(tmp_path: Path) -> None:
    packages = load_hosts()
    for name in ("auditd:/var/log/audit/audit.log", "host:", "sysmon:journal", "zeek:/x"):
        assert host_package_for(packages, name) is not None
    for name in ("ring:/run/x", "log:/var/log/mosquitto.log", "mqtt://host:1883", "amqp://host", "nowhere.log"):
        assert host_package_for(packages, name) is None
    for log in GOLDEN.glob("*.log"):
        assert host_package_for(packages, str(log)) is not None
    mine = tmp_path / "mosquitto.log"
    mine.write_text("1700000000: mosquitto version 2.0.11 starting\n1700000001: type=SYSCALL msg=audit(1.1:1): x\n")
    assert host_package_for(packages, str(mine)) is None
    assert host_package_for(packages, str(GOLDEN / "auditd-commands.log"), named=True) is None
    assert host_package_for(packages, "auditd:x", named=True) is not None


def test_brokers_whose_traces_lie_here_or_loop_back_run_here() -> None:
    assert all(map(runs_here, ("ring:/run/x", "log:/x", "mqtt://localhost", "amqp://127.0.0.2", "mqtts://[::1]:8883")))
    assert not any(map(runs_here, ("mqtt://broker.example", "amqp://10.0.0.1:5672", "mqtt://[fd00::1]")))


def test_names_of_approved_brokers_are_looked_up_and_those_without_an_address_told() -> None:
    policy = parse_policy(
        "topicwarden: 1\ninventory: {brokers: [{address: localhost, ports: [1883]}, {address: 10.0.0.0/8, ports: [1]},"
        " {address: broker.invalid, ports: [1]}]}\n",
        "p",
    )
    found = resolve(policy)
    assert {"127.0.0.1", "::1"} & set(found.addresses["localhost"])
    assert found.unknown == ["broker.invalid"]
    assert not resolve(None).addresses


def recorded(folder: Path) -> tuple[Path, Path]:
    """A broker's recording and a host's: a publish outside the policy, and the process that made it."""
    client = Client("plant", "mqtt", "id", "sensor-1", "10.0.0.5", 40000, identity=Identity.VERIFIED)
    builder = EventBuilder(Tables())
    none = Resource(ResourceKind.NONE, "")
    builder.add(START + 20_000_000, Action.CONNECT, client, none, Outcome.ALLOWED, Certainty.EXACT)
    topic = Resource(ResourceKind.TOPIC, "plant/sensor-2/telemetry")
    builder.add(START + 30_000_000, Action.PUBLISH, client, topic, Outcome.ALLOWED, Certainty.EXACT)
    about: dict[str, Any] = {"title": "t", "broker": "plant", "kind": "mosquitto", "blind_spots": []}
    with open_recorder(folder / "broker.jsonl", {"sources": [about]}) as recorder:
        recorder.write(builder.take())
    command = ("mosquitto_pub", "-h", "10.0.0.9", "-t", "plant/sensor-2/telemetry", "-m", "<payload>")
    builder.host(Executed(START, Process("gw-1", 7, "/usr/bin/mosquitto_pub", command, user="root")))
    builder.host(Dialled(START + 10_000_000, "gw-1", Endpoint("10.0.0.9", 1883), Endpoint("10.0.0.5", 40000), 7))
    told = {"title": "this machine", "broker": "gw-1", "kind": "", "blind_spots": [], "host": True}
    with open_recorder(folder / "host.arrow", {"sources": [told]}) as recorder:
        recorder.write(builder.take())
    return folder / "broker.jsonl", folder / "host.arrow"


def test_check_names_the_process_behind_a_publish_from_two_recordings(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    broker, host = recorded(tmp_path)
    for order in ([broker, host], [host, broker]):
        done = run("check", "--policy", policy, "--format", "jsonl", *order)
        assert done.returncode == 1, done.stderr
        (finding,) = [one for one in findings(done.stdout) if one["code"] == "TW201"]
        (behind,) = finding["behind"]
        assert behind["arguments"][-2:] == ["-m", "<payload>"]
        assert (behind["host"], behind["user"], behind["sureness"]) == ("gw-1", "root", "exact")
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["joined"] == {"exact": 1, "weak": 0, "none": 0, "dropped": 0}
        assert {source["host"] for source in summary["sources"]} == {None, "gw-1"}
    text = run("check", "--policy", policy, broker, host).stdout
    assert "run: mosquitto_pub -h 10.0.0.9 -t plant/sensor-2/telemetry -m <payload>" in text
    assert "exact: same connection" in text


def test_check_reads_what_is_collected_on_hosts_and_says_what_it_could_not_ask() -> None:
    done = run("check", "--host-name", "gw-1", GOLDEN / "auditd-commands.log")
    assert done.returncode == 1, done.stderr
    assert "host gw-1" in done.stdout
    assert "Not asked: TW402, TW403, TW404" in done.stdout
    assert "***" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hears of processes from the kernel")
def test_a_live_watch_of_a_host_and_its_recording_give_the_same_findings(tmp_path: Path) -> None:
    log, recording, policy = tmp_path / "mosquitto.log", tmp_path / "events.arrow", tmp_path / "policy.yaml"
    with contextlib.ExitStack() as stack:
        config = [f"log_dest file {log}", "log_type all", "user root"]
        broker = stack.enter_context(mosquitto(tmp_path / "broker", config))
        approved = f"inventory: {{brokers: [{{address: 127.0.0.1, ports: [{broker.port}]}}]}}\n"
        policy.write_text(POLICY + approved)
        options: list[str | Path] = [
            "--policy",
            policy,
            "--no-state",
            "--from-start",
            "-f",
            "jsonl",
            "--record",
            recording,
            "--host",
        ]
        live = stack.enter_context(watch(*options, f"log:{log}"))
        live.wait_for("not told from others")
        command = ["mosquitto_sub", "-p", str(broker.port), "-t", "c2/commands/#"]
        with subprocess.Popen([*command, "-u", "sensor-1", "-P", "secret-of-sensor"]) as subscriber:
            live.wait_for("TW411")
            live.wait_for('"behind":[{"host"')
            subscriber.terminate()
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(30) == 1
    assert "secret-of-sensor" not in live.stdout + live.stderr
    assert b"secret-of-sensor" not in recording.read_bytes()
    told = [one for one in findings(live.stdout) if one["code"] == "TW411"]
    assert "mosquitto_sub" in [one["behind"][0]["arguments"][0] for one in told]
    checked = run("check", "--policy", policy, "-f", "jsonl", recording)
    assert [one for one in findings(checked.stdout) if one["code"] == "TW411"] == told
