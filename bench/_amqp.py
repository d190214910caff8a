"""The load generator and the drain over librabbitmq, and a node's CPU time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden_collectors.rabbitmq.node import ADMINISTRATOR, Node

TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
VHOST: Final = "/"
EXCHANGE: Final = "amq.topic"
KEY: Final = "plant.line1.press-1.telemetry"
ROUTED_KEY: Final = "plant.line2.press-2.telemetry"
PATIENCE_SECONDS: Final = 120.0


def build_load(folder: Path) -> Path:
    """Compile the load generator."""
    built = folder / "amqp_load"
    source = Path(__file__).with_name("amqp_load.c")
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", built, source, "-lrabbitmq"], check=True)
    return built


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU the process has used, user and system, in all its threads (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


@dataclass(frozen=True)
class Load:
    """The program, to be used against any node."""

    program: Path

    def _command(self, node: Node, what: str, *arguments: str | float) -> tuple[list[str], dict[str, str]]:
        address = [str(node.ports.amqp), ADMINISTRATOR, VHOST]
        command = [str(self.program), what, *address, *map(str, arguments)]
        return command, {**os.environ, "AMQP_PASSWORD": node.password}

    def publish(self, node: Node, key: str, size: int, messages: int, seconds: float = 0) -> tuple[int, float]:
        """Publish so many messages, or for so many seconds, as fast as the node takes them; return both."""
        command, environment = self._command(node, "publish", EXCHANGE, key, size, messages, seconds)
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        sent, taken = done.stdout.split()
        return int(sent), float(taken)

    @contextlib.contextmanager
    def draining(self, node: Node, exchange: str, key: str) -> Iterator[Drain]:
        """Consume what an exchange has for this binding key, for as long as the context lasts."""
        command, environment = self._command(node, "drain", exchange, key)
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                if process.stdout.readline() != "ready\n":
                    raise SystemExit(f"cannot drain {exchange} of {node.name}")
                yield Drain(process)
            finally:
                process.stdin.close()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


@dataclass(frozen=True)
class Drain:
    """A consumer at work."""

    process: subprocess.Popen[str]

    def so_far(self) -> tuple[int, int]:
        """Return the messages and the bytes of bodies it got."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        messages, size = self.process.stdout.readline().split()
        return int(messages), int(size)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Return once the condition holds; end the benchmark when it does not come true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE_SECONDS:.0f} s in vain for {what}")
        time.sleep(0.02)
