"""`verify` and `key`, as people run them."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.cli.program import run
from tests.store.filling import SEAL_SECONDS, Filling, files_of
from topicwarden.cli.key import default_key_file, default_name, run_new, store_signer
from topicwarden.cli.verify import VerifyOptions
from topicwarden.cli.verify import run as verify
from topicwarden.errors import ConfigurationError, ObservationError
from topicwarden.store.notes import Signer, Verifier
from topicwarden.store.writer import StoreWriter


def made(folder: Path) -> tuple[Path, str]:
    """Make a key and a store of two segments; returns the store and the public key."""
    done = run("key", "new", folder / "k", "--name", "plant-1/audit")
    assert done.returncode == 0, done.stderr
    with StoreWriter(folder / "s", Signer.parse((folder / "k").read_text()), seal_seconds=SEAL_SECONDS) as writer:
        filling = Filling(writer)
        filling.segment()
        filling.segment()
    return folder / "s", done.stdout.strip()


def test_a_key_is_made_once_for_its_owner_only_and_its_public_half_is_all_that_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "new" / "k"
    done = run("key", "new", file, "--name", "plant-1/audit")
    assert done.returncode == 0
    secret = file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert Verifier.parse(done.stdout).name == "plant-1/audit"
    assert secret.split("+")[-1].strip() not in done.stdout + done.stderr
    assert "elsewhere" in done.stderr or "nobody who can write here" in done.stderr
    assert run("key", "public", file).stdout == done.stdout
    again = run("key", "new", file)
    assert again.returncode == 2
    assert file.read_text() == secret
    with pytest.raises(ConfigurationError, match="--name"):
        run_new(tmp_path / "x", "a b")
    assert not (tmp_path / "x").exists()


def test_the_default_key_is_made_at_first_use_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert default_key_file() == tmp_path / "topicwarden" / "store.key"
    first = store_signer(None)
    assert str(first.verifier) in capsys.readouterr().err
    assert store_signer(None).verifier == first.verifier
    assert not capsys.readouterr().err
    assert first.verifier.name.startswith("topicwarden")
    monkeypatch.setattr(socket, "gethostname", lambda: "höst name+\n")
    assert Signer.generate(default_name()).verifier.name == "topicwarden/h-st-name"


def test_an_intact_store_exits_0_and_says_what_that_is_worth(tmp_path: Path) -> None:
    store, public = made(tmp_path)
    own = run("verify", store)
    assert own.returncode == 0, own.stdout + own.stderr
    assert own.stdout.rstrip().endswith("intact")
    assert "only that the store agrees with itself" in own.stdout
    given = run("verify", store, "--public-key", public)
    assert "only that the store agrees with itself" not in given.stdout
    assert "rolled back" in given.stdout
    (tmp_path / "public").write_text(public + "\n")
    kept = tmp_path / "checkpoint"
    kept.write_bytes((store / "log" / "checkpoint").read_bytes())
    best = run("verify", store, "--public-key", tmp_path / "public", "--checkpoint", kept)
    assert best.returncode == 0
    assert "note:" not in best.stdout
    document = json.loads(run("verify", store, "--public-key", public, "-f", "json").stdout)
    assert document["intact"] is True
    assert document["public_key_from"] == "given"
    assert document["log"]["segments"] == 2
    assert document["found"] == []


def test_what_was_done_is_named_and_exits_1(tmp_path: Path) -> None:
    store, public = made(tmp_path)
    gone = files_of(store)[0]
    gone.unlink()
    (store / "events" / "x\x1b[31m").touch()
    done = run("verify", store, "--public-key", public)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    assert "INSERTED    events/x\\u{1b}[31m" in done.stdout
    assert f"MISSING     {gone.parent.relative_to(store)}: no file has the 2 rows of segment 0" in done.stdout
    assert done.stdout.rstrip().endswith("NOT intact: 2 found")
    document = json.loads(run("verify", store, "-f", "json").stdout)
    assert {one["what"] for one in document["found"]} == {"missing", "inserted"}


def test_one_event_is_proved(tmp_path: Path) -> None:
    store, public = made(tmp_path)
    done = run("verify", store, "--public-key", public, "--segment", "1", "--row", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("proved")
    assert "inclusion proof" in done.stdout
    document = json.loads(run("verify", store, "--segment", "1", "--row", "3", "-f", "json").stdout)
    assert document["proved"] is True
    assert document["event"]["segment"] == 1
    with pytest.raises(ObservationError, match="no segment 7"):
        verify(store, VerifyOptions(segment=7))
    next(path for path in files_of(store) if path.name.startswith(f"{1:010}")).write_bytes(b"")
    changed = run("verify", store, "--segment", "1")
    assert changed.returncode == 1
    assert "NOT proved" in changed.stdout


def test_wrong_usage_is_refused_and_what_cannot_be_read_exits_3(tmp_path: Path) -> None:
    store, _ = made(tmp_path)
    for wrong in (
        VerifyOptions(public_key="x"),
        VerifyOptions(checkpoints=(tmp_path / "none",)),
        VerifyOptions(row=1),
        VerifyOptions(output_format="xml"),
        VerifyOptions(segment=1, checkpoints=(tmp_path / "k", tmp_path / "k")),
    ):
        with pytest.raises(ConfigurationError):
            verify(store, wrong)
    with pytest.raises(ObservationError, match="not a store"):
        verify(tmp_path, VerifyOptions())
    about = store / "store.json"
    about.write_text(about.read_text().replace('"format": 2', '"format": 3'))
    done = run("verify", store)
    assert done.returncode == 3
    assert "format 3" in done.stderr
