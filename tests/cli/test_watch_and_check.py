"""The program as a user meets it: live, on recordings, on logs; ended by Ctrl-C, by the broker, by a closed pipe."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import free_port, mosquitto
from tests.cli.program import PROGRAM, broker_with_plugin, environment, findings, run, watch
from tests.cli.traffic import EXPECTED, POLICY, behave_and_misbehave, publish

READY = "cannot see"
"""`watch` says its blind spots when it has begun."""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def accused(stdout: str) -> set[tuple[str, str]]:
    return {(finding["code"], finding["client"]["client_id"]) for finding in findings(stdout) if finding["client"]}


def _summary(stdout: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    assert summary["type"] == "summary"
    return summary


@pytest.mark.parametrize("suffix", ["arrow", "jsonl"])
def test_a_recording_of_a_live_watch_gives_identical_findings(tmp_path: Path, policy: Path, suffix: str) -> None:
    recording = tmp_path / f"events.{suffix}"
    with (
        broker_with_plugin(tmp_path) as (broker, ring),
        watch("--policy", policy, "--no-state", "-f", "jsonl", "--record", recording, f"ring:{ring}") as live,
    ):
        live.wait_for(READY)
        behave_and_misbehave(broker.port)
        live.wait_for("TW230")
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(20) == 1
    assert accused(live.stdout) == EXPECTED
    checked = run("check", "--policy", policy, "-f", "jsonl", recording)
    assert checked.returncode == 1
    assert findings(checked.stdout) == findings(live.stdout)


def test_a_log_gives_identical_findings_live_and_afterwards(tmp_path: Path, policy: Path) -> None:
    log = tmp_path / "mosquitto.log"
    config = [f"log_dest file {log}", "log_type all", "user root"]
    with (
        mosquitto(tmp_path / "broker", config) as broker,
        watch("--policy", policy, "--no-state", "--from-start", "-f", "jsonl", f"log:{log}") as live,
    ):
        live.wait_for(READY)
        behave_and_misbehave(broker.port)
        live.wait_for("TW230")
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(20) == 1
    assert {("TW201", "sensor-2"), ("TW204", "sensor-3"), ("TW230", "stranger")} <= accused(live.stdout)
    assert "sensor-1" not in {client for _, client in accused(live.stdout)}
    checked = run("check", "--policy", policy, "-f", "jsonl", log)
    assert findings(checked.stdout) == findings(live.stdout)


def test_watch_without_a_policy_lists_who_does_what(tmp_path: Path) -> None:
    with broker_with_plugin(tmp_path) as (broker, ring):
        publish(broker.port, "sensor-1", "plant/sensor-1/telemetry", repeat=3)
        done = run("watch", "--no-state", "--from-start", "--for", "1", f"ring:{ring}")
    assert done.returncode == 0
    assert "sensor-1" in done.stdout
    assert "No policy was given" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr


def test_a_stopped_broker_is_said_and_watching_goes_on_with_the_next(tmp_path: Path, policy: Path) -> None:
    with watch("--policy", policy, "--no-state", "-f", "jsonl", f"ring:{tmp_path / 'm.ring'}") as too_early:
        assert too_early.process.wait(20) == 3
    assert "hint:" in too_early.stderr
    with (
        broker_with_plugin(tmp_path) as (broker, ring),
        watch("--policy", policy, "--no-state", "-f", "jsonl", f"ring:{ring}") as live,
    ):
        live.wait_for(READY)
        publish(broker.port, "stranger", "a")
        live.wait_for("TW230")
        broker.stop()
        with broker_with_plugin(tmp_path) as (second, _):
            live.wait_for("TW906")
            publish(second.port, "other-stranger", "a")
            live.wait_for("other-stranger")
            live.process.send_signal(signal.SIGINT)
            live.process.wait(20)


def test_killed_and_started_again_it_repeats_nothing(tmp_path: Path, policy: Path) -> None:
    state = tmp_path / "state"
    with broker_with_plugin(tmp_path) as (broker, ring):
        with watch("--policy", policy, "--state", state, "-f", "jsonl", f"ring:{ring}") as first:
            first.wait_for(READY)
            publish(broker.port, "stranger-1", "a")
            first.wait_for("stranger-1")
            publish(broker.port, "after-it", "a")
            first.wait_for("after-it")  # so that all of stranger-1's events, its disconnect too, were handed over
            first.process.kill()
        publish(broker.port, "stranger-2", "a")
        with watch("--policy", policy, "--state", state, "-f", "jsonl", f"ring:{ring}") as second:
            second.wait_for("stranger-2")
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(20) == 1
    assert "stranger-1" not in {client for _, client in accused(second.stdout)}
    assert not {row["client_id"] for row in _summary(second.stdout)["inventory"] if row["publishes"]} - {"stranger-2"}


def test_metrics_are_served_while_watching(tmp_path: Path, policy: Path) -> None:
    port = free_port()
    with (
        broker_with_plugin(tmp_path) as (broker, ring),
        watch("--policy", policy, "--no-state", "--metrics", str(port), "-f", "jsonl", f"ring:{ring}") as live,
    ):
        live.wait_for("/metrics")
        live.wait_for(READY)
        publish(broker.port, "stranger", "a")
        live.wait_for("TW230")
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    assert 'topicwarden_findings_total{code="TW230",severity="high"} 1.0' in text
    assert "topicwarden_events_total{" in text
    assert "topicwarden_lost_total{" in text


def test_every_mistake_in_a_policy_is_told_at_once_with_its_line_and_nothing_is_started(tmp_path: Path) -> None:
    wrong = tmp_path / "policy.yaml"
    wrong.write_text(
        "topicwarden: 1\nroles:\n  a:\n    members: []\n    publish: [{topic: 'a#'}]\n    publihs: []\n"
        "  b:\n    members: [{user: x}]\n    publish: [{topic: 'a/+b', rate: fast}]\n  b: {members: [{user: y}]}\n"
    )
    done = run("watch", "--no-state", "--policy", wrong, "--record", tmp_path / "r.arrow", f"ring:{tmp_path / 'none'}")
    assert done.returncode in (2, 3)
    checked = run("check", "--policy", wrong, _empty_log(tmp_path))
    assert checked.returncode == 2
    for line, what in ((4, "member"), (5, "a#"), (6, "publihs"), (9, "a/+b"), (9, "fast"), (10, "b")):
        assert any(f"{wrong}:{line}:" in said and what in said for said in checked.stderr.splitlines()), (
            line,
            what,
            checked.stderr,
        )
    assert not (tmp_path / "r.arrow").exists()


def _empty_log(folder: Path) -> Path:
    log = folder / "mosquitto.log"
    log.write_text("1700000000: mosquitto version 2.0.11 starting\n")
    return log


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("check", "no-such-file.log"), 3),
        (("check", "--policy", "no-such-policy.yaml", "LOG"), 2),
        (("check", "--format", "xml", "LOG"), 2),
        (("check", "--fail-on", "terrible", "LOG"), 2),
        (("check", "--record", "LOG", "LOG"), 2),
        (("watch", "--no-state", "mqtt://127.0.0.1:1"), 3),
        (("watch", "--metrics", "here", "--no-state", "log:LOG"), 2),
        (("doctor", "no-such.conf"), 2),
        (("explain", "TW999"), 2),
        (("demo", "no-such-broker"), 2),
        (("check", "/etc/hostname"), 2),
    ],
)
def test_a_mistake_is_one_clear_error_with_a_hint_and_no_traceback(
    tmp_path: Path, arguments: tuple[str, ...], code: int
) -> None:
    log = str(_empty_log(tmp_path))
    done = run(*(argument.replace("LOG", log) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert "error: " in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


def test_output_into_a_pipe_that_is_closed_ends_quietly(tmp_path: Path) -> None:
    log = _empty_log(tmp_path)
    check = subprocess.Popen(
        [*PROGRAM, "check", str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert check.stdout is not None
    check.stdout.close()
    assert check.stderr is not None
    with check.stderr as stream:
        said = stream.read()
    check.wait(20)
    assert b"Traceback" not in said
    assert b"Exception ignored" not in said


def test_machine_output_on_stdout_is_nothing_but_json_and_ends_with_a_summary(tmp_path: Path) -> None:
    for name in ("jsonl", "ecs", "ocsf"):
        done = run("check", "-f", name, _empty_log(tmp_path))
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        assert documents, name


def test_explain_knows_every_code_and_doctor_judges_debians_own_configuration() -> None:
    listing = run("explain")
    codes = [line.split()[0] for line in listing.stdout.splitlines()]
    assert len(codes) >= 25
    for code in codes[:3]:
        done = run("explain", code)
        assert done.returncode == 0
        assert "\n  limits " in done.stdout
    doctor = run("doctor", "/etc/mosquitto/mosquitto.conf")
    assert doctor.returncode == 1
    assert "topicwarden_mosquitto.so" in doctor.stdout
    as_json = json.loads(run("doctor", "--format", "json", "/etc/mosquitto/mosquitto.conf").stdout)
    assert as_json["blind_spots"]


def test_the_version_is_printed() -> None:
    assert run("--version").stdout.startswith("topicwarden ")
