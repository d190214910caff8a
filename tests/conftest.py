"""What tests of several packages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from topicwarden_collectors.rabbitmq.node import Node, running_node


@pytest.fixture(scope="session")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One RabbitMQ node for all tests that leave it as they found it, each in a virtual host of its own.

    A node takes 6 to 25 s to start; a test that restarts it or changes the whole node runs one of its own.
    """
    config = ["log.exchange = true", "log.exchange.level = info", "log.exchange.formatter = json"]
    with running_node(tmp_path_factory.mktemp("rabbit"), config=config) as node:
        yield node
