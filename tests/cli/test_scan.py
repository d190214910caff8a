"""`topicwarden scan` as a user meets it: configurations, policies, recordings, running brokers, wrong input."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import mosquitto
from tests.cli.program import broker_with_plugin, findings, run
from tests.cli.traffic import publish, subscribe

POLICY = """\
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*"}]
    publish: [{topic: "plant/+/%u/telemetry"}]
    subscribe: [{topic: "plant/+/%u/command"}]
  control:
    members: [{user: control}]
    publish: [{topic: "plant/+/+/command"}]
    subscribe: [{topic: "plant/+/+/telemetry"}]
"""
ACL = """\
pattern write plant/+/%u/telemetry
pattern read plant/+/%u/command

user control
topic readwrite plant/#
topic write plant/hall/+/command

user sensor-9
topic write plant/+/+/command
topic deny archive/#
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "acl").write_text(ACL)
    passwords = tmp_path / "passwords"
    passwords.touch()
    for user in ("sensor-1", "sensor-2", "sensor-9", "control"):
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, f"{user}-secret"], check=True, capture_output=True)
    (tmp_path / "mosquitto.conf").write_text(
        f"listener 1883 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nacl_file {tmp_path / 'acl'}\n"
    )
    return tmp_path


def told(stdout: str) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return findings by code and user, but for those about lines that are for every client."""
    return {
        (finding["code"], finding["client"] and finding["client"]["user"]): finding
        for finding in findings(stdout)
        if not finding["evidence"].get("grant", "").startswith("pattern")
    }


def test_every_difference_between_a_configuration_and_a_policy_is_told_with_its_line(folder: Path) -> None:
    done = run("scan", "--policy", folder / "policy.yaml", "-f", "jsonl", folder / "mosquitto.conf")
    assert done.returncode == 1, done.stderr
    found = told(done.stdout)
    excess = found["TW101", "control"]
    assert [one["name"] for one in excess["witnesses"]] == ["publish to plant", "receive from plant"]
    assert excess["evidence"]["where_file"] == str(folder / "acl")
    assert excess["evidence"]["where_line"] == 5
    assert excess["evidence"]["grant"] == "topic readwrite plant/#"
    instead = excess["evidence"]["instead"].splitlines()
    assert "topic write plant/+/+/command" in instead
    assert "topic read plant/+/+/telemetry" in instead
    assert ("TW101", "sensor-9") in found
    assert ("TW101", "sensor-1") not in found
    # A pattern line is for everybody, and control is no sensor; to remove it would take it from the sensors too.
    shared = [
        finding
        for finding in findings(done.stdout)
        if finding["code"] == "TW101" and finding["evidence"]["grant"].startswith("pattern")
    ]
    assert {finding["client"]["user"] for finding in shared} == {"control"}
    for finding in shared:
        assert "user sensor-" in finding["evidence"]["instead"]
        assert "remove line" not in finding["evidence"]["instead"]
    assert found["TW106", None]["evidence"]["grant"] == "topic write plant/hall/+/command"
    assert found["TW105", None]["evidence"]["grant"] == "topic deny archive/#"


def test_text_says_the_same_to_a_person_and_fits_a_narrow_terminal(folder: Path) -> None:
    done = run("scan", "--policy", folder / "policy.yaml", folder / "mosquitto.conf")
    assert done.returncode == 1
    assert f"{folder / 'acl'}:5" in done.stdout
    assert "instead: " in done.stdout
    assert "Grants" in done.stdout
    assert done.stdout.rstrip().endswith("end date") or "What to do next" in done.stdout


def test_what_the_policy_needs_and_the_broker_denies_is_told(folder: Path) -> None:
    (folder / "acl").write_text("pattern write plant/+/%u/telemetry\nuser control\ntopic write plant/+/+/command\n")
    done = run("scan", "--policy", folder / "policy.yaml", "-f", "jsonl", folder / "mosquitto.conf")
    found = told(done.stdout)
    missing = found["TW103", "control"]
    assert [one["name"] for one in missing["witnesses"]] == ["receive from plant/x/x/telemetry"]
    assert missing["evidence"]["permission"] == "plant/+/+/telemetry"
    # Three sensors lack the same: one finding, the others counted.
    (sensors,) = [f for (code, user), f in found.items() if code == "TW103" and user != "control"]
    assert sensors["evidence"]["alike"] == 2


def test_a_grant_that_says_what_the_policy_says_is_clean(folder: Path) -> None:
    (folder / "acl").write_text(
        "pattern write plant/+/%u/telemetry\npattern read plant/+/%u/command\n"
        "user control\ntopic write plant/+/+/command\ntopic read plant/+/+/telemetry\n"
    )
    text = POLICY.replace('user: "sensor-*"', 'user: "*"')
    (folder / "policy.yaml").write_text(text)
    done = run("scan", "--policy", folder / "policy.yaml", "-f", "jsonl", folder / "mosquitto.conf")
    assert [f["code"] for f in findings(done.stdout)] == []
    assert done.returncode == 0, done.stdout


def test_without_a_policy_only_what_is_dangerous_by_itself_is_told(folder: Path) -> None:
    (folder / "acl").write_text("user control\ntopic readwrite #\n")
    done = run("scan", "-f", "jsonl", folder / "mosquitto.conf")
    assert {finding["code"] for finding in findings(done.stdout)} == {"TW112"}
    assert done.returncode == 1


def test_an_exception_accepts_a_grant_only_if_all_that_is_too_much_lies_in_its_place(folder: Path) -> None:
    base = (
        POLICY
        + "exceptions:\n  - {finding: TW101, user: sensor-9, topic: 'PLACE', reason: moving, until: 2199-01-01}\n"
    )
    (folder / "acl").write_text("user sensor-9\ntopic write plant/old/#\n")
    for place, code in (("plant/old/#", 0), ("plant/old/+", 1)):
        (folder / "policy.yaml").write_text(base.replace("PLACE", place))
        done = run(
            "scan", "--policy", folder / "policy.yaml", "--fail-on", "high", "-f", "jsonl", folder / "mosquitto.conf"
        )
        assert done.returncode == code, done.stdout
        (finding,) = [f for f in findings(done.stdout) if f["code"] == "TW101"]
        assert (finding["accepted"] is None) == bool(code)


def test_grants_nobody_used_are_told_with_the_period(folder: Path, tmp_path: Path) -> None:
    recording = tmp_path / "recordings" / "events.arrow"
    recording.parent.mkdir()
    (tmp_path / "acl2").write_text("topic write plant/+/telemetry\ntopic write archive/#\ntopic read plant/command/+\n")
    with broker_with_plugin(tmp_path) as (broker, ring):
        publish(broker.port, "s1", "plant/s1/telemetry")
        publish(broker.port, "s2", "plant/s2/telemetry")
        subscribe(broker.port, "s1", "plant/command/s1")
        done = run("watch", "--no-state", "--from-start", "--for", "1", "--record", recording, f"ring:{ring}")
        assert done.returncode == 0, done.stderr
    done = run("scan", "-f", "jsonl", "--observed", recording.parent, tmp_path / "acl2")
    found = findings(done.stdout)
    unused = [finding["evidence"]["grant"] for finding in found if finding["code"] == "TW102"]
    assert unused == ["topic write archive/#"]
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["command"] == "scan"
    assert summary["events"] > 0
    assert summary["grants"][0]["unexplained"] == 0


def test_witnesses_are_tried_on_the_running_broker(folder: Path) -> None:
    config = ["user root", f"password_file {folder / 'passwords'}", f"acl_file {folder / 'acl'}"]
    credentials = folder / "credentials"
    credentials.write_text("".join(f"{user}:{user}-secret\n" for user in ("sensor-1", "sensor-9", "control")))
    arguments: Sequence[str | Path] = ("scan", "--policy", folder / "policy.yaml", "-f", "jsonl")
    with mosquitto(folder / "broker", config, allow_anonymous=False) as broker:
        check = ("--witness-check", f"mqtt://127.0.0.1:{broker.port}", "--credentials", credentials)
        harmless = run(*arguments, *check, folder / "mosquitto.conf")
        full = run(*arguments, *check, "--allow-publish", folder / "mosquitto.conf")
    assert "not tried" in told(harmless.stdout)["TW101", "sensor-9"]["evidence"]["broker_says"]
    assert told(full.stdout)["TW101", "sensor-9"]["evidence"]["broker_says"] == "confirmed by the running broker"
    summary = json.loads(full.stdout.splitlines()[-1])
    assert summary["grants"][0]["refuted"] == 0
    assert summary["grants"][0]["confirmed"] > 0
    assert "secret" not in harmless.stdout + harmless.stderr + full.stdout + full.stderr


def test_a_broker_that_runs_with_other_grants_refutes(folder: Path) -> None:
    (folder / "other").write_text("user sensor-9\ntopic read nothing\n")
    config = ["user root", f"password_file {folder / 'passwords'}", f"acl_file {folder / 'other'}"]
    credentials = folder / "credentials"
    credentials.write_text("sensor-9:sensor-9-secret\n")
    with mosquitto(folder / "broker", config, allow_anonymous=False) as broker:
        done = run(
            *("scan", "--policy", folder / "policy.yaml", "-f", "jsonl", "--allow-publish"),
            *("--witness-check", f"mqtt://127.0.0.1:{broker.port}", "--credentials", credentials),
            folder / "mosquitto.conf",
        )
    assert told(done.stdout)["TW101", "sensor-9"]["evidence"]["broker_says"].startswith("refuted")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere.conf"], 2, "no such file"),
        (["--format", "xml", "acl"], 2, "format"),
        (["--policy", "nowhere.yaml", "acl"], 2, "nowhere.yaml"),
        (["--observed", "nowhere.arrow", "acl"], 3, "nowhere.arrow"),
        (["--witness-check", "mqtt://127.0.0.1:1", "--credentials", "nowhere", "acl"], 2, "credentials"),
        (["broken"], 2, "line begins with"),
    ],
)
def test_wrong_input_is_one_clear_error(folder: Path, arguments: list[str], code: int, words: str) -> None:
    (folder / "broken").write_text("topic read a\ntopic read c\ntopci write b\n")
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = run("scan", *arguments)
    finally:
        os.chdir(before)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_goes_away_is_no_error(folder: Path) -> None:
    from tests.cli.program import PROGRAM, environment

    with subprocess.Popen(
        [*PROGRAM, "scan", folder / "mosquitto.conf"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) in (0, 1, 141)
    assert b"Traceback" not in said


def test_grants_that_a_plugin_decides_are_not_called_clean(folder: Path) -> None:
    (folder / "mosquitto.conf").write_text(
        "listener 1883 127.0.0.1\nallow_anonymous false\nplugin /usr/lib/some/decider.so\n"
    )
    done = run("scan", "--policy", folder / "policy.yaml", "-f", "jsonl", folder / "mosquitto.conf")
    assert [finding["code"] for finding in findings(done.stdout)] == ["TW114"]
    assert done.returncode == 1
    never = run("scan", "--policy", folder / "policy.yaml", "--fail-on", "never", folder / "mosquitto.conf")
    assert never.returncode == 3


def test_no_exception_is_for_clients_without_a_name(folder: Path) -> None:
    (folder / "policy.yaml").write_text(
        POLICY + "exceptions:\n  - {finding: TW101, user: '*', reason: moving, until: 2199-01-01}\n"
    )
    (folder / "mosquitto.conf").write_text(
        f"listener 1883 127.0.0.1\nallow_anonymous true\nacl_file {folder / 'acl'}\n"
    )
    (folder / "acl").write_text("topic write plant/#\n")
    done = run("scan", "--policy", folder / "policy.yaml", "-f", "jsonl", folder / "mosquitto.conf")
    (excess,) = [f for f in findings(done.stdout) if f["code"] == "TW101" and f["client"]["user"] is None]
    assert excess["accepted"] is None
