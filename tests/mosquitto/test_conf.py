"""mosquitto.conf as our reader takes it, held against the running broker wherever the broker can say."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.brokers import MOSQUITTO, free_port, mosquitto, port_answers, wait_for
from tests.mosquitto.broker_verdict import Client, verdict
from topicwarden.errors import ConfigurationError
from topicwarden_collectors.mosquitto.conf import Configuration, Origin, read_configuration
from topicwarden_collectors.mosquitto.conf_files import include_order
from topicwarden_collectors.mosquitto.conf_options import OPTIONS


def read(folder: Path, text: str | bytes, name: str = "mosquitto.conf") -> Configuration:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_configuration(str(path))


def rejected_lines(configuration: Configuration) -> list[int]:
    problems = [problem.line or 0 for problem in configuration.refused]
    return sorted([*problems, *[setting.line for setting in configuration.unknown]])


ACCEPTED = [
    "",
    "# only a comment\n\n\r\n   \n",
    "listener 21883 127.0.0.1\nallow_anonymous true\n",
    "listener 21883 # every address\n",
    "allow_anonymous   true   and this is passed over\n",
    "acl_file   /a path/with blanks  \n",
    "max_connections abc\n",
    "sys_interval 5x\n",
    "log_type all\nlog_type none\nlog_type debug # trailing words are passed over\n",
    "log_dest stdout\nlog_dest file   /var/log/a  b\n",
    "port 21883\nbind_address 127.0.0.1\nport 21884\n",
    'connection a\naddress 127.0.0.1:1 127.0.0.1:2 # none\ntopic # both 2 "" remote/\n',
    "plugin /a.so\nplugin_opt_abc  x  y\nauth_plugin /b.so\nauth_opt_abc 1\nauth_plugin_deny_special_chars false\n",
    "per_listener_settings false\nacl_file /a\nper_listener_settings false\n",
    "per_listener_settings true\nlistener 21883\nacl_file /a\nlistener 21884\nacl_file /b\n",
    "listener 0 /run/mq.sock\nlistener 21884\nprotocol websockets\nhttp_dir /srv\n",
    "listener 21883\ncafile /a\ncertfile /b\nkeyfile /c\nrequire_certificate 1\nuse_identity_as_username true\n",
    "user root\npersistence true\npersistence_location /a/\nlog_timestamp_format %Y-%m-%dT%H:%M:%S\n",
    " listener 21883\n",
    "listener 21883\r\nallow_anonymous true\r\n",
    "persistent_client_expiration 2d\nretry_interval 3\n",
]

REFUSED = [
    ("listener 21883\nno_such_option 1\n", 2),
    ("   # a comment that does not start its line\n", 1),
    ("acl_file\t/tab\n", 1),
    ("allow_anonymous yes\n", 1),
    ("allow_anonymous\n", 1),
    ("allow_anonymous true\t\n", 1),
    ("acl_file /a\nacl_file /b\n", 2),
    ("acl_file \n", 1),
    ("listener\n", 1),
    ("listener 70000\n", 1),
    ("listener 0\n", 1),
    ("port 0\n", 1),
    ("acl_file /a\nper_listener_settings true\n", 2),
    ("check_retain_source true\nper_listener_settings true\n", 2),
    ("mount_point a/\n", 1),
    ("log_dest file\n", 1),
    ("log_dest elsewhere\n", 1),
    ("log_dest file /a\nlog_dest file /b\n", 2),
    ("log_type everything\n", 1),
    ("plugin_opt_abc 1\n", 1),
    ("plugin /a.so\nplugin_opt_ab 1\n", 2),
    ("plugin /a.so\nplugin_opt_abcd \n", 2),
    ("cleansession true\n", 1),
    ("connection a\naddress 127.0.0.1\ntopic a\nconnection a\naddress 127.0.0.1\ntopic a\n", 4),
    ("connection a\naddress 127.0.0.1\naddress 127.0.0.1\ntopic a\n", 3),
    ("connection a\naddress 127.0.0.1\ntopic a sideways\n", 3),
    ("connection a\naddress 127.0.0.1\ntopic a in 3\n", 3),
    ("connection\n", 1),
    ("include_dir /nonexistent/folder\n", 1),
    ("include_dir  /tmp\n", 1),
    ("include_dir\n", 1),
    ("listener 21883\ncafile /a\ncafile /b\n", 3),
    (b"\xef\xbb\xbflistener 21883\n", 1),
    (b"acl_file /\xff\n", 1),
    ("acl_file /a\x7fb\n", 1),
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_what_the_broker_accepts_we_accept(tmp_path: Path, text: str) -> None:
    configuration = read(tmp_path, text)
    said = verdict(tmp_path / "mosquitto.conf")
    assert said.accepted, said.said
    assert rejected_lines(configuration) == []


@pytest.mark.parametrize(("text", "line"), REFUSED)
def test_what_the_broker_refuses_we_refuse_at_the_same_line(tmp_path: Path, text: str | bytes, line: int) -> None:
    configuration = read(tmp_path, text)
    said = verdict(tmp_path / "mosquitto.conf")
    assert not said.accepted
    assert said.places == [(str(tmp_path / "mosquitto.conf"), line)]
    assert rejected_lines(configuration)[0] == line


_VALUES = ["", "true", "false", "1", "0", "yes", "2", "70000", "/a", "/a b", "127.0.0.1", "all", "file /x", "#", "# x"]
_NOT_GUESSED = {
    # The broker reads these further than we do: it resolves names, checks sizes or opens what they name.
    "include_dir",
    "pid_file",
    "user",
    "bind_address",
    "tls_engine_kpass_sha1",
    "memory_limit",
    "max_keepalive",
    "max_packet_size",
    "max_inflight_messages",
    "message_size_limit",
    "max_qos",
    "maximum_qos",
    "max_topic_alias",
    "sys_interval",
    "log_facility",
    "websockets_headers_size",
    "persistent_client_expiration",
    "protocol",
    "socket_domain",
    "start_type",
    "bridge_protocol_version",
    "bridge_max_packet_size",
    "keepalive_interval",
    "restart_timeout",
    "mount_point",
    "address",
    "addresses",
    "topic",
    "bridge_psk",
    "bridge_identity",
    "psk_hint",
    "retain_expiry_interval",
}
_guessed = sorted(name for name, option in OPTIONS.items() if option.since == (2, 0) and name not in _NOT_GUESSED)
_line = st.builds(
    lambda key, gap, value: f"{key}{gap}{value}",
    st.sampled_from(
        [*_guessed, "plugin_opt_ring", "plugin", "listener", "per_listener_settings", "acl_file", "nonsense"]
    ),
    st.sampled_from([" ", "  ", "\t", ""]),
    st.sampled_from(_VALUES),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_line, max_size=6))
def test_any_lines_are_accepted_by_the_broker_and_by_us_alike(lines: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        configuration = read(Path(folder), "\n".join(lines) + "\n")
        said = verdict(Path(folder) / "mosquitto.conf")
        bridges = [bridge.setting.line for bridge in configuration.bridges]
        ours = sorted(line for line in rejected_lines(configuration) if line not in bridges)
        # A bridge without address is refused at the end, without a line; a duplicate or empty one has its line.
        assert said.accepted == (not rejected_lines(configuration)), (lines, said.said, configuration.refused)
        if said.places and ours:
            assert said.places[0][1] in (ours[0], *bridges)


def test_every_option_name_we_know_is_known_to_the_broker_or_is_marked_newer(tmp_path: Path) -> None:
    for name, option in OPTIONS.items():
        (tmp_path / "one.conf").write_text(f"{name}\n")
        unknown = "Unknown configuration variable" in verdict(tmp_path / "one.conf").said
        assert unknown == (option.since > (2, 0) or name == "retain_expiry_interval"), name


def test_options_under_a_listener_are_its_own_only_with_per_listener_settings(tmp_path: Path) -> None:
    lines = "listener 21883\nallow_anonymous true\nacl_file /one\nlistener 21884\npassword_file /two\n"
    shared = read(tmp_path, lines)
    one, two = shared.listeners
    assert shared.security_of(one) is shared.security_of(two)
    assert shared.allows_anonymous(two)[0]
    assert [(setting.key, listener.port) for setting, listener in shared.misplaced] == [
        ("allow_anonymous", 21883),
        ("acl_file", 21883),
        ("password_file", 21884),
    ]
    own = read(tmp_path, "per_listener_settings true\n" + lines)
    one, two = own.listeners
    assert own.allows_anonymous(one) == (True, own.listeners[0].security.get("allow_anonymous"))
    assert own.allows_anonymous(two) == (False, None)
    assert own.security_of(two).get("acl_file") is None
    assert own.misplaced == []


def test_the_broker_lets_an_option_under_one_listener_count_for_all_of_them(tmp_path: Path) -> None:
    other = free_port()
    config = ["listener {port} 127.0.0.1", "allow_anonymous true", f"listener {other} 127.0.0.1"]
    with mosquitto(tmp_path, config, listener=False, allow_anonymous=False) as broker:
        assert connects(other)
        configuration = read_configuration(str(broker.config))
        assert all(configuration.allows_anonymous(listener)[0] for listener in configuration.listeners)


def connects(port: int) -> bool:
    """Whether the broker accepts a connection without user name."""
    with Client(port) as client:
        return client.accepted


def test_a_listener_refuses_anonymous_clients_unless_told_otherwise(tmp_path: Path) -> None:
    with mosquitto(tmp_path, allow_anonymous=False) as broker:
        assert not connects(broker.port)
        configuration = read_configuration(str(broker.config))
        assert configuration.allows_anonymous(configuration.listeners[0]) == (False, None)


def test_under_per_listener_settings_the_default_listener_lets_anonymous_clients_in_until_the_first_reload(
    tmp_path: Path,
) -> None:
    config = ["per_listener_settings true", "user root", "port {port}", "bind_address 127.0.0.1"]
    with mosquitto(tmp_path, config, listener=False, allow_anonymous=False) as broker:
        assert connects(broker.port)
        configuration = read_configuration(str(broker.config))
        assert configuration.allows_anonymous(configuration.listeners[0]) == (True, None)
        broker.config.write_text(broker.config.read_text().replace("user root", "user root\nallow_anonymous false"))
        configuration = read_configuration(str(broker.config))
        assert configuration.allows_anonymous(configuration.listeners[0])[0] is False
    with mosquitto(tmp_path, [*config, "allow_anonymous false"], listener=False, allow_anonymous=False) as broker:
        assert not connects(broker.port)


def test_without_any_listener_the_broker_is_local_only_and_anonymous_whatever_is_set(tmp_path: Path) -> None:
    configuration = read(tmp_path, "allow_anonymous false\npersistence false\n")
    assert configuration.local_only
    (listener,) = configuration.listeners
    assert listener.origin is Origin.LOCAL_ONLY
    assert listener.local
    assert configuration.allows_anonymous(listener) == (True, None)


@contextlib.contextmanager
def running_default(folder: Path, text: str, port: int) -> Iterator[Path]:
    """Run a broker that listens where its defaults say, on `port`; yields its log."""
    path, log = folder / "default.conf", folder / "default.log"
    path.write_text(text)
    with log.open("wb") as stderr:
        process = subprocess.Popen([MOSQUITTO, "-c", str(path), "-p", str(port)], stderr=stderr)
    try:
        wait_for(lambda: port_answers(port), "the default listener")
        yield log
    finally:
        process.terminate()
        process.wait(10)


def test_the_broker_in_local_only_mode_accepts_anonymous_clients_against_allow_anonymous_false(tmp_path: Path) -> None:
    port = free_port()
    with running_default(tmp_path, "allow_anonymous false\n", port) as log:
        assert connects(port)
        assert "Starting in local only mode" in log.read_text()


def test_under_per_listener_settings_a_local_only_broker_forgets_its_acl_file(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read nothing\n")
    shared = f"user root\nacl_file {acl}\n"
    own = "per_listener_settings true\n" + shared
    for text, allowed in ((shared, False), (own, True)):
        configuration = read(tmp_path, text)
        (listener,) = configuration.listeners
        assert listener.origin is Origin.LOCAL_ONLY
        assert (configuration.security_of(listener).get("acl_file") is None) is allowed
        port = free_port()
        with running_default(tmp_path, text, port), Client(port) as client:
            assert client.may_publish("anything") is allowed


def test_one_listener_option_above_every_listener_opens_the_default_listener_on_all_addresses(tmp_path: Path) -> None:
    configuration = read(tmp_path, "max_connections 5\n")
    (listener,) = configuration.listeners
    assert (listener.origin, listener.port, listener.address) == (Origin.DEFAULT, 1883, None)
    assert not listener.local
    assert configuration.allows_anonymous(listener) == (True, None)
    for harmless in ("max_connections -1\n", "max_qos 2\n", "protocol mqtt\n", "require_certificate false\n"):
        assert read(tmp_path, harmless).listeners[0].origin is Origin.LOCAL_ONLY, harmless


def test_port_and_listener_lines_together_give_both(tmp_path: Path) -> None:
    configuration = read(tmp_path, "port 21883\nbind_address 127.0.0.1\nlistener 21884 ::1\nlistener 0 /run/mq\n")
    assert [(x.origin.value, x.port, x.address, x.unix_socket, x.local) for x in configuration.listeners] == [
        ("listener", 21884, "::1", None, True),
        ("listener", 0, None, "/run/mq", True),
        ("default", 21883, "127.0.0.1", None, True),
    ]


def test_included_files_come_in_the_brokers_own_order(tmp_path: Path) -> None:
    included = tmp_path / "conf.d"
    included.mkdir()
    names = ["b.conf", "B.conf", "a.conf", "A2.conf", "_.conf", "10.conf", "9.conf", "é.conf", ".x.conf", "ab.conf"]
    for name in names:
        (included / name).write_text("")
    for passed_over in (".conf", "z.conf.bak", "README"):
        (included / passed_over).write_text("nonsense\n")
    configuration = read(tmp_path, f"include_dir {included}\n")
    said = verdict(tmp_path / "mosquitto.conf").said
    broker = [line.partition("Loading config file ")[2] for line in said.split("\n") if "Loading config file" in line]
    assert configuration.files[1:] == broker
    assert sorted(broker) == sorted(f"{included}/{name}" for name in names)


@given(st.lists(st.text(st.sampled_from("aAbB_1-.~"), min_size=1, max_size=4), unique=True, max_size=8))
def test_the_include_order_is_a_total_order_without_regard_to_case_first(names: list[str]) -> None:
    ordered = sorted(names, key=include_order)
    for earlier, later in itertools.pairwise(ordered):
        assert include_order(earlier) != include_order(later)
        pairs = [(a, b) for a, b in zip(earlier, later, strict=False) if a != b]
        if not pairs:
            assert len(earlier) < len(later)
        else:
            a, b = pairs[0]
            assert (a.upper(), a) < (b.upper(), b)


def test_each_included_file_starts_above_every_listener_bridge_and_plugin(tmp_path: Path) -> None:
    included = tmp_path / "conf.d"
    included.mkdir()
    (included / "x.conf").write_text("max_connections 7\n")
    configuration = read(tmp_path, f"listener 21884 127.0.0.1\ninclude_dir {included}\n")
    first, default = configuration.listeners
    assert first.get("max_connections") is None
    assert (default.origin, default.setting and default.setting.file) == (Origin.DEFAULT, str(included / "x.conf"))
    assert default.address is None
    (included / "x.conf").write_text("plugin_opt_ring /x\n")
    configuration = read(tmp_path, f"plugin /a.so\ninclude_dir {included}\n")
    assert [(problem.file, problem.line) for problem in configuration.refused] == [(str(included / "x.conf"), 1)]
    said = verdict(tmp_path / "mosquitto.conf")
    assert (str(included / "x.conf"), 1) in said.places


def test_include_dir_counts_only_in_the_main_file_and_a_folder_including_itself_is_no_loop(tmp_path: Path) -> None:
    (tmp_path / "other.conf").write_text(f"include_dir {tmp_path}\n")
    configuration = read(tmp_path, f"include_dir {tmp_path}\nlistener 21883 127.0.0.1\n")
    assert [problem.message for problem in configuration.doubts] == [
        f"the main file '{tmp_path}/mosquitto.conf' lies in its own include_dir, so the broker reads it twice",
        "the broker passes over include_dir in an included file",
        "the broker passes over include_dir in an included file",
    ]
    assert len(configuration.listeners) == 2
    assert verdict(tmp_path / "mosquitto.conf").accepted


def test_an_included_folder_or_unreadable_file_is_a_refusal_as_the_broker_has_it(tmp_path: Path) -> None:
    included = tmp_path / "conf.d"
    (included / "folder.conf").mkdir(parents=True)
    configuration = read(tmp_path, f"include_dir {included}\n")
    assert "Is a directory" in configuration.refused[0].message
    assert not verdict(tmp_path / "mosquitto.conf").accepted
    (included / "folder.conf").rmdir()
    (included / "gone.conf").symlink_to(tmp_path / "nowhere")
    configuration = read(tmp_path, f"include_dir {included}\n")
    assert "No such file" in configuration.refused[0].message
    assert not verdict(tmp_path / "mosquitto.conf").accepted


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "there is no file"),
        (lambda path: path.mkdir(), "is a directory"),
        (lambda path: path.write_bytes(b"\x7fELF\0\0"), "contains NUL bytes"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_a_path_that_is_no_configuration_file_is_an_error_with_a_hint(tmp_path: Path, make, says: str) -> None:  # type: ignore[no-untyped-def] # lambdas of a table
    path = tmp_path / "mosquitto.conf"
    make(path)
    with pytest.raises(ConfigurationError) as caught:
        read_configuration(str(path))
    assert says in caught.value.problems[0].message
    assert caught.value.problems[0].hint


def test_an_unreadable_main_file_says_so(tmp_path: Path) -> None:
    class Locked:
        def read(self, path: str) -> bytes:
            raise PermissionError(13, "Permission denied", path)

        def names(self, folder: str) -> list[str]:
            return []

    with pytest.raises(ConfigurationError, match="permission denied"):
        read_configuration("/x", Locked())


def test_plugins_bridges_and_logs_are_read_with_their_lines(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        "plugin /usr/lib/first.so\nplugin_opt_ring /run/ring\nplugin /usr/lib/second.so\n"
        'connection up\naddress remote.example:8883\ntopic a/# both 1 "" site/\nremote_password secret\n'
        "log_type notice\nlog_type debug\nlog_dest file /var/log/m.log\nlog_timestamp false\nlistener 21883\n",
    )
    first, second = configuration.plugins_of(configuration.listeners[0])
    ring = first.option("ring")
    assert ring is not None
    assert (first.file_name, ring.value, ring.line, second.setting.line) == ("first.so", "/run/ring", 2, 3)
    (bridge,) = configuration.bridges
    assert bridge.addresses == [("remote.example", 8883)]
    topic = bridge.topics[0]
    assert (topic.pattern, topic.direction, topic.qos, topic.local_prefix, topic.remote_prefix) == (
        "a/#",
        "both",
        1,
        "",
        "site/",
    )
    assert not bridge.tls
    assert configuration.log_topics == {"notice", "debug"}
    assert configuration.log_file == "/var/log/m.log"
    password = bridge.get("remote_password")
    assert password is not None
    assert password.line == 7


def test_the_plugins_of_a_newer_broker_are_understood(tmp_path: Path) -> None:
    configuration = read(
        tmp_path,
        "per_listener_settings true\nglobal_plugin /a.so\nplugin_opt_abc 1\nplugin_load audit /b.so\n"
        "listener 21883\nplugin_use audit\nlistener 21884\nplugin /c.so\n",
    )
    one, two = configuration.listeners
    assert [plugin.path for plugin in configuration.plugins_of(one)] == ["/a.so", "/b.so"]
    assert [plugin.path for plugin in configuration.plugins_of(two)] == ["/a.so", "/c.so"]
    assert [plugin.path for plugin in configuration.plugins] == ["/a.so", "/b.so", "/c.so"]


def test_the_packages_own_configuration_reads_clean() -> None:
    path = "/etc/mosquitto/mosquitto.conf"
    if not Path(path).exists():
        pytest.skip("the mosquitto package's own configuration is not installed here")
    configuration = read_configuration(path)
    assert (configuration.refused, configuration.unknown, configuration.doubts) == ([], [], [])
    assert configuration.local_only
    assert configuration.log_file == "/var/log/mosquitto/mosquitto.log"
