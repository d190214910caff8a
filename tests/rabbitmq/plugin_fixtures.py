"""The node with the plugin that several test modules share; they name this module in `pytest_plugins`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rabbitmq.plugin_node import crashes, plugin_node
from topicwarden_collectors.rabbitmq.node import Node


@pytest.fixture(scope="session")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node with the plugin and all protocols, for tests that leave it as they found it; nothing may crash in it."""
    with plugin_node(tmp_path_factory.mktemp("audited")) as node:
        yield node
        assert crashes(node) == []
