"""A node with the plugin, built from its sources, and a way to run Erlang in it."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.brokers import wait_for
from topicwarden_collectors.rabbitmq.node import Node, running_node
from topicwarden_collectors.rabbitmq.plugin_build import PLUGIN, build_plugin

PROTOCOLS = ("rabbitmq_management", "rabbitmq_mqtt", "rabbitmq_stomp")
CRASHES = ("crash", "CRASH REPORT", "badarg", "badmatch", "undef", "function_clause", "topicwarden_audit: ")
"""What in the broker's log shows that something of ours went wrong."""


@contextlib.contextmanager
def plugin_node(
    folder: Path, *, plugins: Sequence[str] = (*PROTOCOLS, PLUGIN), advanced: str | None = None
) -> Iterator[Node]:
    """Run a node that finds the plugin in `folder`/ez; `advanced` is its advanced.config."""
    (folder / "ez").mkdir(parents=True, exist_ok=True)
    build_plugin(folder / "ez")
    with running_node(folder / "node", plugins=plugins, plugin_folders=[folder / "ez"], advanced=advanced) as node:
        try:
            yield node
        finally:
            # An orderly stop takes 6 s, with the plugin and without.
            node.stop(at_once=True)


def erlang(node: Node, expression: str) -> str:
    """Evaluate an Erlang expression in the node and return its value, printed; far cheaper than rabbitmqctl."""
    code = f'R = fun() -> {expression} end(), lists:flatten(io_lib:format("~0tp", [R])).\n'
    # On a busy machine its handshake with the node takes longer than it waits; then nothing has been evaluated.
    for _ in range(5):
        done = subprocess.run(
            ["erl_call", "-sname", node.name, "-c", cookie(node), "-e"],
            input=code,
            env=dict(node.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode == 0 or "failed to connect" not in done.stderr:
            break
    assert done.stdout.startswith("{ok, "), done.stdout + done.stderr
    return done.stdout[len("{ok, ") : -1].strip('"').replace('\\"', '"')


def cookie(node: Node) -> str:
    return (node.folder / "home" / ".erlang.cookie").read_text()


def enable(node: Node, *plugins: str) -> None:
    """Make these the node's plugins while it runs, as `rabbitmq-plugins` does."""
    wait_for(lambda: erlang(node, "rabbit:is_running()") == "true", "the node to have started")
    path = node.folder / "enabled_plugins"
    path.write_text(f"[{','.join(plugins)}].\n")
    answer = erlang(node, f'rabbit_plugins:ensure("{path}")')
    assert answer.startswith("{ok,"), answer


def crashes(node: Node) -> list[str]:
    """Return the lines of the broker's log so far that show a crash, or a complaint of the plugin."""
    # The log is written some time later, in order.
    mark = f"mark {secrets.token_hex(8)}"
    erlang(node, f'rabbit_log:error("{mark}")')
    wait_for(lambda: mark in node.log.read_text("utf-8", "replace"), "the log to be written")
    lines = node.log.read_text("utf-8", "replace").splitlines()
    return [line for line in lines if any(sign in line for sign in CRASHES)]


def wait_until_recording(node: Node, recording: bool = True) -> None:
    """Wait until the plugin has seen that somebody is bound to its exchange, or nobody."""
    ask = "topicwarden_audit_ring:generation(topicwarden_audit_ring:current())"
    wait_for(lambda: (erlang(node, ask) != "0") is recording, f"recording to be {recording}")
