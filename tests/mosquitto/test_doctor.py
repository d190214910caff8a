"""The doctor: each check speaks where it should and only there, its lines cure it, and the broker starts with them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.brokers import MOSQUITTO, free_port, mosquitto, port_answers, wait_for
from tests.mosquitto.broker_verdict import Client
from tests.mosquitto.doctor_cases import CASES, Case, Place, TestedMachine
from tests.mosquitto.fixes import apply_fix
from tests.mosquitto.plugin_build import SOURCES, build_plugin
from topicwarden.errors import ConfigurationError
from topicwarden.policy.loading import load_policy
from topicwarden.sources import Advice, DoctorReport
from topicwarden_collectors.mosquitto.acl_file import read_acl_file
from topicwarden_collectors.mosquitto.doctor import CHECKS, diagnose
from topicwarden_collectors.mosquitto.doctor_examination import (
    DEFAULT_RING,
    PLUGIN_FILE,
    Machine,
    Mount,
    file_system,
    unescape_mount,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
LEVELS = {"ok", "note", "warning", "problem"}


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder that every user of the machine can reach."""
    with tempfile.TemporaryDirectory(prefix="topicwarden-doctor-") as name:
        Path(name).chmod(0o755)
        yield Place(Path(name))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate that serves as its own authority."""
    folder = tmp_path_factory.mktemp("certs")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.crt"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    shutil.copy(folder / "server.crt", folder / "ca.crt")
    return folder


def write(place: Place, text: str) -> str:
    path = place.folder / "mosquitto.conf"
    path.write_text(text if text.endswith("\n") or not text else text + "\n")
    path.chmod(0o644)
    return str(path)


def spoken(report: DoctorReport, check: str) -> Sequence[Advice]:
    return [advice for advice in report.advice if advice.check == check and advice.level != "ok"]


def name_of(case: Case) -> str:
    return f"{case.check}-{CASES.index(case)}"


def machine_of(case: Case) -> Machine:
    return TestedMachine(case.user, case.mounts)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_check_speaks_where_it_should(case: Case, place: Place) -> None:
    report = diagnose(write(place, case.speaks(place)), machine_of(case))
    said = spoken(report, case.check)
    assert said, [advice for advice in report.advice if advice.level != "ok"]
    assert case.level is None or said[0].level == case.level
    assert said[0].file is not None
    assert bool(said[0].fix) == case.fix or not case.fix
    assert not any(advice.check == case.check and advice.level == "ok" for advice in report.advice)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_check_keeps_quiet_where_it_should(case: Case, place: Place) -> None:
    report = diagnose(write(place, case.quiet(place)), machine_of(case))
    assert not spoken(report, case.check), spoken(report, case.check)


def places(place: Place) -> dict[str, str]:
    """Where on the test's machine the paths of a fix are."""
    folder = place.folder
    return {
        PLUGIN_FILE: place.plugin or str(build_plugin()),
        DEFAULT_RING: str(folder / "ring" / "mosquitto.ring"),
        "/etc/mosquitto/certs/": f"{folder}/certs/",
        "/etc/mosquitto/ca_certificates/": f"{folder}/certs/",
        "/etc/mosquitto/passwords": f"{folder}/passwords",
        "/etc/mosquitto/acl": f"{folder}/acl",
        "/var/log/mosquitto/": f"{folder}/",
        "/dev/shm/topicwarden": f"{folder}/shm",
        "listener 1883 ": f"listener {place.port} ",
    }


def start(place: Place, config: str, user: str = "root") -> str:
    """Start the real broker with `config` until it says that it runs; return its log."""
    copy = place.folder / "started.conf.txt"
    text = Path(config).read_text()
    keep = [line for line in text.split("\n") if not re.match(r"log_|user ", line)]
    copy.write_text("\n".join([*keep, f"user {user}", "log_dest stderr", "log_type all", ""]))
    (place.folder / "ring").mkdir(exist_ok=True)
    log = place.folder / "started.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([MOSQUITTO, "-c", str(copy), "-p", str(place.port)], stderr=stderr)
    try:
        wait_for(lambda: process.poll() is not None or b" running\n" in log.read_bytes(), "the broker to run")
        assert process.poll() is None, log.read_text() + copy.read_text()
    finally:
        # Mosquitto 2.0.11 says that it runs a moment before it would notice being told to stop.
        while process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
    return log.read_text()


