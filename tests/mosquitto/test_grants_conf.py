"""What a mosquitto.conf would allow: who connects, by which rules, and what stays unknown; asked of the broker too."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.brokers import free_port, mosquitto
from tests.mosquitto.acl_asking import CONFIG, Asker, allows, broker_refuses, may_publish, may_read
from tests.mosquitto.plugin_mqtt import Client as Wire
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Action, Certainty, Client, Identity
from topicwarden.grants import Grants
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto import BROKER
from topicwarden_collectors.mosquitto.grants_logins import MADE_UP_ID, parse_names
from topicwarden_collectors.mosquitto.grants_read import read_grants

DYNSEC = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
OPTIONS = SourceOptions(broker="b")


def read(path: Path) -> Sequence[Grants]:
    return read_grants(str(path), OPTIONS)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "mosquitto.conf"
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a password_file (bob and a/b have passwords, others are passed over), a psk_file, an acl_file."""
    folder = tmp_path_factory.mktemp("secrets")
    passwords = folder / "passwords"
    passwords.touch(0o600)
    for user in ("bob", "a/b", "al "):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, "p"], check=True, capture_output=True)
    with passwords.open("a") as file:
        file.write("plain:p\nempty:\nwithout\n#gone:$7$1$x$y\n::bad:$7$101$AAAA$BBBB\n\n")
    (folder / "acl").write_text("topic write anonymous\nuser bob\ntopic write bob\npattern write %u/%c\n")
    (folder / "psk").write_text("dev:abcd\n")
    return folder


LOGINS = {
    "nothing": [],
    "anonymous": ["allow_anonymous true"],
    "passwords": ["password_file {folder}/passwords"],
    "passwords and anonymous": ["allow_anonymous true", "password_file {folder}/passwords"],
    "ids are names": ["allow_anonymous true", "listener {port} 127.0.0.1", "use_username_as_clientid true"],
    "per listener": ["per_listener_settings true", "allow_anonymous true", "listener {port} 127.0.0.1"],
    "per listener, its own": [
        "per_listener_settings true",
        "listener {port} 127.0.0.1",
        "password_file {folder}/passwords",
        "allow_anonymous true",
    ],
    "the default listener": ["port {port}", "bind_address 127.0.0.1"],
    "the default listener under per_listener_settings": ["per_listener_settings true", "port {port}"],
    "a dynamic security plugin that has no file": [f"plugin {DYNSEC}", "allow_anonymous true"],
}
NAMES = (
    None,
    "",
    "bob",
    "al",
    "al ",
    "a/b",
    "plain",
    "empty",
    "without",
    "gone",
    "bad",
    "nobody",
    "ü",
    "a\tb",
    "\ufdd0",
)


@pytest.mark.parametrize("lines", LOGINS.values(), ids=LOGINS.keys())
def test_whoever_the_broker_lets_in_has_rights_and_nobody_else(
    tmp_path: Path, secrets: Path, lines: Sequence[str]
) -> None:
    lines = [line.replace("{folder}", str(secrets)) for line in lines]
    if not any(line.startswith(("listener", "port")) for line in lines):
        lines = [*lines, "listener {port} 127.0.0.1"]
    with mosquitto(tmp_path, [*CONFIG, *lines], listener=False, allow_anonymous=False) as broker:
        (grants,) = read(broker.config)
        in_accounts = {account.user for account in grants.accounts}
        for user in NAMES:
            for client_id in ("id", "a/b", "#"):
                client = Wire(broker.port, client_id, user, "p" if user is not None else None, version=5)
                client.drop()
                assert (client.code == 0) == (grants.rights(Client("b", "mqtt", client_id, user)) is not None), user
                if client.code == 0 and grants.closed:
                    assert (user or None) in in_accounts


def test_no_hash_or_key_is_kept(secrets: Path, tmp_path: Path) -> None:
    conf = written(tmp_path, f"password_file {secrets}/passwords", "listener 1883")
    (grants,) = read(conf)
    assert [account.user for account in grants.accounts] == ["bob", "a/b", "al"]
    assert {account.identity for account in grants.accounts} == {Identity.VERIFIED}
    assert grants.closed
    assert "$7$" not in repr(grants.__dict__) + repr(
        [repr(vars(v)) for v in vars(grants).values() if hasattr(v, "__dict__")]
    )


