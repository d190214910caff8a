"""`topicwarden scan --store`, and `findings` of what a scan wrote: from a configuration to an accepted finding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.program import run as run_process
from tests.cli.test_findings import run
from tests.engine.scenario import batches
from topicwarden.cli import keeping
from topicwarden.cli.scan import configuration_named
from topicwarden.events.recording import open_recorder
from topicwarden.findings import Finding, Ledger
from topicwarden.report.scans import scans_of
from topicwarden.store.identity import is_at_work
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.writer import StoreWriter

SIGNER = Signer.generate("test")
POLICY = """\
topicwarden: 1
roles:
  pump: {members: [{user: pump}], publish: [{topic: "plant/pump"}]}
  clerk: {members: [{user: clerk, vhost: shop}], publish: [{exchange: orders, key: "order.#"}]}
"""
TOO_MUCH, MENDED = "user pump\ntopic write plant/#\n", "user pump\ntopic write plant/pump\n"
DEFINITIONS: dict[str, Any] = {
    "rabbitmq_version": "4.3.4",
    "users": [
        {"name": "clerk", "password_hash": "", "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []}
    ],
    "vhosts": [{"name": "shop"}],
    "permissions": [{"user": "clerk", "vhost": "shop", "configure": "^$", "write": "^ord", "read": "^$"}],
    "topic_permissions": [],
    "exchanges": [{"name": "orders", "vhost": "shop", "type": "topic", "durable": True, "arguments": {}}],
    "queues": [],
    "bindings": [],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "acl").write_text(TOO_MUCH)
    (tmp_path / "definitions.json").write_text(json.dumps(DEFINITIONS))
    (tmp_path / "key").write_text(SIGNER.encoded())
    return tmp_path


def scan(folder: Path, source: str = "acl", *more: str | Path) -> list[str | Path]:
    return ["scan", folder / source, "--policy", folder / "policy.yaml", *more]


def keep(folder: Path, source: str = "acl", broker: str = "plant") -> list[str | Path]:
    return scan(folder, source, "--broker", broker, "--store", folder / "store", "--store-key", folder / "key")


def rows(stdout: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stdout.splitlines()]


def accept(folder: Path, place: str, fingerprint: str) -> Sequence[str | Path]:
    return ("findings", folder / place, "accept", fingerprint[:8], "--policy", folder / "policy.yaml", "--yes",
            "--reason", "replaced by Q2", "--until", "2099-06-30")  # fmt: skip


def test_what_scans_find_is_kept_listed_accepted_and_gone_when_it_was_mended(folder: Path) -> None:
    done = run_process(*keep(folder))
    assert done.returncode == 1, done.stderr
    assert f"store: {folder / 'store'}" in done.stdout
    assert run(*keep(folder, "definitions.json", "shop")).returncode == 1
    kept = rows(run("findings", folder / "store", "-f", "jsonl", "--code", "TW101").stdout)
    assert {one["broker"]: (one["runs"], one["gone"], one["client"]["user"]) for one in kept} == {
        "plant": (1, None, "pump"),
        "shop": (1, None, "clerk"),
    }
    assert {one.sources[0].configuration for one in scans_of(Store(folder / "store").opened)} == {
        str(folder / "acl"),
        str(folder / "definitions.json"),
    }
    # A standing grant of one broker is accepted, and mended on the other.
    clerk = next(one["fingerprint"] for one in kept if one["broker"] == "shop")
    done = run(*accept(folder, "store", clerk))
    assert done.returncode == 0, done.stderr
    assert "grant: \"write '^ord'\"" in (folder / "policy.yaml").read_text()
    (folder / "acl").write_text(MENDED)
    assert run(*keep(folder)).returncode == 0
    run(*keep(folder, "definitions.json", "shop"))
    told = rows(run("findings", folder / "store", "-f", "jsonl", "--code", "TW101").stdout)
    assert sorted((one["broker"], one["gone"] is not None, one["accepted"] is not None) for one in told) == [
        ("plant", True, False),
        ("shop", False, True),
        ("shop", True, False),
    ]
    assert "0 findings" in run("findings", folder / "store", "--open", "--code", "TW101").stdout
    assert "2 findings" in run("findings", folder / "store", "--gone").stdout
    listed = run("findings", folder / "store", "show", clerk[:8]).stdout
    assert "not found any more by the scan of" in listed
    out = folder / "r.json"
    done = run("report", folder / "store", "--policy", folder / "policy.yaml", "-o", out)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    tables = {one["id"]: one["rows"] for part in document["sections"] for one in part["tables"]}
    assert {row["client"] for row in tables["gone-privilege"]} == {"pump", "clerk"}
    assert [row for row in tables["privilege"] if row["severity"] == "high"] == []
    assert len(tables["scans"]) == 4
    assert run("verify", folder / "store").returncode == 0


def test_a_scan_written_as_json_lines_can_be_listed_and_accepted_and_the_next_scan_says_so(folder: Path) -> None:
    done = run_process(*scan(folder, "acl", "-f", "jsonl"))
    (folder / "scan.jsonl").write_text(done.stdout)
    listed = run_process("findings", folder / "scan.jsonl")
    assert listed.returncode == 0, listed.stderr
    assert "HIGH      TW101 grant.excess" in listed.stdout
    (fingerprint,) = [one["fingerprint"] for one in rows(done.stdout) if one.get("code") == "TW101"]
    shown = run("findings", folder / "scan.jsonl", "show", fingerprint[:6], "--policy", folder / "policy.yaml")
    assert "the policy accepts it with no exception" in shown.stdout
    done = run(*accept(folder, "scan.jsonl", fingerprint))
    assert done.returncode == 0, done.stderr
    again = run(*scan(folder, "acl", "-f", "jsonl"))
    assert again.returncode == 0
    assert [one["accepted"] for one in rows(again.stdout) if one.get("code") == "TW101"] == [
        "replaced by Q2 (until 2099-06-30)"
    ]
    back = run("findings", folder / "scan.jsonl", "reopen", fingerprint, "-p", folder / "policy.yaml", "--yes")
    assert back.returncode == 0, back.stderr
    assert (folder / "policy.yaml").read_text() == POLICY
    (folder / "scan.jsonl").write_text("no\n" + done.stdout + json.dumps({"type": "summary", "command": "scan"}) + "\n")
    lacks = run("findings", folder / "scan.jsonl", "show", "00000000")
    assert (lacks.returncode, "the file has no finding 00000000; " in lacks.stderr) == (2, True)
    wrong = run("findings", folder / "policy.yaml")
    assert (wrong.returncode, "not one line in it is a finding" in wrong.stderr) == (3, True)


def test_a_store_that_somebody_writes_is_refused_before_anything_is_scanned(folder: Path) -> None:
    with StoreWriter(folder / "store", SIGNER):
        done = run(*keep(folder))
        assert (done.returncode, done.stdout) == (2, "")
        assert "another topicwarden writes to this store" in done.stderr
    (folder / "other").write_text(Signer.generate("test").encoded())
    for arguments, said in (
        (("--store-key", folder / "key"), "--store-key is about a store"),
        (("--store", folder / "store", "--store-key", folder / "none"), "no such file"),
        (("--store", folder, "--store-key", folder / "key"), "neither a store nor empty"),
        (("--store", folder / "store", "--store-key", folder / "other"), "the store's key is"),
    ):
        done = run(*scan(folder, "acl", *arguments))
        assert done.returncode == 2
        assert said in done.stderr
    # What is refused only when there is something to keep is shown all the same.
    assert "TW101" in done.stdout
    assert not is_at_work(folder / "store")


def test_the_store_is_free_while_a_scan_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    found = Ledger.findings

    def findings(ledger: Ledger) -> list[Finding]:
        seen.append(is_at_work(folder / "store"))
        return found(ledger)

    monkeypatch.setattr(Ledger, "findings", findings)
    assert run(*keep(folder)).returncode == 1
    assert seen == [False]


def test_a_disk_that_is_full_is_exit_code_3_and_the_scan_replaces_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*keep(folder)).returncode == 1
    (folder / "acl").write_text("user pump\ntopic write other/#\n")
    with monkeypatch.context() as patched:
        patched.setattr(StoreWriter, "_write", _full)
        done = run(*keep(folder))
    assert done.returncode == 3
    assert "No space left on device" in done.stdout
    told = rows(run("findings", folder / "store", "-f", "jsonl", "--open").stdout)
    assert [one["code"] for one in told if one["code"] == "TW101"] == ["TW101"]


def _full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_unused_grants_are_kept_as_of_the_scan_and_a_store_that_is_read_again_has_no_scan_in_it(folder: Path) -> None:
    events = [{"publish": "plant/pump", "user": "pump"}]
    recording = folder / "events.jsonl"
    with open_recorder(recording, {"sources": [{"title": "log", "broker": "plant", "kind": "mosquitto"}]}) as recorder:
        for batch in batches(events):
            recorder.write(batch)
    store, key = folder / "store", folder / "key"
    run("check", recording, "--store", store, "--store-key", key)
    (folder / "acl").write_text(TOO_MUCH + "topic write never/#\n")
    assert run(*keep(folder), "--observed", store).returncode == 1
    (unused,) = [one for one in Store(store).documents(Kind.FINDINGS) if one["code"] == "TW102"]
    (scanned,) = scans_of(Store(store).opened)
    assert unused["first_seen"] == unused["last_seen"]
    assert scanned.compared == {"plant"}
    done = run("check", store, "-f", "jsonl")
    (summary,) = [one for one in rows(done.stdout) if one["type"] == "summary"]
    assert [one["title"] for one in summary["sources"]] == [f"store {store} of recording {recording} of log"]


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("amqp://me:secret@host:5672?management=http://me:secret@host:15672", "amqp://host:5672"),
        ("amqps://host", "amqps://host"),
        ("/etc/../etc/acl", "/etc/acl"),
    ],
)
def test_a_configuration_is_named_without_anybodys_password(source: str, named: str) -> None:
    assert configuration_named(source) == named


def test_the_key_is_asked_for_before_there_is_anything_to_keep(folder: Path) -> None:
    keeping.check_keeping(folder / "new", folder / "key")
    assert run(*keep(folder)).returncode == 1