@pytest.mark.parametrize("case", [case for case in CASES if case.fix], ids=name_of)
def test_the_lines_of_a_check_cure_it_and_the_broker_starts_with_them(
    case: Case, place: Place, certificates: Path
) -> None:
    shutil.copytree(certificates, place.folder / "certs")
    config = write(place, case.speaks(place))
    machine = machine_of(case)
    for _ in range(4):
        said = spoken(diagnose(config, machine), case.check)
        if not said:
            break
        assert said[0].fix is not None
        apply_fix(said[0].fix, places(place))
        if case.mounts is not None:
            machine = TestedMachine(case.user, [*case.mounts, Mount(str(place.folder / "shm"), "tmpfs")])
    assert not spoken(diagnose(config, machine), case.check)
    if case.starts:
        start(place, config)


def test_every_check_has_a_case_and_every_case_a_check() -> None:
    assert {case.check for case in CASES} == set(CHECKS)


def test_every_check_is_documented() -> None:
    documented = set(re.findall(r"^### `([a-z]+\.[a-z-]+)`$", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == set(CHECKS)


def test_the_plugin_file_fix_builds_and_installs_the_plugin(place: Place) -> None:
    target = place.path("lib/topicwarden_mosquitto.so")
    config = write(place, f"plugin {target}\n{place.ring()}\n{place.listener}\n")
    (advice,) = spoken(diagnose(config, TestedMachine(0)), "plugin.file")
    assert advice.fix is not None
    # the build itself is plugin_build's: the same Makefile, out of the tree
    fix = advice.fix.replace("make -C brokers/mosquitto", "true")
    apply_fix(fix, {"brokers/mosquitto/topicwarden_mosquitto.so": str(build_plugin())})
    assert (SOURCES / "Makefile").exists()
    assert not spoken(diagnose(config, TestedMachine(0)), "plugin.file")
    assert "topicwarden: writing to" in start(place, config)


def test_the_whole_report_is_plain_and_ordered(place: Place) -> None:
    report = diagnose(write(place, f"{place.wide}\nallow_anonymous true\nlog_type debug\n"), TestedMachine(0))
    order = list(CHECKS)
    assert [order.index(advice.check) for advice in report.advice] == sorted(
        order.index(advice.check) for advice in report.advice
    )
    for advice in report.advice:
        assert advice.level in LEVELS
        assert advice.message.isprintable()
        assert not advice.message.endswith(".")
    assert report.title.endswith("mosquitto.conf (1 listener, no plugin)")


def test_names_from_hostile_files_are_never_printed_raw(place: Place) -> None:
    acl = place.acl("user a\u202eb\ntopic write #\n")
    text = f"{acl}\n{place.listener}\nfoo\x1b[31m x\n"
    report = diagnose(write(place, text), TestedMachine(0))
    for advice in report.advice:
        assert advice.message.isprintable(), advice
        assert advice.fix is None or all(letter.isprintable() or letter == "\n" for letter in advice.fix)
    assert spoken(report, "acl.everything")[0].message.startswith(r"user 'a\u202eb'")


def test_debians_own_configuration_gets_a_sensible_report() -> None:
    path = "/etc/mosquitto/mosquitto.conf"
    if not Path(path).exists():
        pytest.skip("the mosquitto package's own configuration is not installed here")
    report = diagnose(path)
    levels = {(advice.check, advice.level) for advice in report.advice if advice.level != "ok"}
    assert levels == {
        ("plugin.loaded", "problem"),
        ("login.source", "warning"),
        ("login.anonymous", "note"),
        ("listener.local-only", "note"),
        ("acl.present", "warning"),
        ("log.publishes", "problem"),
        ("persistence.sessions", "note"),
    }
    assert report.blind_spots


def test_the_containers_configuration_is_what_we_advise() -> None:
    folder = SOURCES.parents[1] / "compose"
    report = diagnose(str(folder / "mosquitto" / "mosquitto.conf"), TestedMachine(0))
    # Its files are at these paths inside the container; its listener is reached from the host's loopback alone.
    elsewhere = {"plugin.file", "ring.folder", "acl.readable", "login.file"}
    problems = {advice.check for advice in report.advice if advice.level in ("problem", "warning")}
    assert problems <= elsewhere | {"listener.plain-text"}, problems
    acl = read_acl_file(str(folder / "mosquitto" / "acl"))
    assert (acl.refused, acl.doubts) == ([], [])
    policy = load_policy(folder / "topicwarden" / "policy.yaml")
    assert set(policy.roles) >= {"sensor", "dashboard"}


def test_a_well_set_up_broker_gets_no_warning(place: Place, certificates: Path) -> None:
    shutil.copytree(certificates, place.folder / "certs")
    place.file("pw")
    config = write(
        place,
        f"{place.ours()}\nplugin_opt_deliver all\npassword_file {place.path('pw')}\n"
        f"{place.acl('user admin' + chr(10) + 'topic read $SYS/#' + chr(10) + 'pattern readwrite %u/#' + chr(10))}\n"
        f"{place.wide}\n{place.tls}\ncafile {place.path('certs/ca.crt')}\nrequire_certificate true\n",
    )
    report = diagnose(config, TestedMachine(0))
    assert [advice for advice in report.advice if advice.level != "ok"] == []
    assert "topicwarden: writing to" in start(place, config)
    assert {spot.what.partition(":")[0] for spot in report.blind_spots} == {
        "denied publishes to $SYS and $share",
        "the port a client connects from",
    }


def test_what_cannot_be_told_is_a_note_and_never_ok(place: Place) -> None:
    config = write(
        place, f"{place.ours()}\n{place.acl('topic read a')}\npassword_file {place.file('pw')}\n{place.listener}"
    )
    report = diagnose(config, TestedMachine(None, []))
    for check in ("plugin.file", "plugin.configuration", "ring.writable", "ring.memory", "acl.readable", "login.file"):
        assert {advice.level for advice in report.advice if advice.check == check} == {"note"}, check


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (lambda p: p.listener, "do, except for what the log says"),
        (lambda p: f"log_type all\n{p.listener}", "wills when they are published"),
        (lambda p: f"{p.ours()}\n{p.listener}", "deliveries are not recorded"),
        (lambda p: f"{p.ours()}\nplugin_opt_entropy off\n{p.listener}", "plugin_opt_entropy is off"),
        (lambda p: f"per_listener_settings true\n{p.listener}\n{p.ours()}", "never calls a plugin by the clock"),
        (lambda p: f"{p.ours()}\nlistener 0 {p.path('s')}", "which process uses a Unix socket"),
        (lambda p: f"persistence true\n{p.listener}", "sessions restored from disk"),
        (lambda p: f"{p.ours()}\nconnection a\naddress 127.0.0.1:1\ntopic a in\n{p.listener}", "already accepted"),
        (
            lambda p: (
                f"per_listener_settings true\n{p.listener}\n{p.ours()}\nconnection a\naddress 127.0.0.1:1\ntopic a in"
            ),
            "no plugin is told of it",
        ),
        (lambda p: f"{p.ours()}\n{p.listener}\n{p.tls}\nuse_identity_as_username true", "no plugin is told of them"),
        (lambda p: f"{p.ours()}\n", "clients told apart by address"),
    ],
)
def test_each_blind_spot_is_named_where_it_exists_and_only_there(place: Place, text, what: str) -> None:  # type: ignore[no-untyped-def] # lambdas of a table
    assert any(what in spot.what for spot in diagnose(write(place, text(place)), TestedMachine(0)).blind_spots)
    none = f"{place.ours()}\nplugin_opt_deliver all\n{place.listener}\n"
    assert not any(what in spot.what for spot in diagnose(write(place, none), TestedMachine(0)).blind_spots)


