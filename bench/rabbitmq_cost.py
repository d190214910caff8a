"""What watching costs a real RabbitMQ: CPU for each message, plain, with the plugin, and with the firehose.

Run `python -m bench.rabbitmq_cost`. One node each, all with two schedulers; rounds take turns over them, and the ratios
are those within a round. Nothing is pinned. The management plugin, which counts every message, is on in none of them.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench._amqp import EXCHANGE, KEY, ROUTED_KEY, VHOST, Drain, Load, build_load, cpu_s, wait_for
from topicwarden_collectors.rabbitmq import stream_layout as layout
from topicwarden_collectors.rabbitmq.node import Node, running_node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN, build_plugin

AIM: Final = 1.15
SIZE: Final = 200
EVENT_BYTES: Final = 32
"""Of the plugin's stream: what one publish is at least (brokers/rabbitmq/WIRE.md)."""
TRACE: Final = f'[{{rabbit, [{{trace_vhosts, [<<"{VHOST}">>]}}]}}].\n'


@dataclass(frozen=True)
class Contestant:
    """One way to run a node: what is watched of it, if anything."""

    node: Node
    watched: str | None = None
    """The exchange a reader drains."""
    key: str = ""

    def seen(self, drain: Drain, messages: int) -> bool:
        """Whether the reader has everything of so many published messages."""
        got, size = drain.so_far()
        return size >= messages * EVENT_BYTES if self.key == "" else got >= messages


def cost(load: Load, contestant: Contestant, key: str, messages: int, *, consumed: bool) -> float:
    """Return the node's CPU microseconds for each message, from the first to when all was delivered everywhere."""
    with contextlib.ExitStack() as stack:
        reader = consumer = None
        if contestant.watched is not None:
            reader = stack.enter_context(load.draining(contestant.node, contestant.watched, contestant.key))
        if consumed:
            consumer = stack.enter_context(load.draining(contestant.node, EXCHANGE, key))
        before = cpu_s(contestant.node.pid)
        load.publish(contestant.node, key, SIZE, messages)
        if consumer is not None:
            wait_for(lambda: consumer.so_far()[0] >= messages, "the consumer's messages")
        if reader is not None:
            wait_for(lambda: contestant.seen(reader, messages), "the reader's events")
        return (cpu_s(contestant.node.pid) - before) / messages * 1e6


def compare(load: Load, contestants: Mapping[str, Contestant], rounds: int, messages: int, *, consumed: bool) -> None:
    """Load each node in turn, again and again, and print how much CPU a message costs relative to the plain one."""
    title, key = ("routed to one queue", ROUTED_KEY) if consumed else ("unrouted", KEY)
    for contestant in contestants.values():
        cost(load, contestant, key, messages // 5, consumed=consumed)
    ratios: dict[str, list[float]] = {name: [] for name in contestants}
    rates = []
    order = list(contestants)
    for _ in range(rounds):
        # Each comes after each other in turn: what ran before leaves the machine warm or busy.
        order = [*order[1:], order[0]]
        costs = {name: cost(load, contestants[name], key, messages, consumed=consumed) for name in order}
        for name, spent in costs.items():
            ratios[name].append(spent / costs["plain"])
        rates.append(costs["plain"])
    print(f"{title}, {SIZE} bytes: plain {statistics.median(rates):.1f} us a message here; times that:")
    for name, found in ratios.items():
        if name != "plain":
            aim = f"  (aim: at most {AIM})" if name == "plugin and reader" else ""
            print(f"  {name:24} {statistics.median(found):5.2f}, of {min(found):.2f} to {max(found):.2f}{aim}")


@contextlib.contextmanager
def contestants(folder: Path) -> Iterator[Mapping[str, Contestant]]:
    """Run a node for each way to watch."""
    plugin = build_plugin(folder / "plugin")
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(running_node(folder / "plain", plugins=()))
        tapped = stack.enter_context(running_node(folder / "tapped", plugins=(PLUGIN,), plugin_folders=[plugin.parent]))
        traced = stack.enter_context(running_node(folder / "traced", plugins=(), advanced=TRACE))
        yield {
            "plain": Contestant(plain),
            "plain again": Contestant(plain),
            "plugin, nobody reads": Contestant(tapped),
            "plugin and reader": Contestant(tapped, layout.EXCHANGE),
            "firehose drained": Contestant(traced, "amq.rabbitmq.trace", "publish.#"),
        }


def main() -> None:
    """Print ratios of broker CPU for each message."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=100_000, help="messages of each load")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = Load(build_load(folder))
        with contestants(folder) as running:
            for consumed in (False, True):
                compare(load, running, given.rounds, given.messages, consumed=consumed)


if __name__ == "__main__":
    main()