@pytest.mark.parametrize(
    ("line", "usable"),
    [
        ("a:$7$101$" + "A" * 16 + "$" + "A" * 86 + "==", True),
        ("a:$6$" + "A" * 16 + "$" + "A" * 86 + "==", True),
        ("a:$7$0$" + "A" * 16 + "$" + "A" * 86 + "==", False),
        ("a:$7$101$" + "A" * 12 + "$" + "A" * 86 + "==", False),
        ("a:$7$101$" + "A" * 16 + "$" + "A" * 84, False),
        ("a:$5$" + "A" * 16 + "$" + "A" * 86 + "==", False),
        ("a:$7$101$" + "A" * 16, False),
        ("a:$", False),
        (" a : $6$" + "A" * 16 + "$" + "A" * 86 + "== :more", True),
    ],
)
def test_only_hashes_the_broker_can_read_are_accounts(tmp_path: Path, line: str, usable: bool) -> None:
    names = parse_names(line.encode(), hashed=True)
    assert (tuple(names.usable), names.unusable) == ((("a",), frozenset()) if usable else ((), frozenset("a")))
    (tmp_path / "passwords").write_text(line + "\n")
    with mosquitto(tmp_path, ["user root", f"password_file {tmp_path}/passwords"], allow_anonymous=False) as broker:
        said = broker.log.read_text()
    assert ("removing entry" not in said) == usable, said


def test_keys_of_a_psk_file_are_accounts_when_they_are_the_user_names(tmp_path: Path, secrets: Path) -> None:
    (tmp_path / "acl").write_text("user dev\ntopic write dev\nuser bob\ntopic write bob\n")
    lines = [f"psk_file {secrets}/psk", f"acl_file {tmp_path}/acl", "listener {port} 127.0.0.1", "psk_hint x"]
    config = ["user root", *lines, "use_identity_as_username true"]
    with mosquitto(tmp_path, config, listener=False, allow_anonymous=False) as broker:
        (grants,) = read(broker.config)
        assert grants.closed
        assert grants.rights(Client("b", "mqtt", "id", "bob")) is None
        assert {account.user: account.identity for account in grants.accounts} == {
            "dev": Identity.VERIFIED,
            "bob": Identity.UNKNOWN,
        }
        for topic in ("dev", "bob"):
            command = ["mosquitto_pub", "-V", "5", "-h", "127.0.0.1", "-p", str(broker.port), "-u", "bob", "-i", "id"]
            command += ["--psk", "abcd", "--psk-identity", "dev", "-q", "1", "-m", "x", "-t", topic]
            said = subprocess.run(command, capture_output=True, check=True, timeout=20)
            rights = grants.rights(Client("b", "mqtt", "id", "dev"))
            assert allows(rights, Action.PUBLISH, topic) == (b"Not authorized" not in said.stderr), said.stderr


def test_without_an_acl_file_everything_is_allowed_but_what_the_broker_itself_refuses(tmp_path: Path) -> None:
    topics = ["a", "/", "$foo/x", "$", "$CONTROL", "$CONTROL/x", "$queue/x", "$SYS/x", "$SYS", "$SYSTEM/x", "$SYSx"]
    topics += ["$SYS/broker/connection/b/state", "$SYS/broker/connection/state", "$SYS/broker/connection//state"]
    topics += ["$SYS/broker/connection/b/state/x", "$share/g/x", "$share", "$shared/x", "$shar/x", "$sys/x"]
    with mosquitto(tmp_path, [*CONFIG]) as broker:
        (grants,) = read(broker.config)
        assert [origin.text for origin in grants.origins] == ["(no acl_file)"]
        asker = Asker("bob", "id")
        rights = grants.rights(asker.at())
        for topic, allowed in may_publish(broker, asker, topics).items():
            assert allows(rights, Action.PUBLISH, topic) == allowed == (not broker_refuses(topic)), topic
        for topic, allowed in may_read(broker, asker, topics).items():
            assert allows(rights, Action.SUBSCRIBE, topic) == allowed, topic


