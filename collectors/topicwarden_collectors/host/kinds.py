"""The kinds of logs that hosts and sensors leave, and the names that sources are given by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden_collectors.host.auditd import AuditdDecoder
from topicwarden_collectors.host.ecs_lines import EcsDecoder
from topicwarden_collectors.host.lines import LineDecoder
from topicwarden_collectors.host.suricata import SuricataDecoder
from topicwarden_collectors.host.sysmon import SysmonDecoder
from topicwarden_collectors.host.zeek import PATHS, ZeekDecoder


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of log."""

    name: str
    """The prefix of its sources."""
    title: str
    decoder: type[LineDecoder]
    hint: str
    """Where its path is found."""
    warm_up_bytes: int = 1 << 16
    """How much before the place where reading goes on is read without giving events."""


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        # Events begun before: the records of the longest command line take a little more than 4 MiB.
        Kind("auditd", "auditd log", AuditdDecoder, "`log_file` in /etc/audit/auditd.conf names it", 6 << 20),
        Kind("sysmon", "Sysmon for Linux", SysmonDecoder, "name the syslog file, or sysmon:journal"),
        Kind("ecs", "ECS events", EcsDecoder, "name the file that the agent's `output.file` writes"),
        Kind("zeek", "Zeek", ZeekDecoder, "name a conn.log or mqtt_*.log, or the folder they are in"),
        # Which end of a flow is the client.
        Kind("suricata", "Suricata", SuricataDecoder, "`filename` under `eve-log` in suricata.yaml names it", 4 << 20),
    )
}
HOST: Final = "host"
JOURNAL: Final = "journal"
"""What stands for a path in `sysmon:journal`."""
STANDARD_INPUT: Final = "-"


def split_source(source: str) -> tuple[str | None, str]:
    """Return a source's prefix, when it is one of ours, and the rest."""
    prefix, colon, rest = source.partition(":")
    if source == HOST:
        return HOST, ""
    return (prefix, rest) if colon and (prefix == HOST or prefix in KINDS) else (None, source)


def current_logs(folder: Path) -> Sequence[Path]:
    """Return where Zeek writes the logs that matter, in its folder."""
    return [folder / f"{name}.log" for name in PATHS]
