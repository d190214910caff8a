"""`learn --baseline` as a user meets it: from a recording to a baseline that `check` reads, and a list of the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.cli.program import run
from tests.engine.scenario import batches
from topicwarden.events.recording import open_recorder
from topicwarden.policy import load_baseline

FLEET: Sequence[Mapping[str, Any]] = [
    {
        "publish": f"plant/pump-{n}/telemetry",
        "user": f"pump-{n}",
        "size": 50,
        "entropy": 4.2,
        "shape": "json",
        "repeat": 3,
    }
    for n in range(8)
]
INTRUDER = {"publish": "c2/beacon", "user": "intruder", "size": 90, "entropy": 4.6, "shape": "text"}


def record(path: Path, events: Sequence[Mapping[str, Any]]) -> Path:
    with open_recorder(path, {}) as recorder:
        for batch in batches(events):
            recorder.write(batch)
    return path


def test_what_is_usual_is_written_the_intruder_is_listed_and_check_finds_it(tmp_path: Path) -> None:
    recording = record(tmp_path / "week.arrow", [*FLEET, INTRUDER])
    usual = tmp_path / "usual.yaml"
    done = run("learn", "--baseline", recording, "-o", usual)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "usual are 1 topic, 0 brokers, 0 tools, and 96% of the publishes" in done.stderr
    baseline = load_baseline(usual)
    assert [topic.topic for topic in baseline.topics] == ["plant/+/telemetry"]
    (line,) = (tmp_path / "usual.review.jsonl").read_text().splitlines()
    assert json.loads(line)["topic"] == "c2/beacon"
    again = tmp_path / "again"
    again.mkdir()
    assert run("learn", "--baseline", recording, "-o", again / "usual.yaml").returncode == 0
    kept = [line for line in usual.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in (again / "usual.yaml").read_text().splitlines() if not line.startswith("#")] == kept
    checked = run("check", "--baseline", usual, "--format", "jsonl", recording)
    found = [json.loads(line) for line in checked.stdout.splitlines()]
    assert [finding["client"]["user"] for finding in found if finding.get("code") == "TW420"] == ["intruder"]


def test_where_nothing_is_usual_only_the_review_list_is_written(tmp_path: Path) -> None:
    recording = record(tmp_path / "day.arrow", [INTRUDER])
    done = run("learn", "--baseline", recording, "-o", tmp_path / "b.yaml")
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "b.yaml").exists()
    assert (tmp_path / "b.review.jsonl").exists()
    assert "hint: record for 3 days" in done.stderr
    trusted = run("learn", "--baseline", "--min-users", "1", recording, "-o", tmp_path / "c.yaml")
    assert trusted.returncode == 0, trusted.stderr


def test_nothing_observed_is_said_and_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    recording = record(tmp_path / "none.arrow", [{"connect": "", "user": "u"}])
    done = run("learn", "--baseline", recording, "-o", tmp_path / "b.yaml")
    assert done.returncode == 3
    assert "no publish and nothing of a host was observed" in done.stderr
    assert list(tmp_path.iterdir()) == [recording]
    (tmp_path / "b.yaml").write_text("mine")
    assert run("learn", "--baseline", recording, "-o", tmp_path / "b.yaml").returncode == 2
    assert (tmp_path / "b.yaml").read_text() == "mine"
