"""The recordings in `golden/`, and what each must decode to.

    .venv/bin/python -m tests.host.recordings

decodes every `NAME.log` into `NAME.events.jsonl`: read the difference before committing it. The audit logs were written
by auditd 3.0.9 on kernel 6.18, `auditd-interleaved` with eight programs busy on two processors (PATH, CWD and
BPRM_FCAPS records taken out, paths of the machine renamed). The others are put together by hand after the programs that
write such logs: Sysmon for Linux 1.3 (outputxml.c), Elastic Defend and Auditbeat (their packages' samples), Zeek
(scripts/base/protocols/{conn,mqtt}/main.zeek), Suricata (rust/src/mqtt/logger.rs, output-json-mqtt.c).
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from topicwarden.events import HostEvent
from topicwarden.sources import Counters
from topicwarden_collectors.host.auditd import AuditdDecoder
from topicwarden_collectors.host.ecs_lines import EcsDecoder
from topicwarden_collectors.host.lines import LineDecoder
from topicwarden_collectors.host.recognise import HEAD_BYTES, recognise
from topicwarden_collectors.host.suricata import SuricataDecoder
from topicwarden_collectors.host.sysmon import SysmonDecoder
from topicwarden_collectors.host.zeek import ZeekDecoder

FOLDER: Final = Path(__file__).parent / "golden"
DECODERS: Final[dict[str, type[LineDecoder]]] = {
    "auditd": AuditdDecoder,
    "ecs": EcsDecoder,
    "suricata": SuricataDecoder,
    "sysmon": SysmonDecoder,
    "zeek": ZeekDecoder,
}


def decode(data: bytes, kind: str | None = None, *, piece: int = 1 << 16) -> tuple[list[HostEvent], Counters]:
    """Decode a whole log in pieces of a size; `kind` as `recognise` names it, None: ask it."""
    kind = kind or recognise(data[:HEAD_BYTES])
    assert kind is not None
    counters = Counters()
    decoder = DECODERS[kind](counters, host="golden")
    events: list[HostEvent] = []
    for start in range(0, len(data), piece):
        events += decoder.feed(data[start : start + piece])
    events += decoder.finish()
    assert counters.events == len(events)
    return events, counters


def row_of(event: HostEvent) -> dict[str, Any]:
    """Return an event as JSON values; what is not known is left out."""
    return {"event": type(event).__name__.lower(), **_known(asdict(event))}


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _known(value) if isinstance(value, dict) else round(value, 3) if isinstance(value, float) else value
        for key, value in row.items()
        if value is not None
    }


def golden_lines(data: bytes) -> str:
    """Return the golden form of what a log decodes to: one event a line, then what was counted."""
    events, counters = decode(data)
    rows = [json.dumps(row_of(event)) for event in events]
    counted = {"errors": counters.decode_errors, **counters.source}
    return "\n".join([*rows, json.dumps(counted, sort_keys=True), ""])


def main() -> None:
    """Write the golden files."""
    for log in sorted(FOLDER.glob("*.log")):
        log.with_suffix(".events.jsonl").write_text(golden_lines(log.read_bytes()))


if __name__ == "__main__":
    main()
