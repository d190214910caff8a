"""The demo's clients that behave: presses by AMQP, scales by STOMP, sensors by MQTT, and those who work with them."""

from __future__ import annotations

import functools
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence

import paho.mqtt.client as paho
from pika.adapters.blocking_connection import BlockingConnection

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.rabbitmq.demo_clients import PATIENCE_SECONDS, confirmed
from topicwarden_collectors.rabbitmq.demo_plant import PRESSES, SCALES, SENSORS
from topicwarden_collectors.rabbitmq.demo_stage import Stage


def fleet(stage: Stage) -> Sequence[Callable[[], None]]:
    """Return every client that behaves, ready to run."""
    machines = [(press, PRESSES), (scale, SCALES), (sensor, SENSORS)]
    others = (scheduler, shift_report, status_board, historian, dashboard)
    return [
        *(functools.partial(machine, stage, name) for machine, names in machines for name in names),
        *(functools.partial(other, stage) for other in others),
    ]


def telemetry(chance: random.Random) -> str:
    """Return a made-up reading."""
    return json.dumps({"pressure": round(chance.gauss(210, 4), 1), "strokes": chance.randint(30, 60), "ok": True})


def mqtt_publish(client: paho.Client, topic: str, payload: str) -> None:
    """Publish with QoS 1; returns once the broker has taken it, raises ObservationError when it does not."""
    message = client.publish(topic, payload, qos=1)
    message.wait_for_publish(PATIENCE_SECONDS)
    if not message.is_published():
        raise ObservationError(Problem(f"the broker did not acknowledge a publish to {topic}"))


def working(stage: Stage, name: str, shortest: float, longest: float) -> Iterator[random.Random]:
    """Yield at irregular intervals of so many seconds until the working day is over."""
    chance = random.Random(name)  # noqa: S311 - made-up readings
    until = time.monotonic() + stage.seconds
    while time.monotonic() < until and not stage.pause(chance.uniform(shortest, longest)):
        yield chance


def press(stage: Stage, name: str) -> None:
    """Publish a reading about twice a second by AMQP, and take orders from a queue of its own."""
    with stage.amqp(name) as connection:
        orders = connection.channel()
        orders.basic_consume(f"orders.{name}", lambda *_: None, auto_ack=True)
        readings = confirmed(connection)
        for chance in working(stage, name, 0.3, 0.7):
            readings.basic_publish("readings", f"line1.{name}.telemetry", telemetry(chance).encode())
            connection.process_data_events(time_limit=0)


def scale(stage: Stage, name: str) -> None:
    """Send a weight about once a second by STOMP, and take orders from a queue of its own."""
    with stage.stomp(name) as client:
        client.subscribe(f"/amq/queue/orders.{name}")
        for chance in working(stage, name, 0.6, 1.4):
            client.send(f"/exchange/readings/line1.{name}.weight", b'{"kg": %.2f}' % chance.gauss(12, 1))
        client.disconnect()


def sensor(stage: Stage, name: str) -> None:
    """Publish a reading about twice a second by MQTT, and listen for commands."""
    with stage.mqtt(name) as client:
        client.subscribe(f"plant/hall/{name}/command", qos=1)
        for chance in working(stage, name, 0.3, 0.7):
            mqtt_publish(client, f"plant/hall/{name}/telemetry", telemetry(chance))


def scheduler(stage: Stage) -> None:
    """Send an order to each machine in turn."""
    machines = [*PRESSES, *SCALES]
    with stage.amqp("scheduler") as connection:
        orders = confirmed(connection)
        for number, _ in enumerate(working(stage, "scheduler", 0.7, 1.3)):
            key = f"line1.{machines[number % len(machines)]}.order"
            orders.basic_publish("orders", key, b'{"pieces": 40}')


def shift_report(stage: Stage) -> None:
    """Report with librabbitmq's amqp-publish, as shell scripts do."""
    for _ in working(stage, "shift-report", stage.seconds / 5, stage.seconds / 4):
        stage.amqp_publish("shift-report", "readings", "line1.shift.report", "all well")


def status_board(stage: Stage) -> None:
    """Publish each status line with mosquitto_pub, as shell scripts do."""
    for _ in working(stage, "status-board", stage.seconds / 5, stage.seconds / 4):
        stage.mosquitto_pub("status-board", "plant/hall/board/status", "all well")


def historian(stage: Stage) -> None:
    """Consume all readings from the queue the operator made for it."""
    with stage.amqp("historian") as connection:
        channel = connection.channel()
        channel.basic_consume("history", lambda *_: None, auto_ack=True)
        _take(stage, "historian", connection)


def dashboard(stage: Stage) -> None:
    """Declare a queue of its own and bind it to all telemetry."""
    with stage.amqp("dashboard") as connection:
        channel = connection.channel()
        channel.queue_declare("dashboard.live", auto_delete=True)
        channel.queue_bind("dashboard.live", "readings", "*.*.telemetry")
        channel.basic_consume("dashboard.live", lambda *_: None, auto_ack=True)
        _take(stage, "dashboard", connection)


def _take(stage: Stage, name: str, connection: BlockingConnection) -> None:
    """Take what the broker delivers until the working day is over."""
    for _ in working(stage, name, 0.1, 0.3):
        connection.process_data_events(time_limit=0)
