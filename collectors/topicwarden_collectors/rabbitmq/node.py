"""A RabbitMQ node of our own: own name, ports, cookie, data and epmd, all in one folder, and gone afterwards.

The demo, the tests and the benchmarks use it. Debian's `rabbitmq-server` and `rabbitmqctl` in /usr/sbin are wrappers
that change user and folder, so the scripts behind them are run directly. Measured with rabbitmq-server 3.10.8 on
Debian 12: five CPU seconds to start, and the MQTT plugin waits 4.5 s more on every start.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from topicwarden.errors import ObservationError, Problem

SCRIPTS: Final = Path("/usr/lib/rabbitmq/bin")
SERVERS: Final = Path("/usr/lib/rabbitmq/lib")
START_SECONDS: Final = 120.0
"""How long a start may take on a busy machine; 6 to 25 s are usual."""
STOP_SECONDS: Final = 40.0
ALL_PROTOCOLS: Final = (
    "rabbitmq_management",
    "rabbitmq_event_exchange",
    "rabbitmq_mqtt",
    "rabbitmq_stomp",
)
ADMINISTRATOR: Final = "operator"


@dataclass(frozen=True, slots=True)
class Ports:
    """The TCP ports of 127.0.0.1 a node listens on."""

    amqp: int
    management: int
    mqtt: int
    stomp: int
    distribution: int
    epmd: int


@dataclass
class Node:
    """A running node and the way to administer it."""

    folder: Path
    name: str
    ports: Ports
    password: str
    """Of the user `operator`, who may do everything."""
    environment: Mapping[str, str]
    log: Path
    _epmd: subprocess.Popen[bytes]
    _server: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def pid(self) -> int:
        """The Erlang machine's process id."""
        return int((self.folder / "pid").read_text())

    def url(self, user: str = ADMINISTRATOR, vhost: str = "/", password: str | None = None) -> str:
        """Return an amqp:// URL for pika and others."""
        secret = urllib.parse.quote(password or self.password, safe="")
        who = urllib.parse.quote(user, safe="")
        return f"amqp://{who}:{secret}@127.0.0.1:{self.ports.amqp}/{urllib.parse.quote(vhost, safe='')}"

    def api(self, method: str, path: str, body: object = None, *, auth: tuple[str, str] | None = None) -> Any:
        """Call the management API (`/vhosts/prod`); returns its JSON, None when there is none.

        Raises urllib.error.HTTPError when the node refuses. Far cheaper than rabbitmqctl, which starts an Erlang
        machine of its own for each call.
        """
        user, password = auth or (ADMINISTRATOR, self.password)
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports.management}/api{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Basic {token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None

    def add_vhost(self, vhost: str) -> None:
        """Add a virtual host and give the administrator everything in it."""
        self.api("PUT", f"/vhosts/{quoted(vhost)}", {})
        self.permit(ADMINISTRATOR, vhost, ".*", ".*", ".*")

    def add_user(self, user: str, password: str, tags: str = "") -> None:
        """Add a user, or change the password and tags of one."""
        self.api("PUT", f"/users/{quoted(user)}", {"password": password, "tags": tags})

    def permit(self, user: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Set a user's permissions in a virtual host: regular expressions on names."""
        self.api(
            "PUT",
            f"/permissions/{quoted(vhost)}/{quoted(user)}",
            {"configure": configure, "write": write, "read": read},
        )

    def permit_topics(self, user: str, vhost: str, exchange: str, write: str, read: str) -> None:
        """Set a user's topic permissions on an exchange: regular expressions on routing keys."""
        self.api(
            "PUT",
            f"/topic-permissions/{quoted(vhost)}/{quoted(user)}",
            {"exchange": exchange, "write": write, "read": read},
        )

    def trace(self, vhost: str, on: bool) -> None:
        """Switch the firehose of a virtual host on or off."""
        self.api("PUT", f"/vhosts/{quoted(vhost)}", {"tracing": on})

    def script(self, script: str, *arguments: str) -> str:
        """Run rabbitmqctl or rabbitmq-plugins against this node and return what it printed; costs about 2 s.

        Raises ObservationError with its words when it fails.
        """
        done = subprocess.run(  # noqa: S603 - fixed programs, our own arguments
            [str(SCRIPTS / script), "-n", self.name, *arguments],
            env=dict(self.environment),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise ObservationError(Problem(f"{script} {' '.join(arguments)}: {done.stderr[-800:] or done.stdout}"))
        return done.stdout

    def start(self) -> None:
        """Start the node and wait until all its listeners answer; raises ObservationError with its log's end."""
        with (self.folder / "console.log").open("ab") as output:
            self._server = subprocess.Popen(  # noqa: S603 - a fixed program
                [str(SCRIPTS / "rabbitmq-server")],
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        wanted = [self.ports.amqp]
        # The management plugin's listener comes within a moment of the others.
        if "rabbitmq_management" in (self.folder / "enabled_plugins").read_text():
            wanted.append(self.ports.management)
        while not all(map(_answers, wanted)):
            if self._server.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise ObservationError(
                    Problem(f"the RabbitMQ node did not start: {self._last_words()}", str(self.folder))
                )
            time.sleep(0.05)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the node and wait until it has gone; `at_once`: without giving it time to tidy up."""
        server, self._server = self._server, None
        if server is None:
            return
        pid = None
        with contextlib.suppress(OSError, ValueError):
            pid = self.pid
        try:
            _signal(pid, signal.SIGKILL if at_once else signal.SIGTERM)
            if pid is None:
                server.terminate()
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            # The node is a session of its own: whatever is left of it goes with it.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait(10)
        # The pid file goes early in a shutdown and stays after a crash.
        (self.folder / "pid").unlink(missing_ok=True)

    def _last_words(self) -> str:
        text = ""
        for path in (self.folder / "console.log", self.log):
            with contextlib.suppress(OSError):
                text += path.read_text("utf-8", "replace")[-600:]
        return text or "it wrote nothing"


def quoted(name: str) -> str:
    """Return a name as one segment of the management API's paths."""
    return urllib.parse.quote(name, safe="")


@contextlib.contextmanager
def running_node(
    folder: Path,
    *,
    plugins: Sequence[str] = ALL_PROTOCOLS,
    config: Sequence[str] = (),
    advanced: str | None = None,
    plugin_folders: Sequence[Path] = (),
    start: bool = True,
) -> Iterator[Node]:
    """Run a node with its files in `folder`; leaving the context stops it and its epmd, whatever happened.

    `config` is added to rabbitmq.conf, `advanced` is the text of advanced.config; `plugin_folders` hold .ez files or
    unpacked plugins beside the packaged ones. Raises ObservationError when RabbitMQ is not installed or does not start.
    """
    folder = folder.resolve()
    for name in ("home", "mnesia", "log"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    packaged = packaged_plugins()
    epmd_program = shutil.which("epmd")
    if packaged is None or epmd_program is None:
        raise ObservationError(Problem("RabbitMQ is not installed", hint="apt-get install rabbitmq-server"))
    ports = Ports(*free_ports(6))
    password = secrets.token_hex(8)
    settings = [
        f"listeners.tcp.1 = 127.0.0.1:{ports.amqp}",
        f"default_user = {ADMINISTRATOR}",
        f"default_pass = {password}",
        "loopback_users = none",
        "log.console = false",
        # A small disk must not stop a demo.
        "disk_free_limit.absolute = 1MB",
    ]
    if "rabbitmq_management" in plugins:
        settings += [f"management.tcp.port = {ports.management}", "management.tcp.ip = 127.0.0.1"]
    if "rabbitmq_mqtt" in plugins:
        settings += [f"mqtt.listeners.tcp.1 = 127.0.0.1:{ports.mqtt}", "mqtt.allow_anonymous = false"]
    if "rabbitmq_stomp" in plugins:
        settings += [f"stomp.listeners.tcp.1 = 127.0.0.1:{ports.stomp}"]
    (folder / "rabbitmq.conf").write_text("\n".join([*settings, *config, ""]))
    (folder / "rabbitmq.conf").chmod(0o600)
    (folder / "advanced.config").write_text(advanced or "[].\n")
    (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")
    name = f"topicwarden-{ports.distribution}@localhost"
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LANG": "C.UTF-8",
        "HOME": str(folder / "home"),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_USE_LONGNAME": "false",
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PLUGINS_DIR": ":".join(map(str, [packaged, *plugin_folders])),
        "RABBITMQ_PLUGINS_EXPAND_DIR": str(folder / "expanded"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "generated"),
        "RABBITMQ_FEATURE_FLAGS_FILE": str(folder / "feature_flags"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_DIST_PORT": str(ports.distribution),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        # Two schedulers whatever the machine; the distribution listens on loopback only.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 2:2 -kernel inet_dist_use_interface {127,0,0,1}",
    }
    # A node without an epmd starts one that outlives it; with ours running it does not.
    epmd = subprocess.Popen(  # noqa: S603 - a fixed program
        [epmd_program, "-address", "127.0.0.1", "-port", str(ports.epmd)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    node = Node(folder, name, ports, password, environment, folder / "log" / f"{name}.log", epmd)
    try:
        _wait_until_answers(ports.epmd)
        if start:
            node.start()
        yield node
    finally:
        try:
            node.stop()
        finally:
            epmd.terminate()
            epmd.wait(10)
            # Had a node found none, it would have started one for itself, which outlives it.
            subprocess.run(  # noqa: S603 - a fixed program
                [epmd_program, "-port", str(ports.epmd), "-kill"], capture_output=True, timeout=10, check=False
            )


def packaged_plugins() -> Path | None:
    """Return the folder of the plugins that came with the installed RabbitMQ, or None when there is none."""
    found = sorted(SERVERS.glob("rabbitmq_server-*/plugins"))
    return found[-1] if found else None


def free_ports(count: int) -> list[int]:
    """Return TCP ports of 127.0.0.1 that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until_answers(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if time.monotonic() > deadline:
            raise ObservationError(Problem(f"epmd does not answer on port {port}", hint="check /usr/bin/epmd"))
        time.sleep(0.01)


def _signal(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
