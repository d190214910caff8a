"""`rules`, as a user runs it."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.cli.program import run
from tests.output.rules_golden import POLICY


def test_without_a_form_the_rules_are_listed_with_what_they_can_be_written_as() -> None:
    done = run("rules")
    assert done.returncode == 0
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.startswith("TW")}
    assert lines["TW401"][2:4] == ["yes", "yes"]
    assert lines["TW402"][2:4] == ["no", "no"]
    with_policy = run("rules", "--policy", POLICY).stdout.splitlines()
    assert {"TW402", "TW403"} <= {line.split()[0] for line in with_policy if " yes " in line}


@pytest.mark.parametrize("form", ["elastic", "sigma"])
def test_rules_are_written_and_what_they_do_not_say_is_told(form: str, tmp_path: Path) -> None:
    done = run("rules", "--to", form, "--output", tmp_path / "rules", "--policy", POLICY)
    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "rules").iterdir())
    assert len(written) == 10
    assert all(name in done.stdout for name in written)
    assert "TW404 host.interactive-shell  not exported" in done.stdout
    assert "    - programs are told by their file names" in done.stdout
    assert "8 of 10 rules, 10 files" in done.stdout


def test_writing_again_replaces_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("")
    for _ in range(2):
        assert run("rules", "--to", "elastic", "-o", tmp_path).returncode == 0
    assert mine.read_text() == ""
    for path in tmp_path.glob("command_and_control*"):
        tomllib.loads(path.read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "splunk", "-o", "x"], "'splunk' is not known"),
        (["--to", "sigma"], "name a folder"),
        (["-o", "x"], "--to elastic"),
        (["--policy", "/nowhere/policy.yaml"], "/nowhere/policy.yaml"),
        (["--to", "sigma", "-o", "/dev/null/x"], "cannot be written"),
    ],
)
def test_wrong_usage_is_told_and_exits_with_2(arguments: list[str], said: str) -> None:
    done = run("rules", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