def test_a_path_that_is_no_configuration_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\1")
    for path in ("nothing", ".", "binary"):
        with pytest.raises(ConfigurationError) as caught:
            diagnose(str(tmp_path / path))
        assert caught.value.problems[0].hint


# What the doctor says about the broker, asked of the broker ---------------------------------------------------------


def test_without_a_password_source_the_broker_believes_any_user_name(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as broker, Client(broker.port, "admin") as client:
        assert client.accepted


def test_with_neither_a_source_nor_anonymous_clients_nobody_gets_in(tmp_path: Path) -> None:
    with mosquitto(tmp_path, allow_anonymous=False) as broker:
        for user in (None, "admin"):
            with Client(broker.port, user) as client:
                assert not client.accepted


def test_a_plugin_above_every_listener_opens_the_default_listener_under_per_listener_settings(place: Place) -> None:
    config = write(place, f"per_listener_settings true\n{place.ours()}\nport {place.port}\nbind_address 127.0.0.1\n")
    assert "topicwarden: writing to" in start(place, config)
    assert not spoken(diagnose(config, TestedMachine(0)), "plugin.loaded")
    alone = write(place, f"per_listener_settings true\n{place.ours()}\n")
    (advice,) = spoken(diagnose(alone, TestedMachine(0)), "listener.default")
    assert (advice.level, advice.line) == ("problem", 2)


def test_one_listener_option_alone_opens_the_default_listener_to_everybody(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a network of its own: the default listener's port is fixed")
    (tmp_path / "c.conf").write_text("max_connections 5\nallow_anonymous false\nuser root\n")
    script = (
        f"ip link set lo up || exit 9; {MOSQUITTO} -c {tmp_path}/c.conf 2>{tmp_path}/log & broker=$!; "
        "for i in $(seq 200); do mosquitto_pub -t a -m x -u anybody 2>/dev/null && said=yes && break; sleep 0.05; "
        "done; kill $broker; wait $broker; echo $said"
    )
    done = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode == 9 or not shutil.which("mosquitto_pub"):
        pytest.skip("needs ip and mosquitto_pub")
    log = (tmp_path / "log").read_text()
    assert "Opening ipv4 listen socket on port 1883" in log
    assert "local only mode" not in log
    assert done.stdout == "yes\n", log


def test_what_a_bridge_brings_in_passes_no_acl(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic read x/#\ntopic readwrite end\n")
    with mosquitto(tmp_path / "remote") as remote:
        config = [
            "user root",
            f"acl_file {tmp_path}/acl",
            "connection up",
            f"address 127.0.0.1:{remote.port}",
            "topic x/# in 1",
        ]
        subprocess.run(
            ["mosquitto_pub", "-p", str(remote.port), "-t", "x/from-there", "-m", "1", "-r", "-q", "1"], check=True
        )
        with mosquitto(tmp_path / "local", config) as local:
            with Client(local.port) as client:
                assert not client.may_publish("x/from-here")

            def arrived() -> bool:
                with Client(local.port) as client:
                    return client.retained("x/#", "end") == {"x/from-there"}

            wait_for(arrived, "the bridge's message")


def test_the_broker_refuses_users_whose_password_is_not_hashed(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("bob:secret\n")
    config = ["user root", f"password_file {tmp_path}/pw"]
    with mosquitto(tmp_path, config, allow_anonymous=False) as broker:
        said = subprocess.run(
            ["mosquitto_pub", "-p", str(broker.port), "-u", "bob", "-P", "secret", "-t", "a", "-m", "x"],
            capture_output=True,
            check=False,
        )
        assert said.returncode != 0
        assert "Invalid password hash type for user bob" in broker.log.read_text()


def test_a_listener_of_its_own_port_is_opened_for_an_option_in_an_included_file(place: Place) -> None:
    other = free_port()
    folder = Path(place.file("conf.d/tls.conf", "max_connections 3\n", 0o644)).parent
    config = write(place, f"port {other}\nbind_address 127.0.0.1\n{place.listener}\ninclude_dir {folder}\n")
    log = start(place, config)
    assert f"listen socket on port {other}" in log
    assert not spoken(diagnose(config, TestedMachine(0)), "listener.default")
    assert not port_answers(other)


def test_mounts_are_told_by_the_longest_point() -> None:
    mounts = [Mount("/", "ext4"), Mount("/run", "tmpfs"), Mount("/run/disk", "xfs"), Mount("/run", "ramfs")]
    assert file_system("/run/topicwarden/none", mounts) == "ramfs"
    assert file_system("/run/disk/a", mounts) == "xfs"
    assert file_system("/runner", mounts) == "ext4"
    assert file_system("/x", []) is None
    assert unescape_mount(r"/a\040b\134c") == "/a b\\c"


def test_this_machines_own_answers_are_used_by_default() -> None:
    machine = Machine()
    root = machine.identity("root")
    assert root is not None
    assert root[0] == 0
    assert machine.identity("no-such-user-at-all") is None
    assert machine.status("/nonexistent/x") is None
    status = machine.status("/")
    assert status is not None
    assert stat.S_ISDIR(status.st_mode)
    assert any(mount.point == "/proc" for mount in machine.mounts())  # in a chroot "/" itself is not listed
