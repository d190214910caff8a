"""The plugin changes nothing that the broker decides: every client gets the same answers with it and without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.brokers import wait_for
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_cases import DYNAMIC_SECURITY, PLUGIN_HERE, Case, compile_other, running, transcript
from tests.mosquitto.plugin_events import mode_of, read_events

OPEN = ["allow_anonymous true"]
CLOSED = ["allow_anonymous false"]
ACL_FILE = ["acl_file {folder}/acl"]
PASSWORDS = ["password_file {folder}/passwords"]
OTHER = ["plugin {other}"]
DECISIONS, AUTH, UNREADABLE, OTHER_PLUGIN, PER_LISTENER = 0x01, 0x02, 0x10, 0x20, 0x40
PER = ["per_listener_settings true"]


def listener(number: str, *lines: str) -> list[str]:
    return [f"listener {{{number}}} 127.0.0.1", PLUGIN_HERE, *lines]


THREE = [
    *PER,
    *listener("port", *OPEN),
    *listener("port2", *PASSWORDS, *OPEN),
    *listener("port3", *ACL_FILE, *PASSWORDS),
]

CASES = [
    Case("nothing, open", OPEN),
    Case("nothing, closed", CLOSED),
    Case("nothing at all said", []),
    Case("acl_file, open", [*OPEN, *ACL_FILE]),
    Case("acl_file, closed", [*CLOSED, *ACL_FILE]),
    Case("password_file, open", [*OPEN, *PASSWORDS]),
    Case("password_file, closed", [*CLOSED, *PASSWORDS]),
    Case("both, open", [*OPEN, *ACL_FILE, *PASSWORDS]),
    Case("both, closed, retained authors checked", [*CLOSED, *ACL_FILE, *PASSWORDS, "check_retain_source true"]),
    Case("dynamic security", [PLUGIN_HERE, *DYNAMIC_SECURITY]),
    Case("dynamic security, acl_file, passwords, open", [PLUGIN_HERE, *DYNAMIC_SECURITY, *OPEN, *ACL_FILE, *PASSWORDS]),
    Case("dynamic security before us", [*DYNAMIC_SECURITY, *OPEN, *ACL_FILE, PLUGIN_HERE], mode=OTHER_PLUGIN),
    Case("unknown plugin, open", [PLUGIN_HERE, *OTHER, *OPEN], mode=OTHER_PLUGIN),
    Case("unknown plugin before us", [*OTHER, *OPEN, PLUGIN_HERE], mode=OTHER_PLUGIN),
    Case("told plugin, both", [PLUGIN_HERE, *OTHER, *OPEN], options=["plugin_opt_other_plugins acl,auth"]),
    Case(
        "told plugin, acl only",
        [PLUGIN_HERE, *OTHER, "plugin_opt_decides acl", *OPEN, *ACL_FILE],
        options=["plugin_opt_other_plugins acl"],
    ),
    Case(
        "told plugin, auth only",
        [PLUGIN_HERE, *OTHER, "plugin_opt_decides auth", *OPEN],
        options=["plugin_opt_other_plugins auth"],
    ),
    Case(
        "told plugin, neither",
        [*OTHER, "plugin_opt_decides nothing", *OPEN, PLUGIN_HERE],
        options=["plugin_opt_other_plugins none"],
    ),
    Case("three listeners", THREE, ports=3, mode=DECISIONS | AUTH | PER_LISTENER),
    Case(
        "three listeners, the plugin on two",
        [*PER, "listener {port} 127.0.0.1", *OPEN, *listener("port2", *ACL_FILE, *OPEN), *listener("port3", *CLOSED)],
        ports=3,
        mode=DECISIONS | AUTH | PER_LISTENER,
    ),
    Case("SIGHUP adds both files", OPEN, [*CLOSED, *ACL_FILE, *PASSWORDS]),
    Case("SIGHUP takes both files away", [*OPEN, *ACL_FILE, *PASSWORDS], OPEN),
    Case("SIGHUP takes both files away and closes", [*OPEN, *ACL_FILE, *PASSWORDS], CLOSED),
    Case("SIGHUP closes", OPEN, CLOSED),
    Case("SIGHUP opens", CLOSED, OPEN),
    Case("SIGHUP leaves allow_anonymous out", OPEN, ["sys_interval 10"]),
    Case(
        "SIGHUP changes the files' names",
        [*OPEN, *ACL_FILE, *PASSWORDS],
        [*OPEN, "acl_file {folder}/acl_other", "password_file {folder}/passwords_other"],
    ),
    Case(
        "SIGHUP revokes a retained author",
        ["check_retain_source true", *OPEN, "acl_file {folder}/acl_all"],
        ["check_retain_source true", *OPEN, "acl_file {folder}/acl_other"],
    ),
    Case("SIGHUP with a file the broker refuses", OPEN, [*CLOSED, "no_such_option 1"], mode_after=DECISIONS),
    Case("SIGHUP with a value the broker refuses", OPEN, [*CLOSED, "allow_anonymous maybe"], mode_after=DECISIONS),
    # The broker keeps all its old settings, and the plugin knows.
    Case("SIGHUP with a folder that is not there", OPEN, [*CLOSED, "include_dir {folder}/nowhere"]),
    # The broker keeps what it had read of the listener: 2.0.11 is left open here.
    Case(
        "SIGHUP with a file the broker refuses in the middle of a listener",
        [*PER, *listener("port", *CLOSED)],
        [*PER, *listener("port", "no_such_option 1", *CLOSED)],
        mode=DECISIONS | AUTH | PER_LISTENER,
        mode_after=DECISIONS | PER_LISTENER,
    ),
    Case(
        "SIGHUP with a folder that is not there in the middle of a listener",
        [*PER, *listener("port", *CLOSED)],
        [*PER, *listener("port", "include_dir {folder}/nowhere", *CLOSED)],
        mode=DECISIONS | AUTH | PER_LISTENER,
        mode_after=DECISIONS | PER_LISTENER,
    ),
    Case(
        "SIGHUP changes listeners",
        [*PER, *listener("port", *OPEN), *listener("port2", *ACL_FILE, *OPEN)],
        [*PER, *listener("port", *CLOSED, *ACL_FILE), *listener("port2", *PASSWORDS)],
        ports=2,
        mode=DECISIONS | AUTH | PER_LISTENER,
    ),
    Case(
        "SIGHUP leaves a listener out",
        [*PER, *listener("port", *OPEN), *listener("port2", *CLOSED)],
        [*PER, *listener("port", *CLOSED)],
        ports=2,
        mode=DECISIONS | AUTH | PER_LISTENER,
    ),
    Case(
        "SIGHUP turns per_listener_settings off",
        [*PER, *listener("port", *OPEN), *listener("port2", *CLOSED)],
        ["listener {port} 127.0.0.1", PLUGIN_HERE, *OPEN, "listener {port2} 127.0.0.1"],
        ports=2,
        mode=DECISIONS | AUTH | PER_LISTENER,
        mode_after=DECISIONS | PER_LISTENER,
    ),
    Case(
        "settings in include_dir",
        [*OPEN, "include_dir {folder}/conf.d", "listener {port} 127.0.0.1"],
        extra={"conf.d/a.conf": "acl_file {folder}/acl\n", "conf.d/B.conf": "password_file {folder}/passwords\n"},
    ),
    Case(
        "settings before the first listener",
        [*PER, PLUGIN_HERE, "port {port}", *OPEN, "listener {port2} 127.0.0.1", PLUGIN_HERE, *CLOSED],
        ports=2,
        mode=DECISIONS | AUTH | PER_LISTENER,
    ),
    Case(
        "nothing said before the first listener",
        [*PER, PLUGIN_HERE, "port {port}", "listener {port2} 127.0.0.1", PLUGIN_HERE, *CLOSED],
        ports=2,
        mode=DECISIONS | AUTH | PER_LISTENER,
    ),
    Case("configuration out of our sight", OPEN, options=["plugin_opt_config /no/such/file"], mode=UNREADABLE),
    Case("no ring", [*OPEN, *ACL_FILE], options=["plugin_opt_ring /no/such/folder/ring"], mode=None),
    Case("deliveries recorded", [*OPEN, *ACL_FILE, *PASSWORDS], options=["plugin_opt_deliver all"]),
]
OBSERVED_MODE = DECISIONS | AUTH | UNREADABLE | OTHER_PLUGIN | PER_LISTENER


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_other(tmp_path_factory.mktemp("other"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_client_gets_the_same_answers_with_and_without_the_plugin(
    case: Case, tmp_path: Path, other: Path
) -> None:
    plugin = build_plugin()
    with running(case, tmp_path / "without", None, other) as run:
        expected = transcript(run, case)
    with running(case, tmp_path / "with", plugin, other) as run:
        modes = list(ring_modes(case, run.ring))
        found = transcript(run, case)
        modes += ring_modes(case, run.ring)
    assert found == expected
    assert len(found) > 20
    if case.mode is not None:
        assert modes[0] == case.mode
        assert modes[1] == (case.mode if case.mode_after is None else case.mode_after)
        rows, counters = read_events(run.ring)
        assert not counters.decode_errors
        assert not counters.unresolved
        assert not counters.lost
        if case.mode & DECISIONS and any("publish" in line for line in found):
            assert {row["action"] for row in rows} > {"publish", "subscribe", "disconnect"}


def ring_modes(case: Case, ring: Path) -> Iterator[int]:
    if case.mode is not None:
        wait_for(ring.exists, "the ring")
        yield mode_of(ring) & OBSERVED_MODE
