"""A broker saturated on one core, the whole program watching it from the other: what is lost between them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.plugin_broker import build_load
from tests.brokers import Mosquitto, mosquitto
from tests.mosquitto.plugin_build import build_plugin

POLICY = """\
topicwarden: 1
roles:
  load: {members: [{client: "*"}], publish: [{topic: "#", rate: 1000000/s}]}
naming: [{within: {topic: "#"}, levels: [".{1,40}"], more: true}]
payload: {max_entropy: 8}
"""


def main() -> None:
    """Publish as fast as the broker takes it and compare what was published with what `topicwarden watch` counted."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    seconds = parser.parse_args().seconds
    tmpfs = Path(tempfile.mkdtemp(dir="/dev/shm"))  # where rings belong
    try:
        ring, policy = tmpfs / "ring", tmpfs / "policy.yaml"
        policy.write_text(POLICY)
        lines = [f"plugin {build_plugin()}", f"plugin_opt_ring {ring}"]
        with mosquitto(tmpfs / "broker", [*lines, *(["user root"] if os.getuid() == 0 else [])]) as broker:
            _measure(broker, build_load(tmpfs), f"ring:{ring}", policy, seconds)
    finally:
        shutil.rmtree(tmpfs)


def _measure(broker: Mosquitto, load: Path, source: str, policy: Path, seconds: float) -> None:
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(broker.process.pid, {cores[0]})
    other = ["taskset", "-c", str(cores[min(1, len(cores) - 1)])]
    watch = [sys.executable, "-m", "topicwarden", "watch", "--no-state", "-f", "jsonl", "-p", str(policy), source]
    reader = subprocess.Popen([*other, *watch], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert reader.stderr is not None
        while "cannot see" not in (line := reader.stderr.readline()):  # it says its blind spots when it is ready
            assert line, "the reader ended before it began"
        command = [str(load), str(broker.port), "8", "64", "0", "0", str(seconds)]
        answer = subprocess.run([*other, *command], capture_output=True, text=True, check=True).stdout.split()
        time.sleep(1)
    finally:
        reader.terminate()
        out, _ = reader.communicate(timeout=60)
    sent, taken = int(answer[0]), float(answer[1])
    summary = json.loads(out.splitlines()[-1])
    seen = sum(row["publishes"] for row in summary["inventory"])
    print(
        f"saturated for {taken:.0f} s, {sent / taken:,.0f} messages/s: {sent:,} published, {seen:,} judged,"
        f" {summary['lost']:,} lost in {summary['gaps']} gaps"
    )


if __name__ == "__main__":
    main()
