"""How many events of hosts a second each decoder makes, against what a busy machine starts: 100 000 programs a minute.

    ./run bench host_decoders   (or: .venv/bin/python -m bench.host_decoders)

The recordings of the tests are repeated, with other serial numbers and times where they matter. Each round runs every
decoder once (A B C A B C …). Printed are events a second as a multiple of 100 000 a minute, the median of the rounds,
and the decoder's bytes a second relative to `json.loads` of JSON lines, or to one compiled regex a line.
"""

from __future__ import annotations

import json
import re
import statistics
import time

from tests.host.recordings import DECODERS, FOLDER
from topicwarden.sources import Counters

ROUNDS = 5
LINES = 20_000
CHUNK = 1 << 16
NEEDED = 100_000 / 60
"""Programs started a second that must be kept up with."""
_SERIAL = re.compile(rb"audit\((\d+)\.(\d+):(\d+)\)")
_BARE = re.compile(rb"(\S+) (\S+)(?: (\S+))?(.*)")


def make_log(name: str) -> bytes:
    """Return a recording repeated to some `LINES` lines."""
    data = (FOLDER / f"{name}.log").read_bytes()
    header = b"".join(line + b"\n" for line in data.split(b"\n") if line.startswith((b"#sep", b"#set", b"#unset")))
    body = data
    times = max(1, LINES // data.count(b"\n"))
    if not name.startswith("auditd"):
        return header + body * times
    return b"".join(_shifted(body, number) for number in range(times))


def _shifted(body: bytes, number: int) -> bytes:
    """Return audit records some seconds later, with serial numbers of their own."""

    def later(match: re.Match[bytes]) -> bytes:
        return b"audit(%d.%s:%d)" % (int(match[1]) + number * 10, match[2], int(match[3]) + number * 10_000)

    return _SERIAL.sub(later, body)


def decode(kind: str, data: bytes) -> int:
    """Decode as a reader does, in pieces as it reads them."""
    counters = Counters()
    decoder = DECODERS[kind](counters, host="bench")
    for start in range(0, len(data), CHUNK):
        for _ in decoder.feed(data[start : start + CHUNK]):
            pass
    for _ in decoder.finish():
        pass
    return counters.events


def bare(data: bytes) -> int:
    """Split the lines and do the least that reads each."""
    read = 0
    for line in data.split(b"\n"):
        if line.startswith(b"{"):
            try:
                json.loads(line)
            except ValueError:
                continue
        else:
            _BARE.match(line)
        read += 1
    return read


def main() -> None:
    """Print the figures."""
    names = [
        "auditd-commands",
        "auditd-interleaved",
        "sysmon-syslog",
        "ecs-defend",
        "zeek-conn",
        "zeek-mqtt-publish",
        "zeek-json",
        "suricata-eve",
    ]
    logs = {name: make_log(name) for name in names}
    rates: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    events: dict[str, int] = {}
    for _ in range(ROUNDS):
        for name, data in logs.items():
            start = time.perf_counter()
            bare(data)
            middle = time.perf_counter()
            events[name] = decode(name.partition("-")[0], data)
            spent = time.perf_counter() - middle
            rates[name].append(events[name] / spent)
            ratios[name].append((middle - start) / spent)
    for name in names:
        rate = statistics.median(rates[name])
        print(
            f"{name:20} {rate:9.0f} events/s = {rate / NEEDED:5.1f} x 100 000 a minute; "
            f"{statistics.median(ratios[name]):.2f} of the bare loop  ({events[name]} events)"
        )


if __name__ == "__main__":
    main()
