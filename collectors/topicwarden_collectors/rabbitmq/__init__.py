"""RabbitMQ: its event, log and trace exchanges, our plugin's stream, its log, its configuration; and the demo.

`BROKER` is the package's entry point. The parts are imported when first used, so that naming the broker costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from topicwarden.events import Client, EventBatch
    from topicwarden.grants import Export, Grants, Probe
    from topicwarden.policy import Policy
    from topicwarden.sources import Collector, Counters, Demo, DoctorReport, FileAbout, SourceOptions


class RabbitmqBroker:
    """RabbitMQ as `topicwarden.sources.Broker`; sources are an amqp:// address or a log file."""

    name = "rabbitmq"

    def default_source(self) -> str | None:
        """Return None: a node is asked with an account, and nobody has named one."""
        return None

    def recognises(self, source: str, head: bytes) -> bool:
        """Whether the source is an AMQP address, a RabbitMQ log, configuration or export of definitions."""
        if source.startswith(("amqp://", "amqps://")):
            return True
        path = Path(source)
        if path.name in ("rabbitmq.conf", "advanced.config", "rabbitmq", "enabled_plugins"):
            return True
        if not head:
            return False
        from topicwarden_collectors.rabbitmq.log_file import looks_like_log

        marks = (b'"rabbit_version"', b'"rabbitmq_version"', b'"topic_permissions"')
        return looks_like_log(head) or any(mark in head for mark in marks)

    def watch(self, source: str, options: SourceOptions) -> Collector:
        """Build the collector the address asks for; by default the plugin's stream where the node has the plugin.

        Raises ConfigurationError for a log file, which can only be read afterwards.
        """
        if not source.startswith(("amqp://", "amqps://")):
            from topicwarden.errors import ConfigurationError, Problem

            raise ConfigurationError(
                Problem(
                    "RabbitMQ's log file is not watched as it grows",
                    source,
                    hint="read it afterwards with `topicwarden check`, or watch amqp://USER@HOST?mode=stock",
                )
            )
        from topicwarden_collectors.rabbitmq.address import parse_address

        address = parse_address(source, options)
        mode = address.mode
        if mode == "auto":
            from topicwarden_collectors.rabbitmq.probe import has_plugin

            mode = "plugin" if has_plugin(address) else "stock"
        if mode == "plugin":
            from topicwarden_collectors.rabbitmq.stream import StreamCollector

            return StreamCollector(address, options)
        from topicwarden_collectors.rabbitmq.stock import StockCollector

        return StockCollector(address, options)

    def read(self, source: str, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
        """Read a log file, plain or gzipped, to its end."""
        from topicwarden_collectors.rabbitmq.log_file import read_log

        return read_log(Path(source.removeprefix("log:")), options, counters)

    def about_file(self, source: str, options: SourceOptions) -> FileAbout:
        """Say what a log can and cannot show."""
        from topicwarden_collectors.rabbitmq.log_file import about_log

        return about_log(Path(source.removeprefix("log:")), options)

    def doctor(self, target: str, options: SourceOptions) -> DoctorReport:
        """Judge a configuration, an export of definitions, or a running node."""
        from topicwarden_collectors.rabbitmq.doctor import diagnose

        return diagnose(target, options)

    def grants(self, source: str, options: SourceOptions) -> Sequence[Grants]:
        """Read exported definitions, or ask a running node's management API for them."""
        from topicwarden_collectors.rabbitmq.grants_read import read_grants

        return read_grants(source, options)

    export_targets: Final = ("rabbitmq",)

    def export(self, target: str, policy: Policy, accounts: Sequence[Client]) -> Export:
        """Write a policy as permissions and topic permissions."""
        from topicwarden_collectors.rabbitmq.export import export

        return export(target, policy, accounts)

    def probe(self, target: str, options: SourceOptions, passwords: Mapping[str, str], *, allow_publish: bool) -> Probe:
        """Connect to a running node to ask it as its users."""
        from topicwarden_collectors.rabbitmq.asking import open_probe

        return open_probe(target, options, passwords, allow_publish=allow_publish)

    def demo(self, folder: Path) -> AbstractContextManager[Demo]:
        """Start the demo."""
        from topicwarden_collectors.rabbitmq.demo import start

        return start(folder)


BROKER: Final = RabbitmqBroker()
