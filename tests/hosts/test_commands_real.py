"""What programs really do with generated arguments, beside what is read of them."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.brokers import Mosquitto, mosquitto
from topicwarden.events import Process
from topicwarden.hosts.commands import Command, read_command
from topicwarden.hosts.tools import TOOLS
from topicwarden.hosts.tools_grammar import Means, has_value

HOSTS = ("127.119.47.1", "127.119.48.2")
PORTS = (1883, 8883, 5672, 5671, 5222, 61613, 4871)
"""What the tools take when told nothing, and others."""
EXAMPLES = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass
class Listener:
    """Accepts connections on several addresses, and hangs up."""

    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def open(self, host: str, port: int) -> None:
        server = socket.create_server((host, port), backlog=16)
        server.setblocking(False)
        self.selector.register(server, selectors.EVENT_READ, (host, port))

    def close(self) -> None:
        for key in list(self.selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self.selector.close()

    def reached(self, command: list[str]) -> tuple[str, int] | None:
        """Run a command; return where it connected first, None when it did not."""
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            found: tuple[str, int] | None = None
            ended = False
            while found is None and not ended:
                # What ended before this look has made its connections before it, too.
                ended = process.poll() is not None
                found = self._accept(0 if ended else 0.01)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        while self._accept(0) is not None:
            pass
        return found

    def _accept(self, seconds: float) -> tuple[str, int] | None:
        for key, _ in self.selector.select(seconds):
            connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
            connection.close()
            return key.data  # type: ignore[no-any-return]
        return None


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listening = Listener()
    try:
        for host in HOSTS:
            for port in PORTS:
                listening.open(host, port)
        yield listening
    finally:
        listening.close()


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def read(command: list[str]) -> Command | None:
    return read_command(Process("h", 1, os.path.realpath(command[0]), tuple(command)))


host = st.sampled_from(HOSTS)
port = st.sampled_from(PORTS)
number = port.flatmap(lambda value: st.sampled_from([str(value), f" {value}", f"+{value}", f"0{value}"]))
TOPIC = st.text("abc/$-=: é", min_size=1, max_size=12)


def options(*groups: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    """Some of these groups of words, in any order, some twice."""
    return st.lists(st.one_of(*groups), max_size=7).map(lambda found: [word for group in found for word in group])


MOSQUITTO = options(
    host.map(lambda h: ["-h", h]),
    host.map(lambda h: ["--host", h]),
    host.map(lambda h: [f"-h{h}"]),
    host.map(lambda h: [f"--host={h}"]),
    st.one_of(number, port.map("{}x".format)).map(lambda p: ["-p", p]),
    st.tuples(host, port).map(lambda t: ["-L", f"mqtt://{t[0]}:{t[1]}/a"]),
    st.tuples(host, port).map(lambda t: ["-L", f"mqtt://u:p@x@{t[0]}:{t[1]}/a"]),
    st.tuples(host, host, port).map(lambda t: ["-L", f"MQTT://u:p@{t[0]}:{t[2]}x/t@{t[1]}/a"]),
    host.map(lambda h: ["--url", f"mqtts://me@{h}/a"]),
    host.map(lambda h: ["-i", h]),
    host.map(lambda h: ["-D", "connect", "user-property", "-h", h]),
    st.sampled_from([["-q", "1"], ["-d"], ["--quiet"], ["--"], ["-k", "5"], ["-dq"], ["--ws"], ["-P", "-h"], ["x"]]),
    st.just(["--cafile", "/etc/ssl/certs/ca-certificates.crt"]),
)


def agree(command: list[str], listener: Listener) -> None:
    """What is read is where it went; what went nowhere is not judged: the program refused its arguments."""
    reached = listener.reached(command)
    found = read(command)
    if reached is not None:
        assert found is not None, command
        # Of several `@`, nobody may be sure; else all is known.
        assert (found.host, found.port) in (reached, (None, None)), (command, reached, found)
        assert (found.host, found.port) == reached or any(word.count("@") > 1 for word in command), command


@EXAMPLES
@given(MOSQUITTO, st.booleans())
def test_mosquittos_clients_connect_where_their_arguments_are_read_to_say(
    listener: Listener, words: list[str], publishes: bool
) -> None:
    base = [program("mosquitto_pub"), "-t", "a", "-n"] if publishes else [program("mosquitto_sub"), "-t", "a"]
    # Without a host they go to the local host, where the test does not listen.
    agree([*base, "-h", HOSTS[0], *words], listener)


AMQP = options(
    host.map(lambda h: ["-s", h]),
    host.map(lambda h: [f"-s{h}"]),
    host.map(lambda h: [f"-ps={h}"]),
    host.map(lambda h: [f"--server={h}"]),
    st.tuples(host, port).map(lambda t: ["--server", f"{t[0]}:{t[1]}"]),
    port.map(lambda p: ["--port", str(p)]),
    port.map(lambda p: [f"--port={hex(p)}"]),
    port.map(lambda p: ["--port", f"0{p:o}"]),
    st.sampled_from(
        [["-p"], ["-lp"], ["-C", "-s"], ["--vhost=v"], ["-H", "a: b"], ["-bx"], ["--usernam", "u"], ["--"]]
    ),
)
AMQP_URL = st.one_of(
    st.tuples(host, port).map(lambda t: [f"-u=amqp://u:p@{t[0]}:{t[1]}/v"]),
    host.map(lambda h: ["--url", f"amqp://{h}"]),
    host.map(lambda h: [f"-pu{'amqps'}://{h}"]),
    host.map(lambda h: ["-u", f"AMQP://{h}"]),
    st.tuples(host, port).map(lambda t: [f"--url=amqp://[{t[0]}]:{t[1]}"]),
    host.map(lambda h: ["-u", "amqp://" + "".join(f"%{ord(c):02x}" for c in h)]),
)


@EXAMPLES
@given(st.one_of(AMQP, AMQP_URL))
def test_amqp_publish_connects_where_its_arguments_are_read_to_say(listener: Listener, words: list[str]) -> None:
    agree([program("amqp-publish"), "-r", "k", *words], listener)


@pytest.mark.parametrize("name", ["amqp-consume", "amqp-get", "amqp-declare-queue", "amqp-delete-queue"])
def test_other_amqp_tools_read_their_options_alike(listener: Listener, name: str) -> None:
    for words in (["-q", "q", "-s", HOSTS[0], "cat"], ["-u", f"amqp://{HOSTS[1]}:4871", "-qq", "cat"]):
        command = [program(name), *(words if name == "amqp-consume" else words[:-1])]
        assert listener.reached(command) is not None
        agree(command, listener)


NC = options(
    st.sampled_from(
        [["-v"], ["-n"], ["-w", "1"], ["-w1"], ["-vw", "1"], ["-nvw1"], ["-i", "1"], ["-z"], ["-4"], ["-C"]]
    )
)


@EXAMPLES
@given(st.sampled_from(["nc.openbsd", "ncat"]), NC, host, number, NC, NC, st.booleans())
def test_netcats_connect_where_their_arguments_are_read_to_say(
    listener: Listener, name: str, before: list[str], to: str, at: str, between: list[str], after: list[str], ends: bool
) -> None:
    command = [program(name), *before, *(["--", to, at] if ends else [to, *between, at, *after])]
    reached = listener.reached(command)
    found = read(command)
    if reached is not None and reached[1] != 4871:
        assert found is not None
        assert (found.host, found.port) == reached
    elif reached is not None:
        assert found is None


SOCAT = options(st.sampled_from([["-d"], ["-T1"], ["-T", "1"], ["-t1"], ["-u"], ["-v"], ["-b", "99"], ["-4"]]))


@EXAMPLES
@given(
    SOCAT,
    st.sampled_from(["TCP", "tcp4", "TCP-CONNECT", "INET", "tcp4-connect", "OPENSSL", "ssl"]),
    host.flatmap(lambda h: st.sampled_from([h, f'"{h}"', f"'{h}'", h.replace("8", "\\8")])),
    st.sampled_from([1883, 5222]),
    st.sampled_from(["", ",connect-timeout=1", ",nodelay"]),
    st.booleans(),
)
def test_socat_connects_where_its_addresses_are_read_to_say(
    listener: Listener, before: list[str], kind: str, to: str, at: int, after: str, first: bool
) -> None:
    address = f"{kind}:{to}:{at}{after}"
    agree([program("socat"), *before, *([address, "-"] if first else ["-", address])], listener)


@pytest.mark.parametrize(
    "words",
    [
        ["-connect", f"{HOSTS[0]}:8883"],
        ["--connect", f"{HOSTS[0]}:8883"],
        [f"-connect={HOSTS[0]}:8883"],
        ["-quiet", "-host", HOSTS[1], "-port", "1883", "-servername", "x"],
        ["-verify", "1", f"{HOSTS[0]}:5671"],
        ["-connect", f"{HOSTS[0]}:8883", "-starttls", "xmpp", "-xmpphost", "x"],
        ["-port", "8883", "-connect", HOSTS[0]],
        ["-connect", HOSTS[0], "-port", "8883"],
    ],
)
def test_openssl_connects_where_its_arguments_are_read_to_say(listener: Listener, words: list[str]) -> None:
    agree([program("openssl"), "s_client", *words], listener)


@pytest.mark.parametrize(
    "words",
    [
        ["mqtt://{h}/a"],
        ["-sSd", "x", "MQTT://{h}:4871/a"],
        ["-m", "1", "--url", "mqtt://u:p@{h}:1883/a"],
        ["--proto-default", "mqtt", "{h}/a"],
        ["-dx", "mqtt://{h}"],
    ],
)
def test_curl_connects_where_its_arguments_are_read_to_say(listener: Listener, words: list[str]) -> None:
    agree([program("curl"), *(word.format(h=HOSTS[0]) for word in words)], listener)


@pytest.mark.parametrize(
    "text",
    [
        "echo x > /dev/tcp/{h}/1883",
        "exec 3<>/dev/tcp/{h}/amqp",
        "H={h}; P=5222; exec 3<>/dev/tcp/$H/$P; cat <&3",
        "(echo a; echo b) | nc.openbsd -w 1 '{h}' 18\"83\"",
        "if true; then\n mosquitto_pub -h {h} \\\n -t a -n\nfi",
        "case x in x) mosquitto_sub -t 'a' -h {h};; esac",
        "f() {{ mosquitto_sub -t 'a' -h $H; }}; H={h}; f",
        "for h in {h}; do mosquitto_pub -t a -n -h $h; done",
        "X=$(mosquitto_sub -h {h} -t a -C 1 2>/dev/null)",
        "mosquitto_pub -t a -n -h `echo {h}`",
        "! time nohup mosquitto_pub -t a -n -h {h} >/dev/null 2>&1 & wait",
        "mosquitto_pub -l -t a -h {h} <<'E' && true\n-h x\nE",
        "mosquitto_pub -s -t a -h {h} <<< '-h x'",
        "env -i PATH=$PATH timeout 2 mosquitto_pub -t a -n -h {h}",
        "bash -c 'exec mosquitto_pub -t a -n -h {h}'",
        "$'mosquitto\\x5fpub' -t a -n -h {h}",
        "python3 -c 'import paho.mqtt.client as m; c = m.Client(m.CallbackAPIVersion.VERSION2); c.connect(\"{h}\")'",
        "python3 - <<E\nimport pika\npika.BlockingConnection(pika.ConnectionParameters('{h}'))\nE",
    ],
)
def test_a_shell_and_what_it_starts_connect_where_the_text_is_read_to_say(
    listener: Listener, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    command = [program("bash"), "-c", text.format(h=HOSTS[0])]
    reached = listener.reached(command)
    found = read(command)
    assert reached is not None
    assert found is not None
    assert found.shell
    # What a function, a loop or a program puts into a variable is not known; then no host is claimed.
    unknown = "f()" in text or "for h" in text or "`" in text
    assert (found.host, found.port) == ((None, reached[1]) if unknown else reached)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    with mosquitto(tmp_path_factory.mktemp("topics"), ["log_type all"]) as running:
        yield running


@EXAMPLES
@given(
    st.lists(TOPIC, min_size=1, max_size=3),
    st.lists(st.sampled_from([["-m", "-t"], ["-q", "1"], ["-i", "-t"], ["--will-topic", "w/-t"], ["-r"]]), max_size=3),
    st.booleans(),
)
def test_a_publisher_publishes_on_the_topic_that_is_read(
    broker: Mosquitto, topics: list[str], others: list[list[str]], url: bool
) -> None:
    words = [word for topic in topics for word in ("-t", topic)]
    for other in others:
        words += other
    if url:
        words += ["-L", f"mqtt://127.0.0.1:{broker.port}/{topics[0]}"]
    if ["-m", "-t"] not in others:
        words += ["-n"]
    command = [program("mosquitto_pub"), "-d", "-h", "127.0.0.1", "-p", str(broker.port), *words]
    done = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", timeout=10)
    if done.returncode == 0:
        sent = re.findall(r"sending PUBLISH \(d0, q\d, r\d, m\d+, '(.*)', \.\.\.", done.stdout)
        found = read(command)
        assert found is not None
        assert found.names[:1] == tuple(sent)


@EXAMPLES
@given(st.lists(st.sampled_from(["a/#", "+/b", "c", "$SYS/#", "-t"]), min_size=1, max_size=4, unique=True))
def test_a_subscriber_subscribes_to_the_filters_that_are_read(broker: Mosquitto, filters: list[str]) -> None:
    words = [word for one in filters for word in ("-t", one)]
    command = [program("mosquitto_sub"), "-E", "-d", "-p", str(broker.port), "-h", "127.0.0.1", *words, "-T", "x/#"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    sent = re.findall(r"Topic: (.*), QoS", done.stdout)
    found = read(command)
    assert found is not None
    assert list(found.names) == sent == filters


HELP = {
    "mosquitto_pub": ["--help"],
    "mosquitto_sub": ["--help"],
    "mosquitto_rr": ["--help"],
    "amqp-publish": ["--help"],
    "amqp-consume": ["--help"],
    "amqp-get": ["--help"],
    "amqp-declare-queue": ["--help"],
    "amqp-delete-queue": ["--help"],
    "ncat": ["--help"],
    "openssl": ["s_client", "-help"],
    "curl": ["--help", "all"],
    "rabbitmqadmin": ["--help"],
}


@pytest.mark.parametrize("name", HELP)
def test_the_table_has_each_option_that_a_tools_help_names_and_whether_it_has_a_value(name: str) -> None:
    done = subprocess.run([program(name), *HELP[name]], capture_output=True, text=True, timeout=20)
    tool = TOOLS[name]
    seen = 0
    for line in (done.stdout + done.stderr).splitlines():
        match = re.match(
            r"^ {0,12}(-[\w.?#:-]+(?:[ =][A-Za-z_.<][\w.:/<>|-]*)?(?:, --?[\w.?-]+(?:[ =][\w.:/<>-]+)?)*)", line
        )
        if match is None or (name.startswith("mosquitto") and not line.startswith(" -")):
            continue
        for spelled in match[1].split(", "):
            option = re.split(r"[ =]", spelled)[0]
            means = tool.options.get(option)
            if means is None:
                assert name in ("curl", "openssl"), (name, line)
                assert not _valued(name, line), line
                continue
            seen += 1
            if name not in ("curl", "openssl"):
                continue
            assert has_value(means) == _valued(name, line) or means is Means.STOP, (name, line)
    assert seen > 5


def _valued(name: str, line: str) -> bool:
    """Whether a line of help says that an option has a value."""
    if name == "curl":
        return re.search(r"--[\w.-]+ [<\[]", line) is not None
    return re.match(r"\s*-\S+ (?:val|infile|outfile|\+?int|intmax|uri|dir|PEM\|DER\S*)(?:\s|$)", line) is not None
