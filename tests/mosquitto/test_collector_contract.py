"""Mosquitto's collectors for files and `$SYS` keep the collector contract (the ring's is beside its own tests)."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.brokers import free_port, mosquitto
from tests.collector_contract import PAYLOAD_MARK, CollectorContract, Stage
from topicwarden.sources import Collector, SourceOptions
from topicwarden_collectors.mosquitto import BROKER


def _publish(port: int) -> None:
    client = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-i", "somebody"]
    subprocess.run([*client, "-t", "a/b", "-m", PAYLOAD_MARK, "-q", "1"], check=True, timeout=20)


class TestLogCollector(CollectorContract):
    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        log = folder / "mosquitto.log"
        config = [f"log_dest file {log}", "log_type all", "user root"]
        with mosquitto(folder / "broker", config) as broker:
            collector = BROKER.watch(f"log:{log}", SourceOptions(broker="b"))

            def garbage() -> None:
                with log.open("ab") as file:
                    file.write(b"1700000000: Received PUBLISH from \xff\xfe (d9\n")

            yield Stage(collector, lambda: _publish(broker.port), _published, garbage)

    def build_on_nothing(self, folder: Path) -> Collector:
        return BROKER.watch(f"log:{folder / 'none.log'}", SourceOptions())


def _published(rows: list[dict[str, Any]]) -> bool:
    return any(
        row["action"] == "publish" and row["client"]["client_id"] == "somebody" and row["resource"]["name"] == "a/b"
        for row in rows
    )


class TestSysCollector(CollectorContract):
    @contextlib.contextmanager
    def stage(self, folder: Path) -> Iterator[Stage]:
        with mosquitto(folder / "broker", ["log_dest topic", "log_type all", "connection_messages true"]) as broker:
            collector = BROKER.watch(f"mqtt://127.0.0.1:{broker.port}", SourceOptions(broker="b"))
            yield Stage(collector, lambda: _publish(broker.port), _connected)

    def build_on_nothing(self, folder: Path) -> Collector:
        return BROKER.watch(f"mqtt://127.0.0.1:{free_port()}", SourceOptions())


def _connected(rows: list[dict[str, Any]]) -> bool:
    return any(row["client"]["client_id"] == "somebody" for row in rows)
