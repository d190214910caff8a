"""An authority's tokens over checkpoints: asked for, kept, and verified. The authority is openssl's."""

from __future__ import annotations

import http.server
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.store.filling import SEAL_SECONDS, SIGNER, Filling, wait_for
from topicwarden.errors import ConfigurationError
from topicwarden.store import timestamps
from topicwarden.store.timestamps import Timestamper, decoded, roots_of
from topicwarden.store.verify import verify
from topicwarden.store.verify_model import Damage
from topicwarden.store.writer import StoreWriter

pytest.importorskip("rfc3161_client", reason="needs the extra `timestamp`")

KEY = SIGNER.verifier
# No `certs`: with more than one certificate openssl's (3.0) answer is no DER, having a SET in another order, and
# rfc3161-client (1.0.9) reads nothing else.
CONFIG = """
[tsa]
default_tsa = ours
[ours]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
accuracy = secs:1
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""
EXTENSIONS = (
    "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping\n"
)


def openssl(folder: Path, *arguments: str, data: bytes = b"") -> bytes:
    done = subprocess.run(["openssl", *arguments], cwd=folder, input=data, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a certificate authority `ca.pem` and of the timestamp authority it vouches for."""
    folder = tmp_path_factory.mktemp("tsa")
    (folder / "tsa.conf").write_text(CONFIG.format(folder=folder))
    (folder / "extensions").write_text(EXTENSIONS)
    (folder / "serial").write_text("01\n")
    new = ("-newkey", "rsa:2048", "-nodes")
    openssl(folder, "req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    openssl(folder, "req", *new, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", "/CN=tsa")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extensions")
    openssl(folder, "x509", "-req", "-in", "tsa.csr", *signed, "-out", "tsa.pem")
    return folder


@contextmanager
def serving(authority: Path, answer: bytes | None = None) -> Iterator[str]:
    """Serve an authority on loopback; `answer`: what it always says, instead of what openssl does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            (authority / "q.tsq").write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            reply = ("ts", "-reply", "-config", "tsa.conf", "-queryfile", "q.tsq")
            said = answer if answer is not None else openssl(authority, *reply)
            self.send_response(200)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/tsr"
        finally:
            server.shutdown()
            thread.join()


def tokens(folder: Path) -> list[Path]:
    return sorted((folder / "log" / "checkpoints").glob("*.tsr"))


def test_every_checkpoint_that_stays_gets_a_token_that_openssl_verifies_too(tmp_path: Path, authority: Path) -> None:
    store = tmp_path / "s"
    with serving(authority) as url, StoreWriter(store, SIGNER, seal_seconds=SEAL_SECONDS, timestamp_url=url) as writer:
        Filling(writer).segment()
        assert writer.timestamps is not None
    assert writer.timestamps.error is None
    assert [path.stem for path in tokens(store)] == ["1", "3"]
    report = verify(store, verifier=KEY, roots=roots_of(authority / "ca.pem"))
    assert report.intact, report.found
    assert (report.timestamps, report.untrusted_timestamps) == (2, 0)
    report = verify(store, verifier=KEY)
    assert report.intact
    assert (report.timestamps, report.untrusted_timestamps) == (0, 2)
    for token in tokens(store):
        checked = ("ts", "-verify", "-data", str(token.with_suffix("")), "-in", str(token), "-CAfile", "ca.pem")
        openssl(authority, *checked)


def test_tokens_that_are_changed_swapped_or_of_another_authority_are_named(tmp_path: Path, authority: Path) -> None:
    store = tmp_path / "s"
    with serving(authority) as url, StoreWriter(store, SIGNER, seal_seconds=SEAL_SECONDS, timestamp_url=url) as writer:
        Filling(writer).segment()
    roots = roots_of(authority / "ca.pem")
    first, last = tokens(store)
    whole = first.read_bytes()
    for at in range(0, len(whole), 97):
        first.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        report = verify(store, verifier=KEY, roots=roots)
        assert all((one.what, one.place) == (Damage.FORGED, f"log/checkpoints/{first.name}") for one in report.found)
    for data in (last.read_bytes(), b"", whole[:-1], os.urandom(1 << 17)):
        first.write_bytes(data)
        assert len(verify(store, verifier=KEY).found) == 1
    first.write_bytes(whole)
    other = tmp_path / "other"
    other.mkdir()
    openssl(other, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "k", "-out", "c", "-subj", "/CN=other")
    assert len(verify(store, verifier=KEY, roots=roots_of(other / "c")).found) == 2


def test_an_authority_that_is_away_or_talks_nonsense_keeps_nobody_waiting(
    tmp_path: Path, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "s"
    with serving(authority, b"nonsense") as url, StoreWriter(store, SIGNER, timestamp_url=url) as writer:
        wait_for(lambda: writer.timestamps is not None and writer.timestamps.error is not None)
    with StoreWriter(store, SIGNER, seal_seconds=SEAL_SECONDS, timestamp_url=url) as writer:
        Filling(writer).segment()
    assert writer.timestamps is not None
    assert writer.timestamps.error is not None
    assert not tokens(store)
    # Made up for once it is back.
    monkeypatch.setattr(timestamps, "AGAIN_SECONDS", 0.0)
    with serving(authority) as url:
        stamper = Timestamper(url, store / "log" / "checkpoints")
        wait_for(lambda: len(tokens(store)) == 4)
        stamper.close()
    assert verify(store, verifier=KEY, roots=roots_of(authority / "ca.pem")).timestamps == 4


def test_a_refusal_is_no_token(authority: Path) -> None:
    refused = openssl(authority, "ts", "-reply", "-config", "tsa.conf", "-queryfile", "tsa.conf")
    with pytest.raises(ValueError, match="refused"):
        decoded(refused)


def test_what_is_no_http_address_and_no_certificate_is_refused(tmp_path: Path) -> None:
    for url in ("file:///etc/passwd", "timestamp.example", "http://"):
        with pytest.raises(ConfigurationError, match="http"):
            StoreWriter(tmp_path / "s", SIGNER, timestamp_url=url)
    (tmp_path / "pem").write_text("none")
    for path in (tmp_path / "pem", tmp_path / "missing"):
        with pytest.raises(ConfigurationError):
            roots_of(path)
