"""What the ring says the broker decided is what the broker's own log says, and what its clients were told."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import wait_for
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_cases import (
    DYNAMIC_SECURITY,
    PLUGIN_HERE,
    Case,
    Running,
    compile_other,
    reload,
    running,
)
from tests.mosquitto.plugin_events import read_events
from tests.mosquitto.plugin_mqtt import Client
from tests.mosquitto.plugin_sanitizer import sanitizer_environment

LOGGED_PUBLISH = re.compile(
    r"(Received|Denied) PUBLISH from (\S+) \(d\d, q(\d), r(\d), m\d+, '([^']*)', \.\.\. \((\d+) bytes\)\)"
)
ACL_AND_PASSWORDS = ["acl_file {folder}/acl", "password_file {folder}/passwords", "allow_anonymous true"]
Row = dict[str, Any]


def rows_of(run: Running) -> list[Row]:
    """Stop the broker and return all events."""
    assert run.broker.stop() == 0
    rows, counters = read_events(run.ring)
    assert not counters.decode_errors
    assert not counters.unresolved
    assert not counters.lost
    return rows


def seen(rows: list[Row], *actions: str) -> list[tuple[Any, ...]]:
    """Return action, client id, user, identity, outcome and certainty of the events with these actions."""
    return [
        (
            row["action"],
            row["client"]["client_id"],
            row["client"].get("user"),
            row["client"]["identity"],
            row["outcome"],
            row["certainty"],
        )
        for row in rows
        if row["action"] in actions
    ]


@pytest.mark.parametrize("variant", ["release", "asan"])
def test_each_of_4000_random_publishes_has_the_decision_the_brokers_log_gives_it(variant: str, tmp_path: Path) -> None:
    environment = sanitizer_environment() if variant == "asan" else None
    case = Case("random", [*ACL_AND_PASSWORDS, "check_retain_source true"])
    chance = random.Random(7)
    wills = 0
    with running(case, tmp_path / "run", build_plugin(variant), None, environment) as run:
        logins = [
            ("a", "alice", "right", 4),
            ("b", "bob", "right", 5),
            ("c", None, None, 4),
            ("d", "alice", "right", 5),
        ]

        def connect(number: int) -> Client:
            name, user, password, version = logins[number]
            topic = chance.choice(["open/up", "secret/z"])
            return Client(run.ports[0], name, user, password, version=version, will=(topic, b"will"))

        clients = [connect(i) for i in range(len(logins))]
        topics = [
            "open/up",
            "open/x",
            "alice/1",
            "last/1",
            "secret/1",
            "own/a/1",
            "own/b/1",
            "nobody/1",
            "open/deep/er",
        ]
        for number in range(4000):
            which = chance.randrange(len(clients))
            topic = chance.choice(topics) if chance.random() < 0.9 else f"open/{number}"
            payload, qos, retain = b"x" * chance.randrange(40), chance.randrange(3), chance.random() < 0.2
            clients[which].publish(topic, payload, qos, retain=retain)
            if number % 250 == 100:
                clients[which].drop()
                clients[which] = connect(which)
                wills += 1
            if number % 100 == 50:
                with Client(run.ports[0], "reader", "alice", "right") as reader:
                    reader.subscribe("#")
                    reader.ping()
        for client in clients:
            client.ping()
            client.disconnect()
        rows = rows_of(run)
        log = run.broker.log.read_text()
    logged = [
        (name, topic, int(size), int(qos), int(retain), "allowed" if verb == "Received" else "denied")
        for verb, name, qos, retain, topic, size in LOGGED_PUBLISH.findall(log)
    ]
    published = [row for row in rows if row["action"] == "publish"]
    decided = [row for row in published if row["outcome"] != "unknown"]
    found = [
        (
            row["client"]["client_id"],
            row["resource"]["name"],
            row["size"],
            row["qos"],
            row["retain"],
            row["outcome"],
        )
        for row in decided
    ]
    assert found == logged
    assert len(logged) == 4000
    assert 1000 < sum(1 for one in logged if one[-1] == "denied") < 3000
    assert {(row["outcome"], row["certainty"]) for row in decided} == {("allowed", "exact"), ("denied", "inferred")}
    undecided = [row for row in published if row["outcome"] == "unknown"]
    assert len(undecided) == wills
    assert {row["resource"]["name"] for row in undecided} <= {"open/up", "secret/z"}
    assert {row["client"]["client_id"] for row in undecided} <= {"a", "b", "c", "d"}


def test_logins_have_the_outcome_the_client_was_told_and_say_how_far_the_name_is_vouched_for(tmp_path: Path) -> None:
    case = Case("logins", ACL_AND_PASSWORDS)
    with running(case, tmp_path / "run", build_plugin(), None) as run:
        codes = []
        for number, (user, password) in enumerate(
            [(None, None), ("alice", "right"), ("alice", "wrong"), ("ghost", "x"), ("bob", None)]
        ):
            client = Client(run.ports[0], f"c{number}", user, password, version=4 + number % 2)
            codes.append(client.code == 0)
            client.disconnect()
        rows = rows_of(run)
    assert codes == [True, True, False, False, False]
    assert seen(rows, "authenticate", "connect", "disconnect") == [
        ("authenticate", "c0", None, "anonymous", "allowed", "inferred"),
        ("disconnect", "c0", None, "anonymous", "allowed", "exact"),
        ("authenticate", "c1", "alice", "verified", "allowed", "inferred"),
        ("disconnect", "c1", "alice", "verified", "allowed", "exact"),
        ("authenticate", "c2", "alice", "claimed", "denied", "inferred"),
        ("authenticate", "c3", "ghost", "claimed", "denied", "inferred"),
        ("authenticate", "c4", "bob", "claimed", "denied", "inferred"),
    ]


def test_a_user_name_that_nothing_checks_is_only_claimed(tmp_path: Path) -> None:
    with running(Case("open", ["allow_anonymous true"]), tmp_path / "run", build_plugin(), None) as run:
        Client(run.ports[0], "c", "alice", "whatever").disconnect()
        rows = rows_of(run)
    assert seen(rows, "authenticate") == [("authenticate", "c", "alice", "claimed", "allowed", "exact")]


def test_a_deciding_plugin_vouches_for_a_user_name(tmp_path: Path) -> None:
    with running(Case("dynsec", [PLUGIN_HERE, *DYNAMIC_SECURITY]), tmp_path / "run", build_plugin(), None) as run:
        with Client(run.ports[0], "c", "alice", "right") as client:
            answers = [client.publish("open/a", qos=1), client.publish("secret/a", qos=1)]
            codes = [client.subscribe("open/#"), client.subscribe("secret/#")]
        Client(run.ports[0], "d", "alice", "wrong").disconnect()
        rows = rows_of(run)
    assert answers == [0, 0]  # MQTT 3.1.1 has no word for a denied publish
    assert codes == [0, 128]
    assert seen(rows, "authenticate") == [
        ("authenticate", "c", "alice", "verified", "allowed", "inferred"),
        ("authenticate", "d", "alice", "claimed", "denied", "inferred"),
    ]
    publishes = [(row["resource"]["name"], row["outcome"]) for row in rows if row["action"] == "publish"]
    assert publishes == [("open/a", "allowed"), ("secret/a", "denied")]
    # Which of the two dynamic security granted it does not say.
    subscribes = [(row["outcome"], row["certainty"]) for row in rows if row["action"] == "subscribe"]
    assert subscribes == [("unknown", "unknown")] * 2


@pytest.mark.parametrize(
    ("lines", "certainty"),
    [(["allow_anonymous true"], "exact"), (["allow_anonymous true", "acl_file {folder}/acl"], "inferred")],
)
def test_a_subscription_is_granted_exactly_when_nobody_decides_and_by_inference_with_an_acl_file(
    lines: list[str], certainty: str, tmp_path: Path
) -> None:
    with running(Case("subscribe", lines), tmp_path / "run", build_plugin(), None) as run:
        with Client(run.ports[0], "c") as client:
            codes = [client.subscribe("open/#", 1), client.subscribe("secret/#"), client.subscribe("$share/g/open/#")]
            client.unsubscribe("open/#")
            reload(run)
            codes.append(client.subscribe("again/#", 2))
        rows = rows_of(run)
    assert codes == [1, 0, 0, 2]
    subscribes = [row for row in rows if row["action"] in {"subscribe", "unsubscribe"}]
    assert [(row["action"], row["resource"]["name"], row["outcome"], row["certainty"]) for row in subscribes] == [
        ("subscribe", "open/#", "allowed", certainty),
        ("subscribe", "secret/#", "allowed", certainty),
        ("subscribe", "$share/g/open/#", "allowed", certainty),
        ("unsubscribe", "open/#", "allowed", certainty),
        ("subscribe", "again/#", "allowed", certainty),
    ]
    assert [row.get("qos") for row in subscribes] == [1, 0, 0, None, 2]


def test_a_take_over_and_a_stored_session_end_each_session_once(tmp_path: Path) -> None:
    with running(Case("open", ["allow_anonymous true"]), tmp_path / "run", build_plugin(), None) as run:
        port = run.ports[0]
        first = Client(port, "same", clean=False)
        first.subscribe("a")
        second = Client(port, "same", clean=False)  # takes the session over from a connected client
        second.disconnect()
        third = Client(port, "same", clean=False)  # and from one that was away
        third.drop()
        fourth = Client(port, "same", clean=True)
        fourth.publish("a", qos=1)
        fourth.disconnect()
        first.drop()
        rows = rows_of(run)
    assert [row["action"] for row in rows] == [
        "authenticate",
        "subscribe",
        "authenticate",
        "disconnect",
        "disconnect",
        "authenticate",
        "disconnect",
        "authenticate",
        "publish",
        "disconnect",
    ]


def test_a_reload_checks_everybodys_password_again_and_that_is_no_login(tmp_path: Path) -> None:
    case = Case(
        "reload",
        ACL_AND_PASSWORDS,
        [*ACL_AND_PASSWORDS[:1], "password_file {folder}/passwords_other", "allow_anonymous true"],
    )
    with running(case, tmp_path / "run", build_plugin(), None) as run:
        port = run.ports[0]
        Client(port, "away", "alice", "right", clean=False).disconnect()
        alice, anonymous = Client(port, "a", "alice", "right"), Client(port, "n")
        reload(run)
        assert anonymous.ping()
        assert not alice.ping()
        later = Client(port, "l", "alice", "changed")
        assert later.code == 0
        reload(run)
        assert later.ping()
        rows = rows_of(run)
        anonymous.disconnect()
        later.disconnect()
    assert [(row["client"]["client_id"], row["outcome"]) for row in rows if row["action"] == "authenticate"] == [
        ("away", "allowed"),
        ("a", "allowed"),
        ("n", "allowed"),
        ("l", "allowed"),
    ]
    assert [row["client"]["client_id"] for row in rows if row["action"] == "disconnect"][:2] == ["away", "a"]
    assert not [row for row in rows if row["action"] == "connect"]


def test_listeners_with_different_settings_are_told_apart(tmp_path: Path) -> None:
    lines = ["per_listener_settings true"]
    for name, *settings in (
        ("port", "allow_anonymous true"),
        ("port2", "password_file {folder}/passwords"),
        ("port3", "acl_file {folder}/acl", "allow_anonymous true"),
    ):
        lines += [f"listener {{{name}}} 127.0.0.1", PLUGIN_HERE, *settings]
    with running(Case("listeners", lines, ports=3), tmp_path / "run", build_plugin(), None) as run:
        for number, port in enumerate(run.ports):
            with Client(port, f"c{number}", "alice", "right") as client:
                client.publish("secret/a", qos=1)
                client.subscribe("open/#")
            Client(port, f"w{number}", "alice", "wrong").disconnect()
        rows = rows_of(run)
    assert seen(rows, "authenticate", "publish", "subscribe") == [
        ("authenticate", "c0", "alice", "claimed", "allowed", "exact"),
        ("publish", "c0", "alice", "claimed", "allowed", "exact"),
        ("subscribe", "c0", "alice", "claimed", "allowed", "exact"),
        ("authenticate", "w0", "alice", "claimed", "allowed", "exact"),
        ("authenticate", "c1", "alice", "verified", "allowed", "inferred"),
        ("publish", "c1", "alice", "verified", "allowed", "exact"),
        ("subscribe", "c1", "alice", "verified", "allowed", "exact"),
        ("authenticate", "w1", "alice", "claimed", "denied", "inferred"),
        ("authenticate", "c2", "alice", "claimed", "allowed", "exact"),
        ("publish", "c2", "alice", "claimed", "denied", "inferred"),
        ("subscribe", "c2", "alice", "claimed", "allowed", "inferred"),
        ("authenticate", "w2", "alice", "claimed", "allowed", "exact"),
    ]


def test_a_certificates_name_is_verified_and_its_subject_known(tmp_path: Path) -> None:
    for name, subject, issuer in (("ca", "/CN=test ca", None), ("server", "/CN=localhost", "ca"), ("dev", "", "ca")):
        subject = subject or "/O=Plant/CN=device \\/ 7, \u00fc"
        command = ["openssl", "req", "-x509" if not issuer else "-new", "-newkey", "rsa:2048", "-nodes", "-utf8"]
        command += ["-subj", subject, "-keyout", f"{name}.key", "-out", f"{name}.{'crt' if not issuer else 'csr'}"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        if issuer:
            sign = ["openssl", "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key"]
            subprocess.run(
                [*sign, "-CAcreateserial", "-out", f"{name}.crt"], cwd=tmp_path, check=True, capture_output=True
            )
    tls = [f"cafile {tmp_path}/ca.crt", f"certfile {tmp_path}/server.crt", f"keyfile {tmp_path}/server.key"]
    lines = ["allow_anonymous false", "listener {port} 127.0.0.1", *tls]
    case = Case("tls", [*lines, "require_certificate true", "use_identity_as_username true"])
    with running(case, tmp_path / "run", build_plugin(), None) as run:
        files = (f"{tmp_path}/ca.crt", f"{tmp_path}/dev.crt", f"{tmp_path}/dev.key")
        with Client(run.ports[0], "c", certificate=files) as client:
            assert client.code == 0
            client.publish("a", qos=1)
        rows = rows_of(run)
    user = "device / 7, \u00fc"
    assert seen(rows, "authenticate", "connect", "publish", "disconnect") == [
        ("connect", "c", user, "verified", "allowed", "inferred"),
        ("publish", "c", user, "verified", "allowed", "exact"),
        ("disconnect", "c", user, "verified", "allowed", "exact"),
    ]
    assert rows[0]["client"]["tls_subject"] == "CN=device / 7\\, \u00fc,O=Plant"


def test_a_unix_sockets_client_and_a_control_message_are_seen(tmp_path: Path) -> None:
    lines = ["allow_anonymous true", "listener {port} 127.0.0.1", "listener 0 {folder}/socket"]
    with running(Case("unix", lines), tmp_path / "run", build_plugin(), None) as run:
        with Client(str(run.folder / "socket"), "c", version=5) as client:
            client.publish("a", b'{"temperature": 20}', 1, retain=True)
            client.publish("$CONTROL/x/v1", qos=1)
            client.publish("", qos=0)
        rows = rows_of(run)
    published = [row for row in rows if row["action"] == "publish"]
    assert [(row["resource"]["name"], row["outcome"]) for row in published] == [
        ("a", "allowed"),
        ("$CONTROL/x/v1", "unknown"),
    ]
    assert published[0]["shape"] == "json"
    assert published[0]["retain"] == 1
    assert published[0]["client"]["address"] == str(run.folder / "socket")


def test_a_bridge_is_seen_by_its_messages_alone(tmp_path: Path) -> None:
    with running(Case("far", ["allow_anonymous true"]), tmp_path / "far", None, None) as far:
        bridge = ["connection far", f"address 127.0.0.1:{far.ports[0]}", "topic # in 1", "notifications false"]
        case = Case("near", ["allow_anonymous true", "acl_file {folder}/acl", "listener {port} 127.0.0.1", *bridge])
        with running(case, tmp_path / "near", build_plugin(), None) as near:
            wait_for(
                lambda: "as local" in far.broker.log.read_text() or "SUBSCRIBE" in far.broker.log.read_text(), "it"
            )
            with Client(far.ports[0], "sender") as sender:
                sender.publish("secret/1", qos=1)
            wait_for(lambda: any(r["action"] == "publish" for r in read_events(near.ring)[0]), "the bridged message")
            rows = rows_of(near)
    bridged = [row for row in rows if row["action"] == "publish"]
    assert [(row["resource"]["name"], row["outcome"], row["client"]["identity"]) for row in bridged] == [
        ("secret/1", "allowed", "unknown")
    ]
    assert bridged[0]["client"]["client_id"].startswith("local.")


def test_an_unknown_plugin_leaves_only_accepted_publishes_and_no_guesses(tmp_path: Path) -> None:
    other = compile_other(tmp_path)
    case = Case("other", [PLUGIN_HERE, "plugin {other}", "allow_anonymous true"])
    with running(case, tmp_path / "run", build_plugin(), other) as run:
        with Client(run.ports[0], "c", "alice", "x") as client:
            for topic in ("open/a", "secret/a"):
                client.publish(topic, qos=1)
            client.subscribe("open/#")
        rows = rows_of(run)
        log = run.broker.log.read_text()
    assert [(row["action"], row["outcome"]) for row in rows] == [
        ("connect", "allowed"),
        ("publish", "allowed"),
        ("disconnect", "allowed"),
    ]
    assert rows[0]["client"]["identity"] == "unknown"
    assert "plugin_opt_other_plugins" in log


def test_deliveries_are_recorded_when_asked_for(tmp_path: Path) -> None:
    case = Case("deliver", ["allow_anonymous true"], options=["plugin_opt_deliver all"])
    with running(case, tmp_path / "run", build_plugin(), None) as run:
        with Client(run.ports[0], "reader") as reader, Client(run.ports[0], "writer") as writer:
            reader.subscribe("open/#")
            writer.publish("open/a", qos=1)
            reader.ping()
        rows = rows_of(run)
    delivered = [row for row in rows if row["action"] == "deliver"]
    assert [(row["client"]["client_id"], row["resource"]["name"], row["outcome"]) for row in delivered] == [
        ("reader", "open/a", "allowed")
    ]


def test_wrong_options_are_named_and_the_broker_starts(tmp_path: Path) -> None:
    options = ["slots 1000", "mode 999", "entropy maybe", "deliver some", "other_plugins all", "sl0ts 4"]
    case = Case("options", ["allow_anonymous true"], options=[f"plugin_opt_{option}" for option in options])
    with running(case, tmp_path / "run", build_plugin(), None) as run:
        Client(run.ports[0], "c").disconnect()
        rows_of(run)
        log = run.broker.log.read_text()
    for option in options:
        assert f"plugin_opt_{option.split()[0]}" in log
    assert run.ring.stat().st_size == 4096 + 32 * 65536  # the valid line before the wrong one
    assert run.ring.stat().st_mode & 0o777 == 0o640
