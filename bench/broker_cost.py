"""What watching costs the broker: CPU per QoS 0 message of 64 bytes, plain, with plugin and reader, with a full log.

Rounds are interleaved (plain, plugin, log, plain, …) and each is compared with the plain run of its own round. Then a
publisher saturates the broker for a while, with the reader on the other core, and what the reader lost is counted.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.brokers import mosquitto
from tests.mosquitto.plugin_build import build_plugin

ROUNDS = 7
MESSAGES = 200_000
SATURATED_SECONDS = 30
CONNECTIONS = 4
SIZE = 64


def main(rounds: int = ROUNDS, messages: int = MESSAGES, seconds: float = SATURATED_SECONDS) -> None:
    """Print the median ratios of `rounds` rounds, then the losses of `seconds` seconds of saturation."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        load = folder / "load"
        source = Path(__file__).with_name("broker_load.c")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(load), str(source)], check=True)
        spent: dict[str, list[float]] = {"plain": [], "plugin": [], "log": []}
        for number in range(rounds):
            for variant, figures in spent.items():
                figures.append(_round(folder / f"{variant}-{number}", variant, load, messages))
        for variant in ("plugin", "log"):
            ratios = [one / plain for one, plain in zip(spent[variant], spent["plain"], strict=True)]
            what = {"plugin": "plugin and draining reader (aim 1.08)", "log": "log_type all to a file"}[variant]
            print(
                f"broker CPU per message, {what}: {statistics.median(ratios):.3f} x plain (median of {rounds} pairs,"
                f" {min(ratios):.3f} to {max(ratios):.3f})"
            )
        _saturate(folder / "saturated", load, seconds)


def _round(folder: Path, variant: str, load: Path, messages: int) -> float:
    """Return the broker's CPU nanoseconds per message."""
    config = ["user root"]
    if variant == "log":
        config += ["log_type all", f"log_dest file {folder / 'all.log'}"]
    with _watched(folder, config, variant == "plugin") as (port, pid, _):
        return _load(load, port, pid, messages, 0)[2]


def _saturate(folder: Path, load: Path, seconds: float) -> None:
    """Publish as fast as the broker takes it and compare what was published with what was seen."""
    with _watched(folder, ["user root"], True) as (port, pid, reader):
        assert reader is not None
        sent, rate, _ = _load(load, port, pid, 0, seconds)
        time.sleep(1)
        reader.terminate()
        out, _ = reader.communicate(timeout=60)
    summary = json.loads(out.splitlines()[-1])
    published = sum(row["publishes"] for row in summary["inventory"] if row["client_id"].startswith("load-"))
    print(
        f"saturated for {seconds:.0f} s ({rate:,.0f} messages/s): {sent:,} published, {published:,} seen, "
        f"{summary['lost']:,} lost, {summary['gaps']} gaps"
    )


def _load(load: Path, port: int, pid: int, messages: int, seconds: float) -> tuple[int, float, float]:
    """Run the load generator on the second core; returns messages, messages per second, CPU ns per message."""
    command = [str(load), str(port), str(CONNECTIONS), str(SIZE), str(messages), str(seconds), str(pid)]
    done = subprocess.run([*_on_core(1), *command], capture_output=True, text=True, check=True)
    sent, rate, cpu = done.stdout.split()
    return int(sent), float(rate), float(cpu)


@contextmanager
def _watched(
    folder: Path, config: Sequence[str], plugin: bool
) -> Iterator[tuple[int, int, subprocess.Popen[str] | None]]:
    """Run a broker on the first core, with plugin and reader when asked for; yields its port, pid and the reader."""
    lines = list(config)
    ring = folder / "m.ring"
    if plugin:
        tmpfs = Path(tempfile.mkdtemp(dir="/dev/shm"))  # where the ring belongs
        ring = tmpfs / "m.ring"
        lines += [f"plugin {build_plugin()}", f"plugin_opt_ring {ring}"]
    try:
        with mosquitto(folder, lines) as broker:
            os.sched_setaffinity(broker.process.pid, {0})
            if not plugin:
                yield broker.port, broker.process.pid, None
                return
            command = [sys.executable, "-m", "topicwarden", "watch", "--no-state", "-f", "jsonl", f"ring:{ring}"]
            reader = subprocess.Popen(
                [*_on_core(1), *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            try:
                assert reader.stderr is not None
                while "cannot see" not in (line := reader.stderr.readline()):
                    assert line, "the reader ended before it began"
                yield broker.port, broker.process.pid, reader
            finally:
                reader.terminate()
                reader.communicate(timeout=60)
    finally:
        if plugin:
            shutil.rmtree(tmpfs)


def _on_core(number: int) -> list[str]:
    """Return the words that keep a command on one core, where there is more than one."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[min(number, len(cores) - 1)])]


if __name__ == "__main__":
    main()
