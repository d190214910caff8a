"""Runs the demo's clients together, and gives each what it needs: connections, tools, and the word when to stop."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

import paho.mqtt.client as paho
from pika.adapters.blocking_connection import BlockingConnection

from topicwarden.errors import ObservationError, Problem, TopicwardenError
from topicwarden_collectors.rabbitmq.demo_clients import PATIENCE_SECONDS, StompClient, amqp, mqtt
from topicwarden_collectors.rabbitmq.demo_plant import VHOST
from topicwarden_collectors.rabbitmq.node import Node

PACKAGES: Final = {"amqp-publish": "amqp-tools", "mosquitto_pub": "mosquitto-clients"}


class Stage:
    """Where the clients act. Every method may be called from any thread."""

    def __init__(self, node: Node, password: str, seconds: float) -> None:
        self.node = node
        self.seconds = seconds
        """How long the well-behaved go on; the deviations are spread over it."""
        self._password = password
        self._stop = threading.Event()
        self._failures: list[Exception] = []
        # amqp-publish reads its account from a file, so that no password stands in the list of processes.
        self._accounts = node.folder / "accounts"
        self._accounts.mkdir(mode=0o700, exist_ok=True)

    def stop(self) -> None:
        """Make `run` return soon."""
        self._stop.set()

    def pause(self, seconds: float) -> bool:
        """Wait; True when it is time to stop."""
        return self._stop.wait(seconds)

    def amqp(self, user: str) -> AbstractContextManager[BlockingConnection]:
        """Connect as this user with pika."""
        return amqp(self.node.ports.amqp, VHOST, user, self._password)

    def mqtt(self, user: str) -> AbstractContextManager[paho.Client]:
        """Connect as this user with paho."""
        return mqtt(self.node.ports.mqtt, user, self._password)

    def stomp(self, user: str) -> StompClient:
        """Connect as this user by STOMP."""
        return StompClient(self.node.ports.stomp, VHOST, user, self._password)

    def amqp_publish(self, user: str, exchange: str, key: str, body: str) -> None:
        """Publish one message with librabbitmq's tool, as shell scripts do."""
        account = self._accounts / user
        if not account.exists():
            account.touch(0o600)
            account.write_text(f"username:{user}\npassword:{self._password}\n")
        address = [f"--server=127.0.0.1:{self.node.ports.amqp}", f"--vhost={VHOST}", f"--authfile={account}"]
        self._tool("amqp-publish", *address, f"--exchange={exchange}", f"--routing-key={key}", f"--body={body}")

    def mosquitto_pub(self, user: str, topic: str, message: str) -> None:
        """Publish one message with Mosquitto's tool."""
        address = ["-h", "127.0.0.1", "-p", str(self.node.ports.mqtt), "-i", user, "-u", user, "-P", self._password]
        self._tool("mosquitto_pub", *address, "-q", "1", "-t", topic, "-m", message)

    def _tool(self, tool: str, *arguments: str) -> None:
        path = tool_path(tool)
        try:
            done = subprocess.run(  # noqa: S603 - fixed programs, our own arguments
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=2 * PATIENCE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ObservationError(Problem(f"{tool} of the demo did not end")) from None  # its arguments: a password
        if done.returncode != 0:
            raise ObservationError(Problem(f"{tool} of the demo failed: {done.stderr[-400:]}"))

    def run(self, clients: Sequence[Callable[[], None]]) -> None:
        """Run all clients to their end, each in a thread; raises ObservationError when one could not do its part."""
        threads = [threading.Thread(target=self._client, args=(client,)) for client in clients]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self._stop.set()
        if self._failures:
            first = self._failures[0]
            if isinstance(first, TopicwardenError):
                raise first
            raise ObservationError(Problem(f"a client of the demo failed: {first!r}", str(self.node.log))) from first

    def _client(self, client: Callable[[], None]) -> None:
        try:
            client()
        except Exception as error:  # noqa: BLE001 - whatever it was ends the demo and is shown there
            # Once we are stopping, a broker that goes away is no news.
            if not self._stop.is_set():
                self._failures.append(error)
                self._stop.set()


def tool_path(tool: str) -> str:
    """Return the path of one of the tools in `PACKAGES`; raises ObservationError when it is not installed."""
    path = shutil.which(tool)
    if path is None:
        raise ObservationError(Problem(f"{tool} is not installed", hint=f"apt-get install {PACKAGES[tool]}"))
    return path
