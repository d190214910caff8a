"""What `watch` is told about keeping reaches the store, and what cannot be is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import run


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--retain", "5x"], "--retain '5x' is no time"),
        (["--retain-size", "lots"], "--retain-size 'lots' is no size"),
    ],
)
def test_a_wrong_rule_is_refused_before_anything_is_written(tmp_path: Path, options: list[str], said: str) -> None:
    log = tmp_path / "mosquitto.log"
    log.write_text("1700000000: mosquitto version 2.0.11 starting\n")
    store = ["--store", str(tmp_path / "store"), "--store-key", str(tmp_path / "key")]
    done = run("watch", "--for", "1", "--no-state", f"log:{log}", *store, *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("option", ["--retain=5d", "--retain-size=1GB", "--timestamp-url=http://127.0.0.1:9/"])
def test_without_a_store_there_is_nothing_to_keep(tmp_path: Path, option: str) -> None:
    log = tmp_path / "mosquitto.log"
    log.write_text("1700000000: mosquitto version 2.0.11 starting\n")
    done = run("watch", "--for", "1", "--no-state", f"log:{log}", option)
    assert done.returncode == 2
    assert "hint: name it: --store DIR" in done.stderr


def test_what_is_older_than_the_rule_is_deleted_and_the_store_stays_intact(tmp_path: Path) -> None:
    log = tmp_path / "mosquitto.log"
    publish = "Received PUBLISH from x (d0, q0, r0, m0, 't', ... (1 bytes))"
    log.write_text(f"1700000000: mosquitto version 2.0.11 starting\n1700000001: {publish}\n")
    store, key = tmp_path / "store", ["--store-key", str(tmp_path / "key")]
    assert run("key", "new", tmp_path / "key").returncode == 0
    done = run("check", log, "--store", store, *key, "--fail-on", "never")
    assert done.returncode == 0, done.stderr
    assert list(store.glob("events/**/*.parquet"))
    later = tmp_path / "later.log"
    later.write_text("1700000000: mosquitto version 2.0.11 starting\n")
    watch = run("watch", "--for", "3", "--no-state", f"log:{later}", "--store", store, *key, "--retain", "30d")
    assert watch.returncode in (0, 1), watch.stderr
    assert not list(store.glob("events/**/*.parquet"))
    verified = run("verify", store)
    assert verified.returncode == 0, verified.stdout
    assert "intact" in verified.stdout
