"""Tells which decoder a file needs by its first bytes."""

from __future__ import annotations

import re
import zlib
from typing import Final

from topicwarden_collectors.host.auditd_records import RECORD
from topicwarden_collectors.host.sysmon import HEADER

HEAD_BYTES: Final = 4096
"""How much of a file is asked for."""
GZIP_MAGIC: Final = b"\x1f\x8b"

_AUDIT: Final = re.compile(
    rb"(?:node=\S{1,255} )?type=[A-Z][A-Z0-9_]+(?:\[\d+\])? msg=audit\(\d{1,10}\.\d{1,9}:\d{1,20}\):"
)
_ZEEK_PATH: Final = re.compile(rb"^#path[\t ](?:conn|mqtt_connect|mqtt_publish|mqtt_subscribe)$", re.MULTILINE)
_ZEEK_JSON: Final = re.compile(rb'"id(?:\.orig_h"|":\s*\{\s*"orig_h")')
_SURICATA: Final = re.compile(rb'"event_type":\s*"[a-z0-9_]+"')
_JOURNAL: Final = re.compile(rb'"SYSLOG_IDENTIFIER"\s*:\s*"sysmon"')
_SYSMON_XML: Final = b'<Event><System><Provider Name="Linux-Sysmon"'
_ECS: Final = (re.compile(rb'"@timestamp"\s*:\s*"'), re.compile(rb'"(?:event|ecs|host|agent)(?:"\s*:\s*\{|\.\w+")'))


def recognise(head: bytes) -> str | None:
    """Return `auditd`, `sysmon`, `ecs`, `zeek` or `suricata` for the first 4 KiB of a file, packed or plain, else None.

    Only what no broker's log looks like is taken: a broker's name or topic may hold any of this, so it counts where
    these logs have it, at the beginning of a line or in a JSON object's own keys.
    """
    lines = [line for line in _unpacked(head).split(b"\n") if line.strip()]
    if not lines:
        return None
    if any(_AUDIT.match(line) or RECORD.match(line) for line in lines[:8]):
        return "auditd"
    if lines[0].startswith(b"#separator ") or _ZEEK_PATH.match(lines[0]):
        return "zeek" if any(_ZEEK_PATH.match(line) for line in lines[:12]) else None
    if lines[0].startswith(b"__CURSOR="):
        return "sysmon" if b"SYSLOG_IDENTIFIER=sysmon" in lines else None
    if any(line.startswith(_SYSMON_XML, match.end()) for line in lines if (match := HEADER.match(line))):
        return "sysmon"
    return _recognise_json(lines[0]) if lines[0].startswith(b"{") else None


def _recognise_json(line: bytes) -> str | None:
    if _JOURNAL.search(line) and b"<Event>" in line:
        return "sysmon"
    if _SURICATA.search(line) and b'"timestamp"' in line:
        return "suricata"
    if _ZEEK_JSON.search(line) and (b'"ts"' in line or b'"_path"' in line):
        return "zeek"
    if all(mark.search(line) for mark in _ECS):
        return "ecs"
    return None


def _unpacked(head: bytes) -> bytes:
    if not head.startswith(GZIP_MAGIC):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, 16 * HEAD_BYTES)
    except zlib.error:
        return b""
