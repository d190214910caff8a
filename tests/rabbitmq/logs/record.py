"""Records the logs in this folder from a real node: what a scenario's clients do, as RabbitMQ writes it down.

    .venv/bin/python -m tests.rabbitmq.logs.record
    .venv/bin/python -m tests.rabbitmq.logs.record --events

The first form writes `SCENARIO.log`, the node's text log, and `SCENARIO.json.log`, what the log exchange gave; ports,
times and processes differ each time. The second decodes every log into `NAME.events.jsonl`, and every JSON one into
`NAME.facts.txt`, too: read the difference before committing it. 3.10.8 is Debian 12's package.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pika

from tests.brokers import wait_for
from tests.mosquitto.logs.record import rows_of
from tests.rabbitmq.logs.scenarios import Stage, everyday, hostile
from topicwarden.sources import Counters, SourceOptions
from topicwarden_collectors.rabbitmq.log_facts import Fact
from topicwarden_collectors.rabbitmq.log_file import read_log
from topicwarden_collectors.rabbitmq.log_messages import LogJoiner, LogMessage, decode_log
from topicwarden_collectors.rabbitmq.log_spelling import Spelling
from topicwarden_collectors.rabbitmq.node import Node, running_node

FOLDER: Final = Path(__file__).parent
SCENARIOS: Final[Sequence[Callable[[Stage], None]]] = (everyday, hostile)
CONFIG: Final = (
    "log.exchange = true",
    "log.exchange.level = info",
    "log.exchange.formatter = json",
    # With the exchange alone configured, 3.10.8 writes no log file at all.
    "log.file.level = info",
)


class Tap:
    """A queue bound to the log exchange."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._connection = pika.BlockingConnection(pika.URLParameters(node.url()))
        self._channel = self._connection.channel()
        self._queue = self._channel.queue_declare("", exclusive=True).method.queue
        self._channel.queue_bind(self._queue, "amq.rabbitmq.log", "#")
        self.bodies: list[bytes] = []

    def take(self, until: bytes) -> list[bytes]:
        """Return the bodies up to one that holds `until`."""
        begin = len(self.bodies)

        def arrived() -> bool:
            while (got := self._channel.basic_get(self._queue, auto_ack=True))[0] is not None:
                self.bodies.append(got[2] or b"")
            return any(until in body for body in self.bodies[begin:])

        wait_for(arrived, f"{until!r} in the log exchange")
        return self.bodies

    def wait_until_it_speaks(self) -> None:
        """Return once messages come: for up to 5 s after the node's start they do not, and those are lost (3.10.8)."""

        def speaks() -> bool:
            self._node.add_user("the beginning", "x")
            return self._channel.basic_get(self._queue, auto_ack=True)[0] is not None

        wait_for(speaks, "a message in the log exchange")

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def decode(bodies: Sequence[bytes], spelling: Spelling) -> list[Fact]:
    """Return what log messages say, joined."""
    joiner = LogJoiner(spelling)
    facts: list[Fact] = []
    for body in bodies:
        message = decode_log(body)
        assert isinstance(message, LogMessage), body
        facts += joiner.feed(message)
    return [*facts, *joiner.flush()]


def facts_text(data: bytes) -> str:
    """Return the facts of a JSON log, one a line."""
    facts = decode([line for line in data.split(b"\n") if line], Spelling.BYTES)
    return "".join(f"{fact!r}\n" for fact in facts)


def golden_lines(path: Path) -> str:
    """Return what belongs into an events file: rows, notices, and last the counts."""
    counters = Counters()
    rows: list[dict[str, Any]] = []
    for batch in read_log(path, SourceOptions(broker="golden"), counters):
        rows += rows_of(batch)
    rows.append({"decode_errors": counters.decode_errors, "counts": counters.source})
    return "".join(json.dumps(row) + "\n" for row in rows)


def without_boot(log: bytes) -> bytes:
    """Return a log without what a start says beside the version."""
    lines = log.split(b"\n")
    first = next(number for number, line in enumerate(lines) if b"Starting RabbitMQ" in line)
    ready = next(number for number, line in enumerate(lines) if b"Server startup complete" in line)
    return b"\n".join([*lines[first - 1 : first + 1], *lines[ready:]])


def record() -> None:
    """Run every scenario on a node of its own."""
    for scenario in SCENARIOS:
        with tempfile.TemporaryDirectory() as folder, running_node(Path(folder), config=CONFIG) as node:
            tap = Tap(node)
            tap.wait_until_it_speaks()
            scenario(Stage(node, "prod"))
            node.add_user("the end", "x")
            bodies = tap.take(b"Created user 'the end'")
            tap.close()
            node.stop()
            name = scenario.__name__
            data = without_boot(node.log.read_bytes())
            for what, real in ((folder, "/var/lib/rabbitmq"), (node.name, "rabbit@localhost")):
                data = data.replace(what.encode(), real.encode())
            (FOLDER / f"{name}.log").write_bytes(data)
            # The exchange is not there yet when the node says its version.
            start = "\n Starting RabbitMQ 3.10.8 on Erlang 25.2.3"
            first = {"time": "2026-11-23 12:00:00.000000+00:00", "level": "info", "msg": start, "pid": "<0.223.0>"}
            kept = b"".join(body.replace(folder.encode(), b"/var/lib/rabbitmq") for body in bodies)
            (FOLDER / f"{name}.json.log").write_bytes(json.dumps(first).encode() + b"\n" + kept)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--events", action="store_true")
    if not parser.parse_args().events:
        record()
        return
    for path in sorted(FOLDER.glob("*.log")):
        (path.parent / f"{path.name.removesuffix('.log')}.events.jsonl").write_text(golden_lines(path))
        if path.name.endswith(".json.log"):
            (path.parent / f"{path.name.removesuffix('.log')}.facts.txt").write_text(facts_text(path.read_bytes()))


if __name__ == "__main__":
    main()
