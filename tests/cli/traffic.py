"""What the command line tests have real clients do, and the policy they are held against."""

from __future__ import annotations

import subprocess

POLICY = """\
topicwarden: 1
roles:
  sensor:
    members: [{client: "sensor-*"}]
    publish: [{topic: "plant/%c/telemetry", rate: 5/s, burst: 5}]
    subscribe: [{topic: "plant/%c/command"}]
naming:
  - within: {topic: "plant/#"}
    levels: ["plant", "[a-z0-9-]+", "telemetry|command"]
"""


def publish(port: int, client_id: str, topic: str, message: str = "21.5", *, repeat: int = 1) -> None:
    """Publish with mosquitto_pub, QoS 1, and return when the broker has acknowledged."""
    client = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-i", client_id]
    what = ["-t", topic, "-m", message, "-q", "1", "--repeat", str(repeat)]
    subprocess.run([*client, *what], check=True, timeout=30, capture_output=True)


def subscribe(port: int, client_id: str, topic_filter: str) -> None:
    """Subscribe with mosquitto_sub and leave again once the broker has acknowledged."""
    subprocess.run(
        ["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-i", client_id, "-t", topic_filter, "-E"],
        check=True,
        timeout=30,
        capture_output=True,
    )


def behave_and_misbehave(port: int) -> None:
    """One client that behaves; a wrong topic, a broken name, too fast, too wide a subscription, an unknown client."""
    publish(port, "sensor-1", "plant/sensor-1/telemetry")
    subscribe(port, "sensor-1", "plant/sensor-1/command")
    publish(port, "sensor-2", "plant/sensor-1/telemetry")
    publish(port, "sensor-3", "plant/Sensor_3/telemetry")
    publish(port, "sensor-4", "plant/sensor-4/telemetry", repeat=20)
    subscribe(port, "sensor-5", "plant/#")
    publish(port, "stranger", "plant/stranger/telemetry")


EXPECTED = {
    ("TW201", "sensor-2"),
    ("TW201", "sensor-3"),
    ("TW203", "sensor-5"),
    ("TW204", "sensor-3"),
    ("TW211", "sensor-4"),
    ("TW230", "stranger"),
}
