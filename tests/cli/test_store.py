"""What is watched is kept: the store gives the same findings again, and says what it could not keep."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import free_port, wait_for
from tests.cli.program import broker_with_plugin, findings, run, watch
from tests.cli.traffic import EXPECTED, POLICY, behave_and_misbehave, publish, subscribe
from topicwarden.cli.period import Period, period_named
from topicwarden.errors import ConfigurationError
from topicwarden.store.model import Kind
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store

READY = "cannot see"


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "store.key"
    path.write_text(Signer.generate("test").encoded() + "\n")
    path.chmod(0o600)
    return path


def accused(found: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(finding["code"], finding["client"]["client_id"]) for finding in found if finding["client"]}


def summary(stdout: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    assert document["type"] == "summary"
    return document


def latest(store: Path) -> list[dict[str, Any]]:
    """Return the last document of each finding in a store, as `findings` returns those of jsonl output."""
    return findings("\n".join(json.dumps(document) for document in Store(store).documents(Kind.FINDINGS)))


def test_a_store_keeps_what_was_found_and_gives_the_same_findings_again(
    tmp_path: Path, policy: Path, key: Path
) -> None:
    store = tmp_path / "store"
    keep = ("--store", store, "--store-key", key)
    with (
        broker_with_plugin(tmp_path) as (broker, ring),
        watch("--policy", policy, "--no-state", "-f", "jsonl", *keep, f"ring:{ring}") as live,
    ):
        live.wait_for(READY)
        behave_and_misbehave(broker.port)
        live.wait_for("TW230")
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(20) == 1
    told = findings(live.stdout)
    assert accused(told) == EXPECTED
    assert latest(store) == told
    kept = summary(live.stdout)["kept"]
    assert kept["rows"] > 20
    assert (kept["folder"], kept["dropped"], kept["error"], kept["gap_from"]) == (str(store), 0, None, None)

    checked = run("check", "--policy", policy, "-f", "jsonl", store)
    assert checked.returncode == 1, checked.stderr
    assert findings(checked.stdout) == told
    source = summary(checked.stdout)["sources"][0]
    assert source["blind_spots"] == summary(live.stdout)["sources"][0]["blind_spots"]
    assert source["events"] == summary(live.stdout)["events"]
    assert run("check", "-f", "jsonl", "--to", "2020-01-01", store).returncode == 3
    named = run("check", "--policy", policy, "-f", "jsonl", "--broker", source["broker"], "--from", "2020-01-01", store)
    assert findings(named.stdout) == told
    assert "has no broker 'other'" in run("check", "--broker", "other", store).stderr

    again = tmp_path / "again"
    copied = run("check", "--policy", policy, "-f", "jsonl", "--store", again, "--store-key", key, store)
    assert copied.returncode == 1, copied.stderr
    assert latest(again) == told
    assert findings(run("check", "--policy", policy, "-f", "jsonl", again).stdout) == told

    acl = tmp_path / "acl"
    acl.write_text("user sensor-1\ntopic write never/used\n")
    scanned = run("scan", "-f", "jsonl", "--observed", store, acl)
    assert {finding["code"] for finding in findings(scanned.stdout)} >= {"TW102"}, scanned.stderr
    assert summary(scanned.stdout)["sources"][0]["events"] == source["events"]
    learnt = run("learn", "-o", tmp_path / "draft.yaml", "--min-users", "1", "--min-coverage", "0", store)
    assert learnt.returncode in (0, 1), learnt.stderr
    assert "sensor" in (tmp_path / "draft.review.jsonl").read_text()


def test_killed_it_says_at_the_next_start_and_to_whoever_reads_what_was_not_kept(
    tmp_path: Path, policy: Path, key: Path
) -> None:
    store = tmp_path / "store"
    keep = ("--store", store, "--store-key", key)
    with broker_with_plugin(tmp_path) as (broker, ring):
        with watch("--policy", policy, "--no-state", "-f", "jsonl", *keep, f"ring:{ring}") as first:
            first.wait_for(READY)
            publish(broker.port, "stranger", "a")
            # A file whose segment is not in the log is not sealed.
            wait_for(lambda: bool(accused(latest(store))), "a sealed finding", 20)
            first.process.kill()
        with watch("--policy", policy, "--no-state", "-f", "jsonl", *keep, f"ring:{ring}") as second:
            second.wait_for(READY)
            publish(broker.port, "other-stranger", "a")
            second.wait_for("other-stranger")
            second.process.send_signal(signal.SIGINT)
            assert second.process.wait(20) == 1
    gap = [finding for finding in findings(second.stdout) if finding["code"] == "TW901"]
    assert [finding["scope"] for finding in gap] == [["store"]]
    assert gap[0]["evidence"]["why"] == "the writer before ended without closing the store"
    assert summary(second.stdout)["kept"]["gap_until"] is not None
    checked = run("check", "--policy", policy, "-f", "jsonl", store)
    assert [finding["evidence"] for finding in findings(checked.stdout) if finding["code"] == "TW901"] == [
        gap[0]["evidence"]
    ]
    assert ("TW230", "stranger") in accused(findings(checked.stdout))


def test_what_cannot_be_kept_is_told_at_once_and_in_the_exit(tmp_path: Path, policy: Path, key: Path) -> None:
    store = tmp_path / "store"
    port = free_port()
    keep = ("--store", store, "--store-key", key, "--metrics", str(port))
    with (
        broker_with_plugin(tmp_path) as (broker, ring),
        watch("--policy", policy, "--no-state", *keep, f"ring:{ring}") as live,
    ):
        live.wait_for(READY)
        wait_for(lambda: bool(list(store.glob("log/entries-*"))), "the store", 20)
        # A file where the events' folder belongs: nobody can write there, not even root.
        (store / "events").touch()
        publish(broker.port, "sensor-1", "plant/sensor-1/telemetry")
        live.wait_for("evidence is not being kept")
        (store / "events").unlink()
        live.wait_for("evidence is being kept again")
        (store / "events").rename(store / "aside")
        (store / "events").touch()
        subscribe(broker.port, "sensor-1", "plant/sensor-1/command")
        live.wait_for("evidence is not being kept")
        live.process.send_signal(signal.SIGINT)
        assert live.process.wait(20) == 3
    assert "could not be kept" in live.stdout
    assert "Evidence is missing from the store" in live.stdout
    os.unlink(store / "events")  # noqa: PTH108 - as the test made it
    (store / "aside").rename(store / "events")
    assert Store(store).gaps[-1].facts is not None
    assert "TW901" in run("check", store).stdout


def test_a_store_of_something_else_or_with_another_key_is_refused_before_anything_is_watched(
    tmp_path: Path, key: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    log = tmp_path / "mosquitto.log"
    log.write_text("1700000000: mosquitto version 2.0.11 starting\n")
    done = run("check", "--store", tmp_path / "full", "--store-key", key, "--record", tmp_path / "r.arrow", log)
    assert done.returncode == 2
    assert "neither a store nor empty" in done.stderr
    assert not (tmp_path / "r.arrow").exists()
    store = tmp_path / "store"
    assert run("check", "--store", store, "--store-key", key, log).returncode in (0, 3)
    other = tmp_path / "other.key"
    other.write_text(Signer.generate("test").encoded())
    other.chmod(0o600)
    assert "key" in run("check", "--store", store, "--store-key", other, log).stderr
    itself = run("check", "--store", store, "--store-key", key, store)
    assert itself.returncode == 2
    assert "into itself" in itself.stderr
    assert "for stores" in run("check", "--from", "2026-01-01", log).stderr


def test_a_period_is_dates_or_times_with_a_date_for_its_whole_day() -> None:
    day = 86_400_000_000_000
    assert period_named(None, None) == Period()
    assert period_named("1970-01-02", "1970-01-02") == Period(day, 2 * day - 1)
    assert period_named("1970-01-01T01:00+01:00", "1970-01-02T00:00:00.5Z") == Period(0, day + 500_000_000)
    assert period_named("0001-01-01", "9999-12-31") == Period(-(2**63), 2**63 - 1)
    for wrong in (("yesterday", None), ("", None), (None, "2026-13-01"), ("2026-02-01", "2026-01-01")):
        with pytest.raises(ConfigurationError):
            period_named(*wrong)
