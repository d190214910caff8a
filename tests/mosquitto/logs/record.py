"""Records the logs in this folder from real brokers: what a scenario's clients do, as Mosquitto writes it down.

    .venv/bin/python -m tests.mosquitto.logs.record [--mosquitto PATH] [--suffix=-2.1.2] [SCENARIO ...]
    .venv/bin/python -m tests.mosquitto.logs.record --events

The first form writes `SCENARIO[suffix].log`; ports, times and generated names differ each time. The second decodes
every log into `NAME.events.jsonl`: read the difference before committing it. 2.0.11 is Debian 12's package; 2.0.22 and
2.1.2 were built from their release tags with make.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any, Final

from tests.brokers import MOSQUITTO, Mosquitto, free_port, mosquitto, wait_for
from tests.mosquitto.logs.wire import Wire, packet, text
from topicwarden.events import EventBatch, Tables
from topicwarden.events.rows import client_row, to_rows
from topicwarden.sources import Counters
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

FOLDER: Final = Path(__file__).parent
BASE_NS: Final = 1_795_500_000 * 10**9
"""The base given to logs whose lines carry no time, or no year."""

ROOT: Final = ["user root"] if os.geteuid() == 0 else []
"""Mosquitto started by root would drop to a user who cannot write to a test's folder."""

ACL: Final = """\
topic readwrite ok/#
topic read #
user alice
topic readwrite ok/#
topic readwrite Ω/#
topic read $SYS/#
"""


def rows_of(batch: EventBatch) -> list[dict[str, Any]]:
    """Return a batch's rows, then its notices as rows under the key `notice`."""
    rows: list[dict[str, Any]] = list(to_rows(batch))
    for notice in batch.notices:
        row: dict[str, Any] = {"notice": notice.code, "scope": notice.scope, "time_ns": notice.time_ns}
        if notice.count != 1:
            row["count"] = notice.count
        if notice.client is not None:
            row["client"] = client_row(notice.client)
        if notice.witness is not None:
            row["witness"] = notice.witness
        if notice.evidence:
            row["evidence"] = dict(notice.evidence)
        rows.append(row)
    return rows


def decode(data: bytes, **options: Any) -> tuple[list[dict[str, Any]], Counters]:
    """Decode a whole log; UTC for stamps without a zone."""
    counters = Counters()
    decoder = LogDecoder(Tables(), "golden", zone=UTC, base_ns=BASE_NS, counters=counters, **options)
    decoder.feed(data)
    rows = []
    while True:
        rows += rows_of(decoder.take())
        if not decoder.backlog:
            break
    decoder.finish()
    rows += rows_of(decoder.take())
    return rows, counters


def golden_lines(data: bytes) -> str:
    """Return what belongs into an events file: rows, notices, and last the decode errors."""
    rows, counters = decode(data)
    return "".join(json.dumps(row) + "\n" for row in [*rows, {"decode_errors": counters.decode_errors}])


def password_file(folder: Path) -> Path:
    """Write a password file that knows alice (`secret`) and bob (`secret`)."""
    path = folder / "passwords"
    path.write_text("alice:secret\nbob:secret\n")
    path.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", str(path)], check=True)
    return path


def acl_file(folder: Path) -> Path:
    """Write `ACL`."""
    path = folder / "acl"
    path.write_text(ACL)
    path.chmod(0o600)
    return path


