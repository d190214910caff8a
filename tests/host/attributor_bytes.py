"""Records as the helper topicwarden-attribute writes them, for tests; and the golden file of some.

    .venv/bin/python -m tests.host.attributor_bytes

writes `golden/attributor.records` and what it must decode to, `golden/attributor.events.jsonl`.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Final

from tests.host.recordings import FOLDER, row_of
from topicwarden_collectors.host.attributor_records import RecordDecoder, host_events

RECORDS: Final = FOLDER / "attributor.records"
EVENTS: Final = FOLDER / "attributor.events.jsonl"
TIME_NS: Final = 1_790_000_000_000_000_000
BOOTED_NS: Final = TIME_NS - 100_000 * 10**9
NOBODY: Final = 2**32 - 1
CGROUPS: Final = b"0::/system.slice/docker-" + b"a1" * 32 + b".scope\n"


def record(
    kind: int = 2,
    result: int = 0,
    *,
    family: int = 4,
    flags: int = 0,
    client: tuple[str, int] = ("127.0.0.1", 51432),
    broker: tuple[str, int] = ("127.0.0.1", 1883),
    pid: int = 4711,
    parent_pid: int = 4700,
    socket_user: int = 0,
    ticks: int = 9_999_900,
    dropped: int = 0,
    user: int = 0,
    login_user: int = NOBODY,
    terminal: int = 0,
    executable: bytes = b"/usr/bin/mosquitto_pub",
    parent: bytes = b"/usr/bin/dash",
    command: bytes = b"mosquitto_pub\0-t\0c2/beacon\0-m\0hello\0",
    cgroups: bytes = b"0::/\n",
    path: bytes = b"",
) -> bytes:
    """One record, field by field as in attribute_wire.h."""
    texts = (executable, parent, command, cgroups, path)
    to_bytes = socket.AF_INET6 if family == 6 else socket.AF_INET
    addresses = [socket.inet_pton(to_bytes, address).ljust(16, b"\0") for address, _ in (client, broker)]
    size = 120 + sum(map(len, texts))
    head = struct.pack("<II", 0x4F485754, size)
    head += struct.pack("<HBBBBHHH", 1, kind, result, family, flags, client[1], broker[1], 0)
    head += struct.pack("<IIIQQQ", pid, parent_pid, socket_user, TIME_NS, ticks, dropped)
    head += struct.pack("<IIi", user, login_user, terminal) + b"".join(addresses)
    head += struct.pack("<5I", *map(len, texts))
    return head + b"".join(texts)


def ready() -> bytes:
    """The first record."""
    return bare(kind=1, family=0, client=("0.0.0.0", 0), broker=("0.0.0.0", 0), socket_user=NOBODY)


def bare(**fields: object) -> bytes:
    """A record that names no process."""
    nothing = {
        "pid": 0,
        "parent_pid": 0,
        "ticks": 0,
        "user": NOBODY,
        "executable": b"",
        "parent": b"",
        "command": b"",
        "cgroups": b"",
    }
    return record(**{**nothing, **fields})  # type: ignore[arg-type]  # the fields are record's own


def golden_bytes() -> bytes:
    """One record of each kind."""
    v6 = {"family": 6, "client": ("2001:db8::7", 40000), "broker": ("2001:db8::7", 8883)}
    secret = b"mosquitto_pub\0-u\0alice\0-P\0S3cret\0-h\0localhost\0-t\0plant/1\0-m\0on\0"
    return b"".join(
        [
            ready(),
            record(),
            record(command=secret, login_user=0, terminal=(136 << 8) | 3, pid=4712, dropped=2),
            record(family=6, client=("::1", 40001), broker=("::1", 1883), executable=b"/usr/bin/nc (deleted)"),
            record(**v6, parent_pid=0, parent=b"", cgroups=CGROUPS),  # type: ignore[arg-type]
            record(command=b"\xff\xfe\0", executable=b"/tmp/\xff", flags=1, pid=1, ticks=0),
            bare(result=2, socket_user=0),
            bare(result=3, socket_user=NOBODY),
            record(family=1, client=("0.0.0.0", 0), broker=("0.0.0.0", 0), path=b"/run/mosquitto.sock"),
            bare(result=4, family=1, client=("0.0.0.0", 0), broker=("0.0.0.0", 0), path=b"/run/mosquitto.sock"),
        ]
    )


def golden_lines(data: bytes) -> str:
    """What records decode to, one event a line."""
    rows = [
        json.dumps(row_of(event))
        for one in RecordDecoder().feed(data)
        for event in host_events(one, "golden", BOOTED_NS)
    ]
    return "\n".join([*rows, ""])


def main() -> None:
    """Write the golden files."""
    RECORDS.write_bytes(golden_bytes())
    EVENTS.write_text(golden_lines(golden_bytes()))


if __name__ == "__main__":
    main()
