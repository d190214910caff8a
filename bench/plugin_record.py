"""What the plugin adds to a publish, without a broker around it: nanoseconds, and ratios to doing nothing."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from tests.mosquitto.plugin_build import build_plugin

AIM_NS = 100.0
SIZES = ((64, 16, 4), (64, 1000, 100), (64, 50_000, 10_000), (256, 1000, 100), (1024, 1000, 100))
"""Payload bytes, topics, clients."""


def measure(harness: Path, ring: Path, count: int, size: tuple[int, int, int], entropy: str) -> tuple[float, float]:
    """Return the medians of nine runs: nanoseconds a publish with the plugin, and with callbacks that do nothing."""
    command = [str(harness), "bench", str(ring), str(count), *map(str, size), entropy]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(answer[0]), float(answer[1])


def main() -> None:
    """Print one line for each size: the plugin without and with a look at the payload, and nothing at all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=200_000, help="publishes in each of nine runs")
    count = parser.parse_args().count
    harness = build_plugin("harness")
    shared = Path("/dev/shm")  # where rings belong: tmpfs
    print(
        f"{'payload':>8} {'topics':>7} {'clients':>8} {'off ns':>8} {'on ns':>8} {'off/nothing':>12} {'on/nothing':>11}"
    )
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        for size in SIZES:
            off, nothing_off = measure(harness, Path(folder) / "ring", count, size, "off")
            on, nothing_on = measure(harness, Path(folder) / "ring", count, size, "on")
            added_off, added_on = off - nothing_off, on - nothing_on
            print(
                f"{size[0]:8} {size[1]:7} {size[2]:8} {added_off:8.1f} {added_on:8.1f}"
                f" {off / nothing_off:12.2f} {on / nothing_on:11.2f}"
            )
    print(f"(ns added to a publish by the ACL check and the message together; aim: at most {AIM_NS:.0f} at 64 bytes)")


if __name__ == "__main__":
    main()
