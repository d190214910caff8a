"""From publish to printed finding: a real broker with the plugin, `topicwarden watch` as its own process, median."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import mosquitto
from tests.mosquitto.plugin_build import build_plugin

POLICY = """\
topicwarden: 1
roles:
  sensor:
    members: [{client: "sensor-*"}]
    publish: [{topic: "plant/%c/telemetry"}]
"""
AIM_MS = 50.0


def main(count: int = 60) -> None:
    """Publish `count` times, each a finding of its own, and print how long each took to stand on stdout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        ring = folder / "ring"
        ring.mkdir()
        ring.chmod(0o777)  # the broker drops to its own user
        plugin = build_plugin()
        policy = folder / "policy.yaml"
        policy.write_text(POLICY)
        config = [f"plugin {plugin}", f"plugin_opt_ring {ring / 'm.ring'}"]
        with mosquitto(folder / "broker", config) as broker:
            command = [sys.executable, "-m", "topicwarden", "watch", "--no-state", "--format", "jsonl"]
            watch = subprocess.Popen(
                [*command, "--policy", str(policy), f"ring:{ring / 'm.ring'}"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            try:
                times = _measure(broker.port, watch, count)
            finally:
                watch.terminate()
                watch.communicate(timeout=20)
    times.sort()
    print(
        f"publish to printed finding, {len(times)} findings: median {statistics.median(times):.1f} ms, "
        f"90 % {times[int(len(times) * 0.9)]:.1f} ms, max {times[-1]:.1f} ms (aim: under {AIM_MS:.0f} ms)"
    )


def _measure(port: int, watch: subprocess.Popen[str], count: int) -> list[float]:
    """Return milliseconds from publish to the finding's line, one for each of `count` clients."""
    assert watch.stderr is not None
    assert watch.stdout is not None
    while "cannot see" not in (line := watch.stderr.readline()):  # it says its blind spots when it is ready
        if not line:
            raise SystemExit("watch ended before it began")
    times = []
    for number in range(count):
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"sensor-{number}")
        client.connect("127.0.0.1", port)
        client.loop_start()
        while not client.is_connected():
            time.sleep(0.005)
        time.sleep(0.03 + 0.007 * (number % 5))  # not in step with the reader's polling
        began = time.perf_counter()
        client.publish(f"plant/other-{number}/telemetry", "21.5")
        while True:
            document = json.loads(watch.stdout.readline())
            if document["type"] == "finding" and document["client"]["client_id"] == f"sensor-{number}":
                break
        times.append((time.perf_counter() - began) * 1000)
        client.disconnect()
        client.loop_stop()
    return times


if __name__ == "__main__":
    main()
