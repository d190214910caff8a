"""Runs the stock collector beside a test and gathers what it hands over."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tests.brokers import wait_for
from topicwarden.events import GrantChange, Notice
from topicwarden.events.rows import to_rows
from topicwarden.sources import SourceOptions
from topicwarden_collectors.rabbitmq.address import parse_address
from topicwarden_collectors.rabbitmq.node import Node
from topicwarden_collectors.rabbitmq.stock import StockCollector

OWN: Final = r"^amq\.gen-.*$"
READ: Final = r"^(amq\.gen-.*|amq\.rabbitmq\.(trace|event|log))$"
AUDITOR: Final = "stock-auditor"


def permit_auditor(node: Node, *vhosts: str, tags: str = "") -> None:
    """Give the auditor the least that is enough: no more than the notes and the hints say."""
    node.add_user(AUDITOR, "audit", tags)
    for vhost in ("/", *vhosts):
        node.permit(AUDITOR, vhost, OWN, OWN, READ)


def collector(node: Node, folder: Path, *, firehose: Sequence[str] = (), **parameters: str) -> StockCollector:
    """Build a collector with the auditor's account."""
    password = folder / "auditor.password"
    password.write_text("audit\n")
    pairs = {**parameters, **({"firehose": ",".join(firehose)} if firehose else {})}
    query = "&".join(f"{name}={quote(value, safe=',')}" for name, value in pairs.items())
    options = SourceOptions(broker="test", password_file=password)
    address = parse_address(f"amqp://{AUDITOR}@127.0.0.1:{node.ports.amqp}/" + (f"?{query}" if query else ""), options)
    return StockCollector(address, options, wait_s=0.02)


@dataclass
class Watch:
    """What was handed over so far; a thread of its own appends to it."""

    collector: StockCollector
    rows: list[dict[str, Any]] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    changes: list[GrantChange] = field(default_factory=list)

    def of(self, user: str | None, *actions: str) -> list[dict[str, Any]]:
        """Return the rows of a user with one of these actions, or all of them."""
        return [
            row
            for row in list(self.rows)
            if row["client"].get("user") == user and (not actions or row["action"] in actions)
        ]

    def names(self, user: str | None, action: str) -> list[str]:
        """Return the names of what a user did this to, in order."""
        return [row["resource"]["name"] for row in self.of(user, action)]

    def told(self, code: str, scope: str = "") -> list[Notice]:
        """Return the notices with a code whose scope begins like this."""
        return [notice for notice in list(self.notices) if notice.code == code and notice.scope.startswith(scope)]

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
        """Wait until something is seen."""
        wait_for(condition, what, seconds)


@contextlib.contextmanager
def watching(subject: StockCollector) -> Iterator[Watch]:
    """Run a collector until the context is left; what it raises is raised here."""
    watch = Watch(subject)
    failure: list[BaseException] = []
    loop = asyncio.new_event_loop()

    async def follow() -> None:
        async for batch in subject.batches():
            watch.rows += to_rows(batch)
            watch.notices += batch.notices
            watch.changes += batch.changes

    def run() -> None:
        try:
            loop.run_until_complete(follow())
        except BaseException as error:  # noqa: BLE001 - it is raised in the test
            failure.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        sight = subject._decoder.sight
        wait_for(lambda: failure or not thread.is_alive() or _reads(sight), "the collector to read everything")
        if not failure:
            yield watch
    finally:
        with contextlib.suppress(RuntimeError):  # it ended by itself
            asyncio.run_coroutine_threadsafe(subject.close(), loop)
        thread.join(10)
        assert not thread.is_alive()
    if failure:
        raise failure[0]


def _reads(sight: Any) -> bool:
    return sight.events is None and sight.log is None and all(one.problem is None for one in sight.firehose.values())
