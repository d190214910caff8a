"""`learn` as a user meets it: from what real clients did at a real broker to a draft that lets them go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.brokers import wait_for
from tests.cli.program import PROGRAM, broker_with_plugin, environment, findings, run
from tests.engine.scenario import batches
from tests.learn.planted import plant
from topicwarden.events import EventBatch
from topicwarden.events.recording import open_recorder
from topicwarden.policy import load_policy

USERS = [f"pump-{n}" for n in range(6)]


def publish(port: int, user: str, topic: str) -> None:
    who = ["-u", user, "-P", f"{user}-secret", "-i", f"id-{user}"]
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), *who, "-q", "1", "-m", "21.5", "-t", topic]
    subprocess.run(command, check=True, timeout=30, capture_output=True)


def record(path: Path, made: Sequence[EventBatch]) -> Path:
    with open_recorder(path, {}) as recorder:
        for batch in made:
            recorder.write(batch)
    return path


def read_review(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_draft_from_a_real_broker_lets_its_clients_go_on_and_leaves_the_intruder_out(tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch()
    for user in [*USERS, "intruder"]:
        subprocess.run(["mosquitto_passwd", "-b", passwords, user, f"{user}-secret"], check=True, capture_output=True)
    recording = tmp_path / "events.arrow"
    with broker_with_plugin(tmp_path, "allow_anonymous false", f"password_file {passwords}") as (broker, ring):
        for user in USERS:
            publish(broker.port, user, f"plant/{user}/telemetry")
            publish(broker.port, user, f"plant/{user}/id-{user}")
        publish(broker.port, "intruder", "plant/pump-1/telemetry")
        done = run("watch", "--no-state", "--from-start", "--for", "1", "--record", recording, f"ring:{ring}")
        assert done.returncode == 0, done.stderr
    draft = tmp_path / "policy.yaml"
    learnt = run("learn", recording, "-o", draft)
    assert learnt.returncode == 0, learnt.stderr
    assert learnt.stdout == ""
    policy = load_policy(draft)
    (role,) = policy.roles.values()
    assert [rule.topic for rule in role.publish] == ["plant/%u/%c", "plant/%u/telemetry"]
    assert sorted(str(member.user) for member in role.members) == USERS
    (entry,) = read_review(tmp_path / "policy.review.jsonl")
    assert (entry["reason"], entry["topic"], entry["examples"]) == (
        "one-user",
        "plant/pump-1/telemetry",
        ["intruder"],
    )
    assert "plant/pump-1/telemetry by 1 user (intruder), 1 event" in learnt.stderr
    checked = run("check", "--policy", draft, "-f", "jsonl", recording)
    assert {(f["code"], f["client"]["user"]) for f in findings(checked.stdout)} == {("TW230", "intruder")}
    text = draft.read_text()
    assert "6 users, 6 events, last 20" in text
    again = tmp_path / "again.yaml"
    assert run("learn", recording, "-o", again).returncode == 0
    same = [line for line in again.read_text().splitlines() if not line.startswith("#")]
    assert same == [line for line in text.splitlines() if not line.startswith("#")]


def test_it_refuses_below_the_wanted_coverage_and_writes_only_the_review_list(tmp_path: Path) -> None:
    workload = plant(600, shown=0.5, tests=500, plenty=0.1)
    recording = record(tmp_path / "half.jsonl", list(workload.batches()))
    done = run("learn", recording, "-o", tmp_path / "p.yaml", "--review", tmp_path / "list.jsonl")
    assert done.returncode == 1
    assert "is below 0.7" in done.stderr
    assert "hint: observe for longer" in done.stderr
    assert not (tmp_path / "p.yaml").exists()
    assert read_review(tmp_path / "list.jsonl")
    low = run("learn", recording, "-o", tmp_path / "q.yaml", "--min-coverage", "0.2")
    assert low.returncode == 0, low.stderr
    load_policy(tmp_path / "q.yaml")


def test_without_enough_users_there_is_no_draft(tmp_path: Path) -> None:
    recording = record(tmp_path / "one.arrow", list(batches([{"publish": "a/\u202eb\x1b[2J", "user": "solo"}])))
    done = run("learn", recording, "-o", tmp_path / "p.yaml", "--min-coverage", "0")
    assert done.returncode == 1
    assert "nothing was done by enough users" in done.stderr
    assert done.stderr.isascii()
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "p.yaml").exists()


def test_nothing_observed_is_said(tmp_path: Path) -> None:
    recording = record(tmp_path / "empty.arrow", list(batches([{"connect": "", "user": "solo"}])))
    done = run("learn", recording, "-o", tmp_path / "p.yaml")
    assert done.returncode == 3
    assert "nothing was observed" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.arrow"]


@pytest.mark.parametrize("there", ["p.yaml", "p.review.jsonl"])
def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path, there: str) -> None:
    recording = record(tmp_path / "one.arrow", list(batches([{"publish": "a", "user": "solo"}])))
    (tmp_path / there).write_text("mine")
    done = run("learn", recording, "-o", tmp_path / "p.yaml")
    assert done.returncode == 2
    assert "already there" in done.stderr
    assert (tmp_path / there).read_text() == "mine"
    assert not (tmp_path / ({"p.yaml", "p.review.jsonl"} - {there}).pop()).exists()


def test_ctrl_c_ends_it_and_nothing_is_written(tmp_path: Path) -> None:
    recording = record(tmp_path / "much.arrow", list(plant(2000, tests=100, plenty=0.5).batches(64)))
    command = [*PROGRAM, "learn", str(recording), "-o", str(tmp_path / "p.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) as process:
        # It has begun to read when the recording is open.
        opened = Path(f"/proc/{process.pid}/fd")
        wait_for(lambda: str(recording) in {os.path.realpath(link) for link in opened.iterdir()}, "the first read")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 3, stderr
    assert stderr.endswith("interrupted, nothing is written\n")
    assert not list(tmp_path.glob("p.*"))


def test_a_lower_support_is_the_users_own_choice(tmp_path: Path) -> None:
    done = run("learn", "nowhere.arrow", "-o", tmp_path / "draft.yaml", "--min-users", "0")
    assert done.returncode == 2
    assert "--min-users" in done.stderr
