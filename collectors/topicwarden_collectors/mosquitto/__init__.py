"""Mosquitto: the plugin's ring, its log, its `$SYS` topics, its configuration; and the demo.

`BROKER` is the package's entry point. The parts are imported when first used, so that naming the broker costs nothing.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from topicwarden.events import Client, EventBatch
    from topicwarden.grants import Export, Grants, Probe
    from topicwarden.policy import Policy
    from topicwarden.sources import Collector, Counters, Demo, DoctorReport, FileAbout, SourceOptions

DEFAULT_RING: Final = "/run/topicwarden/mosquitto.ring"
RING_MAGIC: Final = b"TWRING\r\n"
GZIP_MAGIC: Final = b"\x1f\x8b"


class MosquittoBroker:
    """Mosquitto as `topicwarden.sources.Broker`; sources are a ring file, a log file, or an mqtt:// address."""

    name = "mosquitto"

    def default_source(self) -> str | None:
        """Return the plugin's default ring when it is there."""
        return f"ring:{DEFAULT_RING}" if Path(DEFAULT_RING).exists() else None

    def recognises(self, source: str, head: bytes) -> bool:
        """Whether the source is a ring, a Mosquitto log, configuration or file of grants, or an MQTT address."""
        if source.startswith(("ring:", "log:", "mqtt://", "mqtts://")) or source.endswith((".ring", "mosquitto.conf")):
            return True
        if head.startswith(RING_MAGIC) or _looks_like_log(_unpacked(head)) or _looks_like_conf(source, head):
            return True
        return bool(head) and _looks_like_grants(source, head)

    def watch(self, source: str, options: SourceOptions) -> Collector:
        """Build the collector the source asks for; a path with no prefix is told by its content."""
        if source.startswith(("mqtt://", "mqtts://")):
            from topicwarden_collectors.mosquitto.sys_topics import SysCollector

            return SysCollector(source, options)
        if _is_ring(source):
            from topicwarden_collectors.mosquitto.ring import RingCollector

            return RingCollector(Path(source.removeprefix("ring:")), options)
        from topicwarden_collectors.mosquitto.log_tail import LogCollector

        return LogCollector(Path(source.removeprefix("log:")), options)

    def read(self, source: str, options: SourceOptions, counters: Counters) -> Iterator[EventBatch]:
        """Read a log file, plain or gzipped, to its end."""
        from topicwarden_collectors.mosquitto.log_read import read_log

        return read_log(Path(source.removeprefix("log:")), options, counters)

    def about_file(self, source: str, options: SourceOptions) -> FileAbout:
        """Say what a log can and cannot show."""
        from topicwarden.sources import FileAbout
        from topicwarden_collectors.mosquitto.log_blind_spots import LOG_BLIND_SPOTS
        from topicwarden_collectors.mosquitto.log_read import broker_name

        path = Path(source.removeprefix("log:"))
        return FileAbout(f"mosquitto log {path}", options.broker or broker_name(path), LOG_BLIND_SPOTS)

    def doctor(self, target: str, options: SourceOptions) -> DoctorReport:  # noqa: ARG002 - a file needs no account
        """Judge a mosquitto.conf."""
        from topicwarden_collectors.mosquitto.doctor import diagnose

        return diagnose(target)

    def grants(self, source: str, options: SourceOptions) -> Sequence[Grants]:
        """Read a mosquitto.conf with all it names, an acl_file, or a dynamic-security.json."""
        from topicwarden_collectors.mosquitto.grants_read import read_grants

        return read_grants(source, options)

    export_targets: Final = ("mosquitto-acl", "mosquitto-dynsec")

    def export(self, target: str, policy: Policy, accounts: Sequence[Client]) -> Export:
        """Write a policy as an acl_file or a dynamic-security.json."""
        from topicwarden_collectors.mosquitto.export import export

        return export(target, policy, accounts)

    def probe(self, target: str, options: SourceOptions, passwords: Mapping[str, str], *, allow_publish: bool) -> Probe:
        """Connect to a running Mosquitto to ask it as its users."""
        from topicwarden_collectors.mosquitto.asking import open_probe

        return open_probe(target, options, passwords, allow_publish=allow_publish)

    def demo(self, folder: Path) -> AbstractContextManager[Demo]:
        """Start the demo."""
        from topicwarden_collectors.mosquitto.demo import start

        return start(folder)


def _is_ring(source: str) -> bool:
    if source.startswith("ring:"):
        return True
    if source.startswith("log:"):
        return False
    try:
        with Path(source).open("rb") as file:
            return file.read(len(RING_MAGIC)) == RING_MAGIC
    except OSError:
        return os.fspath(source).endswith(".ring")


def _unpacked(head: bytes) -> bytes:
    """Return what a file's beginning holds when it is gzipped, else the beginning itself."""
    if not head.startswith(GZIP_MAGIC):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 65536)
    except zlib.error:
        return b""


def _looks_like_conf(source: str, head: bytes) -> bool:
    """Whether a `.conf` is written as Mosquitto's are: a word and its values, without the `=` of others."""
    lines = [line.strip() for line in head.split(b"\n")]
    settings = [line for line in lines if line and not line.startswith(b"#")]
    return source.endswith(".conf") and bool(head) and not any(b"=" in line.split(b" ", 2)[:2] for line in settings)


def _looks_like_grants(source: str, head: bytes) -> bool:
    """Whether a file's beginning is that of an acl_file or a dynamic-security.json."""
    from topicwarden_collectors.mosquitto.grants_heads import looks_like_acl_file, looks_like_dynamic_security

    return looks_like_acl_file(source, head) or looks_like_dynamic_security(head)


def _looks_like_log(head: bytes) -> bool:
    """Whether one of the first whole lines is one only Mosquitto writes."""
    marks = (
        b"mosquitto version ",
        b"New connection from ",
        b"New client connected from ",
        b"Opening ipv",
        b" PUBLISH ",
    )
    return any(mark in line for line in head.split(b"\n")[:-1] for mark in marks)


BROKER: Final = MosquittoBroker()
