"""`--format sarif`, as a job of code review runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.program import PROGRAM, environment, run
from topicwarden.cli.options import RunOptions
from topicwarden.cli.pipeline import open_pipeline
from topicwarden.errors import ConfigurationError

TESTS = Path(__file__).parents[1]
SCHEMA = json.loads((TESTS / "output" / "sarif-2.1.0.schema.json").read_text("utf-8"))
POLICY = """\
topicwarden: 1
roles:
  sensor: {members: [{user: "sensor-*"}], publish: [{topic: "plant/+/%u/telemetry"}]}
"""


def sarif(stdout: str) -> dict[str, Any]:
    log: dict[str, Any] = json.loads(stdout)
    jsonschema.Draft4Validator(SCHEMA).validate(log)
    (one,) = log["runs"]
    assert isinstance(one, dict)
    return one


def test_a_scan_says_in_which_line_a_grant_is_too_wide(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "acl").write_text("user sensor-1\ntopic write plant/#\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    command = [*PROGRAM, "scan", "broker/acl", "--policy", "policy.yaml", "--format", "sarif"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment(), timeout=60)
    assert result.returncode == 1, result.stderr
    found = sarif(result.stdout)
    (excess,) = (one for one in found["results"] if one["ruleId"] == "TW101")
    assert excess["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "broker/acl"},
        "region": {"startLine": 2},
    }
    assert excess["level"] == "error"


def test_a_check_of_a_log_writes_one_log_too() -> None:
    log = next((TESTS / "mosquitto" / "logs").glob("*.log"))
    result = run("check", log, "--format", "sarif")
    assert result.returncode in (0, 1), result.stderr
    assert sarif(result.stdout)["automationDetails"] == {"id": "topicwarden/check/"}


def test_a_watch_has_no_end_at_which_to_write_it() -> None:
    with (
        pytest.raises(ConfigurationError, match="runs that end"),
        open_pipeline("watch", RunOptions(output_format="sarif"), (sys.stdout, sys.stderr), about={}, kinds={}),
    ):
        pass