def test_an_empty_acl_file_allows_nothing(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("# nothing yet\n")
    with mosquitto(tmp_path, [*CONFIG, f"acl_file {tmp_path}/acl"]) as broker:
        (grants,) = read(broker.config)
        asker = Asker("bob", "id")
        assert may_publish(broker, asker, ["a"]) == {"a": False}
        assert not allows(grants.rights(asker.at()), Action.PUBLISH, "a")


def test_each_listener_has_grants_of_its_own_under_per_listener_settings(tmp_path: Path) -> None:
    other = free_port()
    (tmp_path / "one").write_text("topic write one\n")
    (tmp_path / "two").write_text("topic write two\n")
    lines = ["per_listener_settings true", "user root", "listener {port} 127.0.0.1", f"acl_file {tmp_path}/one"]
    lines += ["allow_anonymous true", f"listener {other} 127.0.0.1", f"acl_file {tmp_path}/two", "allow_anonymous true"]
    with mosquitto(tmp_path, lines, listener=False, allow_anonymous=False) as broker:
        one, two = read(broker.config)
        assert (str(broker.port) in one.title, str(other) in two.title) == (True, True)
        for port, grants in ((broker.port, one), (other, two)):
            with Wire(port, "id", version=5) as client:
                for topic in ("one", "two"):
                    allowed = client.publish(topic, qos=1) != 0x87
                    assert allows(grants.rights(Client("b", "mqtt", "id")), Action.PUBLISH, topic) == allowed


def test_client_ids_are_user_names_where_the_listener_says_so(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("pattern write c/%c\npattern write u/%u\n")
    lines = ["user root", "allow_anonymous true", f"acl_file {tmp_path}/acl", "listener {port} 127.0.0.1"]
    topics = ["c/bob", "c/id", "u/bob", "c/#x", "u/#x"]
    with mosquitto(
        tmp_path, [*lines, "use_username_as_clientid true"], listener=False, allow_anonymous=False
    ) as broker:
        (grants,) = read(broker.config)
        for asker in (Asker("bob", "id"), Asker("bob", "+"), Asker("#x", "id")):
            valid = [topic for topic in topics if "#" not in topic]
            for topic, allowed in may_publish(broker, asker, valid).items():
                assert allows(grants.rights(asker.at()), Action.PUBLISH, topic) == allowed, (asker, topic)
    assert not [fault for fault in grants.faults if fault.code == "TW115" and "%c" in str(fault.evidence["reason"])]


def test_the_broker_makes_up_an_id_for_a_client_without_one(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("pattern write c/%c\n")
    for more, prefix in (([], "auto-"), (["auto_id_prefix x-"], "x-")):
        (grants,) = read(written(tmp_path, "listener 1883", "allow_anonymous true", f"acl_file {tmp_path}/acl", *more))
        rights = grants.rights(Client("b", "mqtt", ""))
        assert allows(rights, Action.PUBLISH, f"c/{prefix}{MADE_UP_ID}")
        assert not allows(rights, Action.PUBLISH, "c/")


def test_users_nobody_verifies_are_said_to_be_so(tmp_path: Path, secrets: Path) -> None:
    (tmp_path / "acl").write_text("user bob\ntopic write a\ntopic read b\npattern write %u/#\n")
    lines = ["listener 1883", f"acl_file {tmp_path}/acl"]
    (open_to_all,) = read(written(tmp_path, *lines, "allow_anonymous true"))
    assert not open_to_all.closed
    assert any("nothing verifies user names" in spot for spot in open_to_all.blind_spots)
    told = [(fault.origin.line, fault.code, fault.evidence["reason"]) for fault in open_to_all.faults]
    assert told == [
        (2, "TW115", "nothing verifies user names here, so anybody can say that he is 'bob'"),
        (4, "TW115", "nothing verifies user names here, so %u is whatever a client says"),
    ]
    (with_passwords,) = read(written(tmp_path, *lines, f"password_file {secrets}/passwords"))
    assert with_passwords.closed
    assert with_passwords.faults == ()


def test_entries_for_users_that_cannot_log_in_have_no_effect(tmp_path: Path, secrets: Path) -> None:
    (tmp_path / "acl").write_text(
        "topic read a\nuser plain\ntopic read a\nuser ghost\ntopic deny a\nuser bob\ntopic read a\n"
        "user x\x01\ntopic a\n"
    )
    lines = ["listener 1883", f"acl_file {tmp_path}/acl", f"password_file {secrets}/passwords"]
    (grants,) = read(written(tmp_path, *lines))
    assert {fault.code for fault in grants.faults} == {"TW105"}
    nobody = "so nobody can log in under that name"
    assert [(fault.origin.line, fault.evidence["reason"]) for fault in grants.faults] == [
        (1, "it is for clients without a user name, and the broker refuses them"),
        (3, f"user 'plain' has no hash in the password_file that the broker can read, {nobody}"),
        (5, f"user 'ghost' has no account, {nobody}"),
        (9, "user name 'x\\x01' holds characters that the broker takes in no user name"),
    ]


def test_certificates_leave_it_open_who_connects(tmp_path: Path, secrets: Path) -> None:
    tls = ["certfile /c", "keyfile /k", "cafile /ca", "require_certificate true", "use_subject_as_username true"]
    (grants,) = read(written(tmp_path, f"password_file {secrets}/passwords", "listener 8883", *tls))
    assert not grants.closed
    assert "come from certificates" in grants.blind_spots[0]
    assert grants.rights(Client("b", "mqtt", "id", "whoever")) is not None
    assert grants.rights(Client("b", "mqtt", "id")) is None
    # Without TLS the option is passed over.
    (plain,) = read(written(tmp_path, f"password_file {secrets}/passwords", "listener 8883", tls[-1]))
    assert plain.closed


def test_an_unknown_plugin_beside_an_acl_file_makes_every_rule_inferred(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("user bob\ntopic write a\n")
    lines = ["plugin /usr/lib/other.so", "listener 1883", f"acl_file {tmp_path}/acl"]
    (grants,) = read(written(tmp_path, *lines))
    rights = grants.rights(Client("b", "mqtt", "id", "bob"))
    assert rights is not None
    for rules in rights.by.values():
        assert {rule.certainty for rule in rules.rules} == {Certainty.INFERRED}
        assert not rules.rules[-1].allow
    assert [(fault.code, fault.origin.where) for fault in grants.faults if fault.code == "TW114"] == [
        ("TW114", f"{tmp_path}/mosquitto.conf:1")
    ]
    assert not grants.closed


def test_an_unknown_plugin_alone_leaves_nothing_to_judge(tmp_path: Path) -> None:
    (grants,) = read(written(tmp_path, "plugin /usr/lib/other.so", "listener 1883"))
    assert grants.rights(Client("b", "mqtt", "id", "bob")) is None
    assert [fault.code for fault in grants.faults] == ["TW114"]
    assert grants.blind_spots


@pytest.mark.parametrize(("told", "exact"), [("auth", True), ("acl", False), ("auth,acl", False), (None, False)])
def test_our_plugin_changes_nothing_and_may_say_what_others_decide(
    tmp_path: Path, told: str | None, exact: bool
) -> None:
    (tmp_path / "acl").write_text("user bob\ntopic write a\n")
    ours = ["plugin /usr/lib/topicwarden_mosquitto.so"]
    (grants,) = read(written(tmp_path, *ours, "listener 1883", f"acl_file {tmp_path}/acl", "allow_anonymous true"))
    assert not [fault for fault in grants.faults if fault.code == "TW114"]
    if told is not None:
        ours.append(f"plugin_opt_other_plugins {told}")
    others = [*ours, "plugin /usr/lib/other.so", "listener 1883", f"acl_file {tmp_path}/acl"]
    (grants,) = read(written(tmp_path, *others))
    assert ("TW114" not in {fault.code for fault in grants.faults}) == exact


def test_dynamic_security_and_an_acl_file_are_both_read_and_neither_is_certain(tmp_path: Path) -> None:
    (tmp_path / "ds.json").write_text('{"clients": [], "roles": [], "groups": [], "defaultACLAccess": {}}')
    (tmp_path / "acl").write_text("user bob\ntopic write a\n")
    dynsec = [f"plugin {DYNSEC}", f"plugin_opt_config_file {tmp_path}/ds.json"]
    (alone,) = read(written(tmp_path, *dynsec, "listener 1883"))
    assert not [fault for fault in alone.faults if fault.code == "TW114"]
    both = read(written(tmp_path, *dynsec, "listener 1883", f"acl_file {tmp_path}/acl"))
    assert len(both) == 2
    for grants in both:
        assert "TW114" in {fault.code for fault in grants.faults}
        assert any("nothing here is certain" in spot for spot in grants.blind_spots)


def test_mount_points_prefixes_and_bridges_are_blind_spots(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic write a\n")
    lines = ["clientid_prefixes dev-", f"acl_file {tmp_path}/acl", "allow_anonymous true", "listener 1883"]
    bridge = ["mount_point m/", "connection far", "address far.example", "topic # both 0 in/ out/", "topic a out"]
    (grants,) = read(written(tmp_path, *lines, *bridge))
    spots = "\n".join(grants.blind_spots)
    assert "'m/' before every topic" in spots
    assert "'dev-'" in spots
    assert "bridge 'far' brings in 'in/#' past every grant" in spots
    rights = grants.rights(Client("b", "mqtt", "id"))
    assert rights is not None
    assert {rule.certainty for rules in rights.by.values() for rule in rules.rules} == {Certainty.INFERRED}


def test_all_problems_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read a\ntopics read b\nuser\ntopic reed c\n")
    lines = ["allow_anonymous maybe", f"acl_file {tmp_path}/acl", "password_file /nowhere/passwords", "frobnicate on"]
    with pytest.raises(ConfigurationError) as caught:
        read(written(tmp_path, *lines, "listener 1883"))
    conf, acl = f"{tmp_path}/mosquitto.conf", f"{tmp_path}/acl"
    assert sorted((problem.file or "", problem.line or 0) for problem in caught.value.problems) == sorted(
        [(conf, 1), (conf, 3), (conf, 4), (acl, 2), (acl, 3), (acl, 4)]
    )


def test_a_bad_acl_file_alone_is_refused_with_every_line(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topics read a\ntopic read a\ntopic read b\npattern read #/a\n")
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path / "acl")
    assert [problem.line for problem in caught.value.problems] == [1, 4]


@pytest.mark.parametrize("source", ["mqtt://127.0.0.1", "ring:/run/x.ring", "log:/var/log/mosquitto/mosquitto.log"])
def test_what_holds_no_grants_says_what_does(source: str) -> None:
    with pytest.raises(ConfigurationError, match=r"mosquitto\.conf"):
        read_grants(source, OPTIONS)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no file"):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "text", "ours"),
    [
        ("acl", "user bob\ntopic read a\n", True),
        ("acl", "\n# who may what\npattern write %u/#\n", True),
        ("some.acl", "# nothing\n", True),
        ("acl.conf", "topic read a\n", True),
        ("notes.txt", "user guide\nThis is how it works\ntopic by topic\n", False),
        ("notes.txt", "user guide\n", False),
        ("empty", "", False),
        ("dynamic-security.json", '{"defaultACLAccess": {"subscribe": true}, "clients": []}', True),
        ("x.json", '{\n  "clients": [], "roles": [{"rolename": "a", "acls": []}]}', True),
        ("definitions.json", '{"users": [], "vhosts": [{"name": "/"}], "permissions": []}', False),
        ("clients.json", '{"clients": [1, 2]}', False),
        ("events.jsonl", '{"time": 1, "topic": "a"}\n', False),
        ("rabbitmq.conf", "listeners.tcp.default = 5672\n", False),
        ("rabbitmq.log", "2026-01-01 10:00:00.000 [info] <0.1.0> accepting AMQP connection\n", False),
    ],
)
def test_files_of_grants_are_recognised_by_what_is_in_them(name: str, text: str, ours: bool) -> None:
    assert BROKER.recognises(f"/etc/{name}", text.encode()) is ours


def test_a_configuration_is_not_taken_for_an_acl_file(tmp_path: Path) -> None:
    path = tmp_path / "bridges.txt"
    topics = [f"topic a{number} in" for number in range(40)]
    path.write_text("\n".join(["user mosquitto", "connection x", "address y", *topics, ""]))
    (grants,) = read(path)
    assert [origin.text for origin in grants.origins] == ["(no acl_file)"]


_words = ["topic", "pattern", "user", "read", "deny", "#", "%u/%c", "\0", "a", "listener", "1883", "acl_file", "plugin"]
_words += ["per_listener_settings", "true", "password_file", "/dev/null", "{", "}", '"roles":', "[", "]", "mount_point"]
_words += ["allow_anonymous", "psk_file", "psk_hint", "use_identity_as_username", "\ud800", "\x01", "ü", "$SYS/#"]
_line = st.lists(st.sampled_from(_words), max_size=6).map(" ".join)


_text = st.lists(_line, max_size=8).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=200), _text), st.sampled_from(["acl", "mosquitto.conf", "x.acl"]))
def test_whatever_a_file_holds_it_is_read_or_refused(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        found: Sequence[Grants] = ()
        problems: Sequence[Problem] | None = None
        try:
            found = read(path)
        except ConfigurationError as error:
            problems = error.problems
        assert problems is None or problems
        for grants in found:
            strangers = [Client("b", "mqtt", "id", user) for user in ("x", "\ud800", "+", "a/b")]
            for account in [*grants.accounts, *strangers]:
                rights = grants.rights(account)
                assert rights is None or {Action.PUBLISH, Action.SUBSCRIBE} == {action for action, _ in rights.by}
            assert all(fault.evidence["reason"] for fault in grants.faults)
