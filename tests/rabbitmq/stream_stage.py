"""A node with our plugin and a TLS listener, its clients, and a way to run a collector against it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from topicwarden.events import EventBatch, GrantChange, Notice
from topicwarden.events.rows import to_rows
from topicwarden.sources import Collector, SourceOptions
from topicwarden_collectors.rabbitmq.address import Address, parse_address
from topicwarden_collectors.rabbitmq.node import ALL_PROTOCOLS, Node, free_ports, running_node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN, build_plugin
from topicwarden_collectors.rabbitmq.stream import StreamCollector

AUDITOR = "auditor"
ALICE = "alice"


@dataclass
class Seen:
    """What a collector handed over."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    changes: list[GrantChange] = field(default_factory=list)

    def take(self, batch: EventBatch) -> None:
        self.rows += to_rows(batch)
        self.notices += batch.notices
        self.changes += batch.changes

    def of(self, **wanted: Any) -> list[dict[str, Any]]:
        """The rows with these values: of the row, its client or its resource."""
        return [
            row
            for row in self.rows
            if all(
                value in (row.get(name), row["client"].get(name), (row.get("resource") or {}).get(name))
                for name, value in wanted.items()
            )
        ]

    def told(self, code: str) -> list[Notice]:
        return [notice for notice in self.notices if notice.code == code]


@dataclass
class Stage:
    """The node, and the accounts on it."""

    node: Node
    tls_port: int
    folder: Path

    def options(self, **changes: Any) -> SourceOptions:
        return SourceOptions(**{"password_file": self.folder / "auditor.pw", "broker": "hive", **changes})

    def address(self, scheme: str = "amqp", host: str = "127.0.0.1", **changes: Any) -> Address:
        port = self.node.ports.amqp if scheme == "amqp" else self.tls_port
        return parse_address(f"{scheme}://{AUDITOR}@{host}:{port}", self.options(**changes))

    def collector(self, **settings: Any) -> StreamCollector:
        return StreamCollector(self.address(), self.options(), **settings)

    @contextlib.contextmanager
    def channel(self, user: str = ALICE) -> Iterator[BlockingChannel]:
        password = self.node.password if user == "operator" else f"pw-{user}"
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url(user, password=password)))
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def mqtt(self, program: str, client_id: str, *arguments: str, password: str = "pw-alice") -> None:
        command = [program, "-h", "127.0.0.1", "-p", str(self.node.ports.mqtt), "-u", ALICE, "-P", password]
        subprocess.run([*command, "-i", client_id, *arguments], check=False, capture_output=True, timeout=20)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Run the node with its accounts: `auditor` may read the stream and nothing else, `alice` may do much."""
    (folder / "ez").mkdir()
    build_plugin(folder / "ez")
    certificates(folder)
    (tls_port,) = free_ports(1)
    config = [
        f"listeners.ssl.1 = 127.0.0.1:{tls_port}",
        f"ssl_options.cacertfile = {folder}/ca.pem",
        f"ssl_options.certfile = {folder}/node.pem",
        f"ssl_options.keyfile = {folder}/node.key",
        "ssl_options.verify = verify_none",
    ]
    plugins = (*ALL_PROTOCOLS, PLUGIN)
    with running_node(folder / "node", plugins=plugins, config=config, plugin_folders=[folder / "ez"]) as node:
        (folder / "auditor.pw").write_text("pw-auditor\n")
        (folder / "wrong.pw").write_text("wrong\n")
        node.add_user(AUDITOR, "pw-auditor")
        node.permit(AUDITOR, "/", "^amq\\.gen-.*$", "^amq\\.gen-.*$", "^(amq\\.gen-.*|amq\\.topicwarden\\.audit)$")
        node.add_user(ALICE, "pw-alice", "management")
        node.permit(ALICE, "/", "^(?!bobs).*$", "^(?!bobs).*$", "^(?!bobs).*$")
        node.permit_topics(ALICE, "/", "amq.topic", "^plant\\.", "^plant\\.")
        yield Stage(node, tls_port, folder)


def certificates(folder: Path) -> None:
    """A certificate authority, a certificate for `localhost` from it, and another authority."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.pem",
                "-subj", f"/CN={name}", "-days", "2")  # fmt: skip
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=localhost")
    (folder / "names").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", "node.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", "node.pem", "-days", "2", "-extfile", "names")  # fmt: skip


def follow(
    collector: Collector, act: Callable[[], object], until: Callable[[Seen], object], *, seconds: float = 60
) -> Seen:
    """Run a collector, act once it reads, wait until enough was seen, close it; what it gave."""
    seen = Seen()

    async def collect() -> None:
        async for batch in collector.batches():
            seen.take(batch)

    async def run() -> None:
        task = asyncio.create_task(collect())
        deadline = asyncio.get_running_loop().time() + seconds

        async def reach(condition: Callable[[], object], what: str) -> None:
            while not condition():
                if task.done():
                    await task
                assert asyncio.get_running_loop().time() < deadline, f"not in time: {what}: {seen}"
                await asyncio.sleep(0.01)

        await reach(lambda: ready(collector), "the first batch of an epoch")
        await asyncio.to_thread(act)
        await reach(lambda: until(seen), "what was to be seen")
        await collector.close()
        await asyncio.wait_for(task, 2)

    asyncio.run(run())
    return seen


def ready(collector: Collector) -> bool:
    """Whether it understands what comes."""
    assert isinstance(collector, StreamCollector)
    return any(node.decoder.joined for node in collector._nodes.values())
