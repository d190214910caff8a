"""Decoding Mosquitto's log against the least anybody could do: `data.split(b"\\n")` and one compiled regex a line.

    ./run bench log_decode   (or: .venv/bin/python -m bench.log_decode)

The bare loop takes time, kind, client id, flags, topic and size of each PUBLISH line, with neither doubt nor context.
Each round runs all variants once (A B C A B C …); printed are lines a second relative to the bare loop, the median of
the rounds.
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable

from topicwarden.events import Tables
from topicwarden_collectors.mosquitto.log_decode import LogDecoder

ROUNDS = 7
PACKETS = 30_000
CHUNK = 1 << 16
_BARE = re.compile(
    rb"(\d+): (Received|Denied|Sending) PUBLISH (?:from|to) (.*) "
    rb"\(d(\d), q(\d), r(\d), m(\d+), '(.*)', ... \((\d+) bytes\)\)"
)


def make_log(seed: int = 1) -> bytes:
    """Return a log as a broker with 200 clients writes it: mostly publishes, a subscriber, pings, some denials."""
    chance = random.Random(seed)
    second = 1_700_000_000
    lines = [f"{second}: mosquitto version 2.0.11 starting"]
    clients = [f"sensor-{number}" for number in range(200)]
    for number, client in enumerate(clients):
        lines += [
            f"{second}: New connection from 10.0.0.1:{number + 1000} on port 1883.",
            f"{second}: New client connected from 10.0.0.1:{number + 1000} as {client} (p2, c1, k60, u'{client}').",
            f"{second}: No will message specified.",
            f"{second}: Sending CONNACK to {client} (0, 0)",
        ]
    lines += [f"{second}: Received SUBSCRIBE from {clients[0]}", f"{second}: \tplant/# (QoS 0)"]
    lines += [f"{second}: {clients[0]} 0 plant/#", f"{second}: Sending SUBACK to {clients[0]}"]
    for packet in range(PACKETS):
        second += packet % 500 == 0
        client = chance.choice(clients)
        qos = chance.choice((0, 0, 1))
        topic = f"plant/{chance.choice('abc')}/{client}/telemetry"
        message = f"(d0, q{qos}, r0, m{packet % 65535 + 1 if qos else 0}, '{topic}', ... (57 bytes))"
        verb = "Denied" if chance.random() < 0.02 else "Received"
        lines.append(f"{second}: {verb} PUBLISH from {client} {message}")
        if verb == "Received":
            lines.append(f"{second}: Sending PUBLISH to {clients[0]} (d0, q0, r0, m0, '{topic}', ... (57 bytes))")
        if qos:
            lines.append(f"{second}: Sending PUBACK to {client} (m{packet % 65535 + 1}, rc0)")
        if packet % 50 == 0:
            lines += [f"{second}: Received PINGREQ from {client}", f"{second}: Sending PINGRESP to {client}"]
    return ("\n".join(lines) + "\n").encode()


def bare(data: bytes) -> int:
    """Split and match, nothing else."""
    found = 0
    for line in data.split(b"\n"):
        match = _BARE.match(line)
        if match is not None:
            match.groups()
            found += 1
    return found


def decode(data: bytes, *, deliveries: bool = False) -> int:
    """Decode as the collector does, in pieces as it reads them."""
    decoder = LogDecoder(Tables(), "b", deliveries=deliveries)
    for start in range(0, len(data), CHUNK):
        decoder.feed(data[start : start + CHUNK])
        while True:
            decoder.take()
            if not decoder.backlog:
                break
    decoder.finish()
    decoder.take()
    return decoder.sink.counters.events


def main() -> None:
    """Print the ratios."""
    data = make_log()
    lines = data.count(b"\n")
    variants: dict[str, Callable[[], int]] = {
        "bare split and regex": lambda: bare(data),
        "decode": lambda: decode(data),
        "decode, deliveries too": lambda: decode(data, deliveries=True),
    }
    speeds: dict[str, list[float]] = {name: [] for name in variants}
    results = {}
    for _ in range(ROUNDS):
        for name, run in variants.items():
            start = time.perf_counter()
            results[name] = run()
            speeds[name].append(lines / (time.perf_counter() - start))
    reference = "bare split and regex"
    print(f"{lines} lines, {len(data) / lines:.0f} bytes each; {ROUNDS} rounds")
    for name, rates in speeds.items():
        ratios = [rate / base for rate, base in zip(rates, speeds[reference], strict=True)]
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:26} x {statistics.median(ratios):.2f}  {spread}  {results[name]} results")


if __name__ == "__main__":
    main()
