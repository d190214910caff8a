"""`topicwarden findings`: what people see, and what it writes into a policy, and when it does not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import PROGRAM, environment, findings
from tests.cli.program import run as run_process
from tests.engine.scenario import batches
from tests.policy.examples import GOOD
from tests.report.test_accepting import CATALOGUE, documented
from tests.report.test_accepting_grants import BARE, PUMP, alike, cases, found
from tests.report.test_triage import START, document, written
from topicwarden.cli.app import app
from topicwarden.cli.policy_file import PolicyFile
from topicwarden.errors import ConfigurationError
from topicwarden.events.recording import open_recorder
from topicwarden.store.notes import Signer

POLICY = """\
# Who may do what. Reviewed each quarter.
topicwarden: 1
roles:
  sensor: {members: [{user: "sensor-*"}], publish: [{topic: "plant/%u/telemetry"}]} # all of them
exceptions:
  # Q2
  - {finding: TW101, user: gw, reason: "replaced", until: 2030-06-30}

# The end.
"""
EVENTS = [
    {"publish": "plant/x", "user": "u-1"},
    {"publish": "\x1b]0;owned\x07<script>", "user": "u-2"},
    {"publish": "plant/y", "user": "u-3"},
    {"publish": "plant/z", "user": "u-3"},
]


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture(autouse=True)
def _one_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the catalogue once, not with each command."""
    monkeypatch.setattr("topicwarden.cli.findings.load_catalogue", lambda: CATALOGUE)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, which is much faster than starting one."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments])
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with what `check` finds in a recording."""
    place = tmp_path_factory.mktemp("checked")
    recording, policy, key = place / "events.jsonl", place / "policy.yaml", place / "key"
    with open_recorder(recording, {"sources": [{"title": "log", "broker": "b", "kind": "mosquitto"}]}) as recorder:
        for batch in batches(EVENTS):
            recorder.write(batch)
    policy.write_text('topicwarden: 1\nroles: {r: {members: [{user: "*"}], publish: [{topic: a}]}}\n')
    key.write_text(Signer.generate("test").encoded())
    folder = place / "store"
    done = run("check", "--policy", policy, "--store", folder, "--store-key", key, "-f", "jsonl", recording)
    assert done.returncode == 1, done.stderr
    return folder


def fingerprints(store: Path, *filters: str) -> list[str]:
    done = run("findings", store, "-f", "jsonl", *filters)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["fingerprint"] for line in done.stdout.splitlines()]


def of_user(store: Path, user: str) -> str:
    (fingerprint,) = fingerprints(store, "--code", "publish.outside-policy", "--user", user)
    return fingerprint


def accept(store: Path, fingerprint: str, policy: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return run(
        "findings", store, "accept", fingerprint, "--policy", policy, "--reason", 'moved "by" Q2', "--until",
        "2099-06-30", *more,
    )  # fmt: skip


def test_the_list_is_readable_harmless_and_filtered(store: Path) -> None:
    done = run_process("findings", store)
    assert done.returncode == 0, done.stderr
    assert "HIGH      TW201 publish.outside-policy" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout
    assert "user u-1" in done.stdout
    assert len(fingerprints(store)) == len(set(fingerprints(store))) >= 3
    assert len(fingerprints(store, "--code", "TW201")) == 3
    assert fingerprints(store, "--since", "2027-01-01") == []
    assert "0 findings" in run("findings", store, "--accepted").stdout
    assert "the first 1 shown" in run("findings", store, "--limit", "1").stdout


def test_jsonl_gives_the_stored_documents_back(store: Path) -> None:
    done = run("findings", store, "-f", "jsonl", "--code", "TW201")
    told = findings(done.stdout)
    for one in told:
        assert one.pop("runs") == 1
    assert {one["client"]["user"] for one in told} == {"u-1", "u-2", "u-3"}
    assert "\x1b]0;owned\x07<script>" in {witness["name"] for one in told for witness in one["witnesses"]}


def test_show_says_all_that_is_known_and_what_the_code_means(store: Path, policy: Path) -> None:
    fingerprint = of_user(store, "u-3")
    done = run("findings", store, "show", fingerprint[:8].upper(), "--policy", policy)
    assert done.returncode == 0, done.stderr
    for text in (fingerprint, "plant/y", "plant/z", "the policy accepts it with no exception", "T1071.005", "fix"):
        assert text in done.stdout
    assert "no fingerprint" in run("findings", store, "show", "xyz").stderr
    assert "has no finding" in run("findings", store, "show", "00000000000000000000000000000000").stderr


def test_accepting_adds_one_line_and_reopening_takes_it_out_again(store: Path, policy: Path) -> None:
    policy.chmod(0o640)
    fingerprint = of_user(store, "u-1")
    done = accept(store, fingerprint[:10], policy, "--yes")
    assert done.returncode == 0, done.stderr
    entry = '{finding: TW201, client: u-1, user: u-1, topic: "plant/x", reason: "moved \\"by\\" Q2", until: 2099-06-30}'
    assert f"+  - {entry}" in done.stdout.splitlines()
    old = '  - {finding: TW101, user: gw, reason: "replaced", until: 2030-06-30}\n'
    assert policy.read_text() == POLICY.replace(old, f"{old}  - {entry}\n")
    assert stat.S_IMODE(policy.stat().st_mode) == 0o640
    assert [path.name for path in policy.parent.iterdir() if "policy" in path.name] == ["policy.yaml"]

    again = accept(store, fingerprint, policy, "--yes")
    assert again.returncode == 2
    assert "policy.yaml:8: an exception accepts it already" in again.stderr
    shown = run("findings", store, "show", fingerprint, "--policy", policy).stdout
    assert "the policy accepts it until 2099-06-30" in shown

    back = run("findings", store, "reopen", fingerprint, "--policy", policy, "--yes", "-f", "jsonl")
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["exception"]["topic"] == "plant/x"
    assert f"-  - {entry}" in back.stderr
    assert policy.read_text() == POLICY
    assert "no exception covers" in run("findings", store, "reopen", fingerprint, "--policy", policy, "--yes").stderr


def test_nothing_is_written_unless_somebody_says_so(store: Path, policy: Path) -> None:
    done = accept(store, of_user(store, "u-1"), policy)
    assert done.returncode == 2
    assert "nobody was there to confirm it" in done.stderr
    assert policy.read_text() == POLICY


@pytest.mark.parametrize(("answer", "written_"), [("y\n", True), ("\n", False), ("no\n", False)])
def test_on_a_terminal_it_asks(store: Path, policy: Path, answer: str, written_: bool) -> None:
    ours, theirs = pty.openpty()
    command: list[str | Path] = [
        *PROGRAM, "findings", store, "accept", of_user(store, "u-1"), "--policy", policy, "--reason", "r", "--until",
        "2099-01-01",
    ]  # fmt: skip
    os.write(ours, answer.encode())
    done = subprocess.run(command, stdin=theirs, capture_output=True, text=True, timeout=60, env=environment())
    os.close(ours)
    os.close(theirs)
    assert "[y/N]" in done.stderr
    assert (policy.read_text() != POLICY) is written_
    assert done.returncode == (0 if written_ else 2)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--until", "2020-01-01"], "--until 2020-01-01 is past"),
        (["--topic", "other/#"], "would not cover all that is known"),
        (["--topic", "a/+b"], "the exception:3: "),
        (["--line", "3"], "--line is for `reopen`"),
        (["--severity", "high"], "filters are for `list`"),
    ],
)
def test_what_would_not_accept_it_is_refused(store: Path, policy: Path, more: list[str], says: str) -> None:
    done = accept(store, of_user(store, "u-1"), policy, "--yes", *more)
    assert done.returncode == 2
    assert says in done.stderr
    assert policy.read_text() == POLICY


def test_an_expired_exception_does_not_stand_in_the_way_and_two_that_cover_are_told_apart(
    store: Path, policy: Path
) -> None:
    old = '  - {finding: TW201, user: "u-*", reason: "old", until: 2020-01-01}\n'
    policy.write_text(POLICY.replace("  # Q2\n", "  # Q2\n" + old))
    before, fingerprint = policy.read_text(), of_user(store, "u-1")
    assert "exception ended on 2020-01-01" in run("findings", store, "show", fingerprint, "-p", policy).stdout
    assert accept(store, fingerprint, policy, "--yes").returncode == 0
    both = run("findings", store, "reopen", fingerprint, "--policy", policy, "--yes")
    assert "--line, one of: 7, 9" in both.stderr
    assert run("findings", store, "reopen", fingerprint, "--policy", policy, "--yes", "--line", "9").returncode == 0
    assert policy.read_text() == before


def test_a_symbolic_link_stays_one_and_windows_line_ends_and_mark_stay(store: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.yaml"
    data = b"\xef\xbb\xbf" + POLICY.replace("\n", "\r\n").encode()
    real.write_bytes(data)
    link = tmp_path / "link.yaml"
    link.symlink_to(real)
    fingerprint = of_user(store, "u-1")
    assert accept(store, fingerprint, link, "--yes").returncode == 0
    assert link.is_symlink()
    assert real.read_bytes().count(b"\r\n") == real.read_bytes().count(b"\n") == POLICY.count("\n") + 1
    assert run("findings", store, "reopen", fingerprint, "--policy", link, "--yes").returncode == 0
    assert real.read_bytes() == data


def test_a_file_that_changed_meanwhile_is_left_alone(policy: Path) -> None:
    file = PolicyFile.read(policy)
    policy.write_text(POLICY + "# somebody else\n")
    with pytest.raises(ConfigurationError, match="changed by somebody else"):
        file.write(GOOD)
    assert policy.read_text() == POLICY + "# somebody else\n"
    assert list(policy.parent.iterdir()) == [policy]


def test_a_policy_that_is_wrong_or_no_file_is_refused(store: Path, policy: Path, tmp_path: Path) -> None:
    policy.write_text("topicwarden: 1\nrolls: {}\n")
    fingerprint = of_user(store, "u-1")
    done = accept(store, fingerprint, policy, "--yes")
    assert done.returncode == 2
    assert "unknown key" in done.stderr
    assert "not a regular file" in accept(store, fingerprint, Path("/dev/null"), "--yes").stderr
    assert "cannot read the policy" in accept(store, fingerprint, tmp_path / "none", "--yes").stderr


def test_of_many_findings_people_see_the_first_and_scripts_all(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [document(number, START + number) for number in range(3000)]
    written(tmp_path / "store", rows)
    done = run("findings", tmp_path / "store")
    assert "3 000 findings, the first 100 shown" in done.stdout
    assert len(run("findings", tmp_path / "store", "-f", "jsonl").stdout.splitlines()) == 3000


# Grants ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "case"), [*cases()])
def test_a_finding_about_a_grant_is_accepted_told_as_accepted_and_reopened(
    code: str, case: dict[str, Any], tmp_path: Path
) -> None:
    policy, before = tmp_path / "policy.yaml", str(case.get("policy") or BARE)
    policy.write_text(before)
    first = found(case, code, tmp_path)[0]
    written(tmp_path / "store", [documented(first)])
    done = accept(tmp_path / "store", first.fingerprint, policy, "--yes")
    if done.returncode:
        assert "--wide" in done.stderr
        done = accept(tmp_path / "store", first.fingerprint, policy, "--yes", "--wide")
    assert done.returncode == 0, done.stderr
    assert f"+  - {{finding: {code}, " in done.stdout
    (again,) = [one for one in found(case, code, tmp_path, policy.read_text()) if alike(one, first)]
    assert again.accepted == 'moved "by" Q2 (until 2099-06-30)'
    shown = run("findings", tmp_path / "store", "show", first.fingerprint, "--policy", policy).stdout
    assert "the policy accepts it until 2099-06-30" in shown
    assert "accepts it already" in accept(tmp_path / "store", first.fingerprint, policy, "--yes", "--wide").stderr
    back = run("findings", tmp_path / "store", "reopen", first.fingerprint, "--policy", policy, "--yes")
    assert back.returncode == 0, back.stderr
    assert policy.read_bytes() == before.encode()
    assert [one.accepted for one in found(case, code, tmp_path, before) if alike(one, first)] == [None]


def test_scan_shows_an_accepted_grant_with_its_reason_and_no_longer_fails_for_it(tmp_path: Path) -> None:
    acl, policy = tmp_path / "acl", tmp_path / "policy.yaml"
    acl.write_text("user pump\ntopic write plant/#\n")
    policy.write_text(PUMP)
    scan = ("scan", "--policy", policy, "--broker", "b", "-f", "jsonl", acl)
    done = run(*scan)
    assert done.returncode == 1
    rows = [one for one in map(json.loads, done.stdout.splitlines()) if one.get("code") == "TW101"]
    assert len(rows) == 1
    written(tmp_path / "store", rows)
    assert accept(tmp_path / "store", rows[0]["fingerprint"], policy, "--yes").returncode == 0
    assert "holder: \"user 'pump'\"" in policy.read_text()
    done = run(*scan)
    assert done.returncode == 0, done.stdout
    (row,) = [one for one in findings(done.stdout) if one["code"] == "TW101"]
    assert (row["severity"], row["accepted"]) == ("info", 'moved "by" Q2 (until 2099-06-30)')
    acl.write_text("user pump\ntopic write #\n")
    assert run(*scan).returncode == 1


def test_check_shows_accepted_changes_of_grants_and_still_tells_others(tmp_path: Path) -> None:
    policy, key, recording = tmp_path / "policy.yaml", tmp_path / "key", tmp_path / "events.jsonl"
    policy.write_text(BARE)
    key.write_text(Signer.generate("test").encoded())
    given = (("shop", "monitoring"), ("shop", "administrator"), ("fan", "monitoring"))
    made = {"what": "tags", "by": "ops", "before": ""}
    with open_recorder(recording, {"sources": [{"title": "stream", "broker": "b", "kind": "rabbitmq"}]}) as recorder:
        for batch in batches([{"grant": user, "after": power, "powers": [power], **made} for user, power in given]):
            recorder.write(batch)
    check = ("check", "--policy", policy, "-f", "jsonl", "--store-key", key, recording, "--store")
    assert run(*check, tmp_path / "store").returncode == 1
    shop = fingerprints(tmp_path / "store", "--code", "TW111", "--user", "shop")
    shown = {one: run("findings", tmp_path / "store", "show", one).stdout for one in shop}
    (monitoring,) = [one for one, text in shown.items() if "power over the broker itself: monitoring" in text]
    assert accept(tmp_path / "store", monitoring, policy, "--yes").returncode == 0
    assert "user: shop, broker: b, change: monitoring" in policy.read_text()
    told = [one for one in findings(run(*check, tmp_path / "again").stdout) if one["code"] == "TW111"]
    by_who = {(one["client"]["user"], one["evidence"]["powers"]): one["accepted"] is not None for one in told}
    assert by_who == {("shop", "monitoring"): True, ("shop", "administrator"): False, ("fan", "monitoring"): False}