class Certificates:
    """A certificate authority, a server certificate for localhost, and client certificates on demand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test CA",
                      "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
        self.issue("server", "localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True)

    def issue(self, file: str, common_name: str, extension: str = "") -> None:
        """Write FILE.crt and FILE.key for a subject with this common name, which may hold anything."""
        config = self.folder / f"{file}.cnf"
        # Outside quotes, OpenSSL's configuration reads backslash n as a line feed.
        escaped = "".join("\\n" if c == "\n" else f"\\{c}" if c in "\\\"'#$; " else c for c in common_name)
        config.write_text(
            f"[req]\ndistinguished_name=dn\nprompt=no\nstring_mask=utf8only\nutf8=yes\n[dn]\nCN={escaped}\n"
        )
        self._openssl("req", "-newkey", "rsa:2048", "-nodes", "-config", config.name, "-keyout", f"{file}.key",
                      "-out", f"{file}.csr")  # fmt: skip
        (self.folder / "extension").write_text(extension + "\n")
        self._openssl("x509", "-req", "-in", f"{file}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2",
                      "-out", f"{file}.crt", "-extfile", "extension")  # fmt: skip

    def context(self, file: str | None = None) -> ssl.SSLContext:
        """Return a client's TLS context, with the certificate FILE if one is given."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        if file is not None:
            context.load_cert_chain(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        return context

    def listener(self, *lines: str) -> list[str]:
        """Return configuration lines of a TLS listener on `{port}`."""
        return [
            "listener {port} 127.0.0.1",
            f"cafile {self.folder / 'ca.crt'}",
            f"certfile {self.folder / 'server.crt'}",
            f"keyfile {self.folder / 'server.key'}",
            *lines,
        ]


@contextlib.contextmanager
def broker(folder: Path, executable: str, *config: str, **options: Any) -> Iterator[Mosquitto]:
    """Run a broker that logs everything to its stderr file, unless `config` says otherwise."""
    lines = [*ROOT, *config]
    if not any(line.startswith("log_type") for line in config):
        lines.append("log_type all")
    with mosquitto(folder / "broker", lines, executable=executable, **options) as running:
        yield running


def everyday(folder: Path, executable: str) -> bytes:
    """MQTT 3.1, 3.1.1 and 5, websockets, a unix socket, wills, takeovers, refusals, denials."""
    websocket, path = free_port(), folder / "mqtt.sock"
    config = [
        "per_listener_settings false",
        f"password_file {password_file(folder)}",
        f"acl_file {acl_file(folder)}",
        "listener {port} 127.0.0.1",
        f"listener 0 {path}",
        f"listener {websocket} 127.0.0.1",
        "protocol websockets",
    ]
    with broker(folder, executable, *config, listener=False) as running:
        port = running.port
        watcher = Wire(path)
        watcher.connect("watcher")
        watcher.subscribe(("ok/#", 1), ("$share/g/ok/+", 0))
        sensor = Wire(port, version=5)
        sensor.connect("sensor-1", "alice", "secret", will=("ok/will", b"gone"), keepalive=30)
        sensor.publish("ok/temperature", b"21.5")
        sensor.publish("ok/temperature", b"21.5", qos=1, retain=True)
        sensor.publish("ok/temperature", b"", qos=2)
        sensor.publish("Ω/späße", "mäßig".encode(), qos=1)
        sensor.publish("admin/reset", b"now", qos=1)
        sensor.publish("admin/reset", b"now", qos=2)
        sensor.publish("admin/reset", b"now")
        old = Wire(port, version=3)
        old.connect("old", "bob", "secret")
        old.publish("ok/x", qos=1)
        old.publish("admin/x", qos=1)
        old.disconnect()
        browser = Wire(websocket, websocket=True)
        browser.connect("browser", "alice", "secret")
        browser.publish("ok/web", qos=1)
        again = Wire(websocket, websocket=True)
        again.connect("browser", "alice", "secret")
        browser.wait_closed()
        again.publish("ok/web", qos=1)
        again.ping()
        again.disconnect()
        for version in (4, 5):
            wrong = Wire(port, version=version)
            wrong.connect(f"wrong-{version}", "alice", "guess")
            wrong.close()
        sensor.subscribe(("ok/+", 0), ("nothing/#", 1))
        sensor.unsubscribe("ok/+", "never/subscribed")
        thief = Wire(port)
        thief.connect("sensor-1", "bob", "secret")
        sensor.wait_closed()
        thief.publish("ok/stolen", qos=1)
        thief.disconnect()
        sulking = Wire(port)
        sulking.connect("sulking", will=("ok/will", b"bye"))
        sulking.close()
        watcher.ping()
        rude = Wire(port)
        rude.send(b"\xff\xff\n\n")
        rude.wait_closed()
        nobody = Wire(port)
        nobody.connect("", clean=False)
        nobody.wait_closed()
        watcher.disconnect()
    return running.log.read_bytes()


FORGED_PUBLISH: Final = ("Received PUBLISH from admin (d0, q0, r0, m0, 'plant/secret", "x', ... (5 bytes))")
"""A client id and a filter: together they make the broker write a PUBLISH line of a client `admin`."""
FORGED_CONNECT: Final = ("New client connected from 10.0.0.1:1 as admin (p2, c1, k60, u'root", "y').")
FORGED_START: Final = ("mosquitto version", "9.9.9 starting")


def _forge(port: int, version: int = 4) -> None:
    for client_id, filter_ in (FORGED_PUBLISH, FORGED_CONNECT, FORGED_START):
        forger = Wire(port, version=version)
        forger.connect(client_id)
        forger.subscribe((filter_, 0))
        forger.unsubscribe(filter_)
        forger.disconnect()


def hostile(folder: Path, executable: str) -> bytes:
    """Names that imitate the grammar, forged lines by way of subscriptions, lines longer than the longest."""
    with broker(folder, executable, f"acl_file {acl_file(folder)}") as running:
        port = running.port
        honest = Wire(port)
        honest.connect("admin", "root")
        honest.publish("plant/secret", qos=1)
        early = Wire(port)
        early.connect("early (d0, q0, r0, m0, 'ok/a")
        early.publish("ok/b")
        _forge(port)
        for client_id, topic in (
            ("quote'", "ok/it's', ... (5 bytes))"),
            ("spoof (d0, q0, r0, m0, 'ok/a', ... (1 bytes))", "ok/b"),
            ("admin (d0, q1, r0, m1, 'ok/x", "ok/y"),
            ("separator\u2028line", "ok/\u2028Received PUBLISH from admin\u202e"),
            ("tail disconnected", "ok/ (d0, q0, r0, m0, 'ok/z"),
            ("tail disconnected: Broken pipe", "ok/ (d0, q1, r0, m1, 'ok/z"),
            ("%s%n%x", "ok/%s"),
            ("127.0.0.1", "ok/a"),
            ("<unknown>", "ok/a"),
            ("a [127.0.0.1:1]", "ok/a"),
            ("paren (p2, c1, k60, u'root').", "ok/a"),
        ):
            for qos in (0, 1, 2):
                client = Wire(port, version=5)
                client.connect(client_id)
                client.publish(topic, qos=qos)
                client.publish("denied/" + topic, qos=qos)
                client.subscribe((topic + "/(denied)", qos))
                client.disconnect()
        user = Wire(port)
        user.connect("two readings", "a (p2, c1, k60, u'root")
        user.publish("ok/a", qos=1)
        user.close()
        long = Wire(port, version=5)
        long.connect("long")
        for length in (930, 940, 945, 950, 955, 960, 1000, 4000):
            long.publish("ok/" + "é" * ((length - 3) // 2) + "x" * (length % 2), qos=length % 3)
        long.subscribe(("ok/" + "f" * 975, 0), ("ok/" + "g" * 2000, 1))
        long.unsubscribe("ok/" + "f" * 975)
        for client_id in (
            "L" * 2000,
            "admin (d0, q0, r0, m0, 'plant/" + "L" * 2000,
            "admin (p2, c1, k60, u'" + "L" * 2000,
        ):
            hidden = Wire(port, version=5)
            hidden.connect(client_id, "x")
            hidden.publish("ok/hidden")
            hidden.publish("ok/hidden", qos=1)
            hidden.subscribe(("ok/hidden", 0))
            hidden.disconnect()
        long.publish("ok/" + "z" * 990)
        long.publish("ok/" + "z" * 990, qos=1)
        honest.publish("plant/secret", qos=1)
        honest.disconnect()
    return running.log.read_bytes()


def default_types(folder: Path, executable: str) -> bytes:
    """Mosquitto's own choice of log types: no publishes, no subscriptions."""
    types = [f"log_type {kind}" for kind in ("error", "warning", "notice", "information")]
    config = [*types, f"acl_file {acl_file(folder)}", f"password_file {password_file(folder)}"]
    with broker(folder, executable, *config) as running:
        _few_things(running)
    return running.log.read_bytes()


def _few_things(running: Mosquitto) -> None:
    client = Wire(running.port)
    client.connect("one", "alice", "secret")
    client.publish("ok/1", qos=1)
    client.subscribe(("ok/#", 0))
    wrong = Wire(running.port)
    wrong.connect("two", "alice", "guess")
    wrong.close()
    client.ping()
    second = Wire(running.port, version=5)
    second.connect("three")
    with contextlib.suppress(ConnectionError):
        Wire(running.port).connect("one too many")
    client.unsubscribe("ok/#")
    client.disconnect()
    second.close()


def no_debug(folder: Path, executable: str) -> bytes:
    """Subscriptions without debug lines: every line could be forged, and three are."""
    types = [f"log_type {kind}" for kind in ("error", "warning", "notice", "information", "subscribe", "unsubscribe")]
    with broker(folder, executable, *types) as running:
        _few_things(running)
        _forge(running.port)
        client = Wire(running.port)
        client.connect("a 0 b")
        client.subscribe(("c 1 d", 0), ("plain", 2))
        client.disconnect()
    return running.log.read_bytes()


def iso_times(folder: Path, executable: str) -> bytes:
    """`log_timestamp_format` in its usual form."""
    with broker(folder, executable, "log_timestamp_format %Y-%m-%dT%H:%M:%S") as running:
        _few_things(running)
    return running.log.read_bytes()


def no_times(folder: Path, executable: str) -> bytes:
    """`log_timestamp false`, and a protocol name that breaks a line."""
    with broker(folder, executable, "log_timestamp false") as running:
        _few_things(running)
        breaking = Wire(running.port)
        breaking.send(packet(0x10, text(b"\n0 0 x") + b"\x04\x02\0\x3c" + text("q")))
        breaking.wait_closed()
        breaking = Wire(running.port)
        breaking.send(packet(0x10, text(b"\n\n\n\n\n\n") + b"\x04\x02\0\x3c" + text("q")))
        breaking.wait_closed()
        _few_things(running)
    return running.log.read_bytes()


def reload_types(folder: Path, executable: str) -> bytes:
    """A reload that switches debug lines off."""
    with broker(folder, executable) as running:
        _few_things(running)
        lines = running.config.read_text().replace(
            "log_type all", "log_type error\nlog_type notice\nlog_type information"
        )
        running.config.write_text(lines)
        running.reload()
        wait_for(lambda: b"Reloading config." in running.log.read_bytes(), "the reload")
        _few_things(running)
    return running.log.read_bytes()


def common_names(folder: Path, executable: str) -> bytes:
    """Certificates' common names as user names, some with line breaks."""
    certificates = Certificates(folder / "tls")
    names = {
        "plain": "sensor-7",
        "quotes": 'dev "7", floor',
        "ending": "x').",
        "break": "evil\n1795426376: hello",
        "end": "evil\n1795426376: Client tls-plain disconnected.\n",
        "two": "evil').\n1795426376: mosquitto version 9 starting\n",
    }
    for file, common_name in names.items():
        certificates.issue(file, common_name[:64])
    config = certificates.listener("require_certificate true", "use_identity_as_username true")
    with broker(folder, executable, *config, listener=False, allow_anonymous=False) as running:
        for file in names:
            client = Wire(running.port, tls=certificates.context(file))
            if client.connect(f"tls-{file}") == 0:
                client.publish("ok/a", qos=1)
                client.subscribe((f"ok/{file}", 0))
                client.disconnect()
        with contextlib.suppress(OSError):
            Wire(running.port, tls=certificates.context()).connect("no certificate")
    return running.log.read_bytes()


def common_names_as_ids(folder: Path, executable: str) -> bytes:
    """The same where the user name becomes the client id: every line of such a client is broken."""
    certificates = Certificates(folder / "tls")
    certificates.issue("break", "evil\n1795426376: Client admin disconnected.\n")
    certificates.issue("plain", "sensor-7")
    config = certificates.listener(
        "require_certificate true", "use_identity_as_username true", "use_username_as_clientid true"
    )
    with broker(folder, executable, *config, listener=False, allow_anonymous=False) as running:
        for file in ("plain", "break", "plain"):
            client = Wire(running.port, tls=certificates.context(file))
            if client.connect("ignored") == 0:
                client.publish("ok/a", qos=1)
                client.subscribe((f"ok/{file}", 0))
                client.ping()
                client.disconnect()
    return running.log.read_bytes()


def bridges(folder: Path, executable: str) -> bytes:
    """One broker bridged to another; the log is the one that bridges."""
    with broker(folder / "far", executable) as far:
        config = [
            "connection north",
            f"address 127.0.0.1:{far.port}",
            "topic in/# in 1",
            "topic out/# out 1",
            "remote_clientid bridge-north",
        ]
        with mosquitto(folder / "near", [*ROOT, "log_type all", *config], executable=executable) as near:
            wait_for(lambda: b"Sending SUBACK to" in far.log.read_bytes(), "the bridge")
            remote, local = Wire(far.port), Wire(near.port)
            remote.connect("remote")
            local.connect("local")
            local.subscribe(("in/#", 1))
            remote.publish("in/a", qos=1)
            local.expect(3)
            local.publish("out/b", qos=1)
            wait_for(lambda: b"'out/b'" in far.log.read_bytes(), "the message on the far side")
            remote.disconnect()
            local.disconnect()
    return near.log.read_bytes()


SCENARIOS: Final[Sequence[Callable[[Path, str], bytes]]] = (
    everyday,
    hostile,
    default_types,
    no_debug,
    iso_times,
    no_times,
    reload_types,
    common_names,
    common_names_as_ids,
    bridges,
)


def main() -> None:
    """Record or decode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mosquitto", default=MOSQUITTO)
    parser.add_argument("--suffix", default="")
    parser.add_argument("--events", action="store_true")
    parser.add_argument("scenario", nargs="*")
    wanted = parser.parse_args()
    if wanted.events:
        for log in sorted(FOLDER.glob("*.log")):
            log.with_suffix(".events.jsonl").write_text(golden_lines(log.read_bytes()))
        return
    for scenario in SCENARIOS:
        if wanted.scenario and scenario.__name__ not in wanted.scenario:
            continue
        with tempfile.TemporaryDirectory() as folder:
            data = scenario(Path(folder), wanted.mosquitto)
        # The folder's name is of no interest, and no golden file should hold this machine's paths.
        data = data.replace(folder.encode(), b"/tmp/scenario")
        (FOLDER / f"{scenario.__name__.replace('_', '-')}{wanted.suffix}.log").write_bytes(data)


if __name__ == "__main__":
    main()
