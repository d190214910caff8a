"""Clients over websockets are seen like any other."""

from __future__ import annotations

import threading
from ipaddress import ip_network
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import free_port, mosquitto, wait_for
from tests.mosquitto.plugin_build import build_plugin
from tests.mosquitto.plugin_events import read_events
from topicwarden.policy.values import address_within


def test_a_websocket_client_is_seen_with_its_publish_and_its_subscription(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    port = free_port()
    # 2.0.11 does not start with websockets alone ("Unable to start any listening sockets"): a plain listener beside it.
    config = [
        f"plugin {build_plugin()}",
        f"plugin_opt_ring {ring}",
        f"listener {port} 127.0.0.1",
        "protocol websockets",
    ]
    with mosquitto(tmp_path / "broker", ["user root", *config]):
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="browser", transport="websockets")
        connected, subscribed = threading.Event(), threading.Event()
        client.on_connect = lambda *_: connected.set()
        client.on_subscribe = lambda *_: subscribed.set()
        client.connect("127.0.0.1", port)
        client.loop_start()
        try:
            assert connected.wait(10)
            client.subscribe("a/#")
            assert subscribed.wait(10)
            client.publish("a/b", "21.5", qos=1).wait_for_publish(10)
        finally:
            client.disconnect()
            client.loop_stop()
        wait_for(lambda: _seen(ring) >= {"authenticate", "subscribe", "publish", "disconnect"}, "the client's events")
    rows, counters = read_events(ring)
    mine = [row for row in rows if row["client"]["client_id"] == "browser"]
    (publish,) = [row for row in mine if row["action"] == "publish"]
    assert (publish["resource"]["name"], publish["outcome"], publish["size"]) == ("a/b", "allowed", 4)
    # 2.0.11 gives websocket clients IPv4-mapped addresses (seen so); the policy reads both spellings alike.
    address = publish["client"]["address"]
    assert address in ("127.0.0.1", "::ffff:127.0.0.1")
    assert address_within(address, ip_network("127.0.0.0/8"))
    assert not counters.decode_errors


def _seen(ring: Path) -> set[str]:
    return {row["action"] for row in read_events(ring)[0] if row["client"]["client_id"] == "browser"}
