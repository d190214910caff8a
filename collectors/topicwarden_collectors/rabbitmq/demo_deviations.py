"""The demo's clients that do not behave, one for each planted deviation."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Final

import pika
from pika.exceptions import ChannelClosedByBroker

from topicwarden.errors import ObservationError, Problem
from topicwarden_collectors.rabbitmq.demo_clients import confirmed
from topicwarden_collectors.rabbitmq.demo_fleet import mqtt_publish, telemetry
from topicwarden_collectors.rabbitmq.demo_plant import VHOST, WIDE, permit
from topicwarden_collectors.rabbitmq.demo_stage import Stage
from topicwarden_collectors.rabbitmq.node import quoted

ACCESS_REFUSED: Final = 403
"""AMQP 0-9-1's reply code."""
DENIALS: Final = 15
TOO_MANY: Final = 250
AFTER_REVOCATION: Final = 12
"""How often the revoked client goes on to publish, 0.15 s apart. RabbitMQ 3.10.8 forgets what a channel was permitted
once the channel has been idle for a second; this one never is."""


def deviations(stage: Stage) -> Sequence[Callable[[], None]]:
    """Return the clients that deviate, ready to run: most of them in turn, some beside."""
    beside = (denied_again_and_again, binding_everything, publishing_after_revocation)
    return [functools.partial(part, stage) for part in (in_turn, *beside)]


def in_turn(stage: Stage) -> None:
    """Deviate in one way after the other, spread over the working day."""
    steps = (
        publishing_orders,
        smuggling_a_key,
        commanding_by_mqtt,
        naming_wrongly,
        publishing_too_fast,
        publishing_too_much,
        visiting,
        consuming_what_is_not_its_own,
        declaring,
        being_given_more,
    )
    for step in steps:
        if stage.pause(stage.seconds / (len(steps) + 3)):
            return
        step(stage)


def publishing_orders(stage: Stage) -> None:
    """An order for another press: the grant allows it, no role does."""
    with stage.amqp("press-11") as connection:
        channel = confirmed(connection)
        for _ in range(3):
            channel.basic_publish("orders", "line1.press-1.order", b'{"pieces": 0}')


def smuggling_a_key(stage: Stage) -> None:
    """Its own key in the method, another's in the CC header: RabbitMQ 3.10.8 routes by both and checks one."""
    with stage.amqp("press-16") as connection:
        smuggling = pika.BasicProperties(headers={"CC": ["line1.press-1.telemetry"]})
        channel = confirmed(connection)
        for _ in range(3):
            channel.basic_publish("readings", "line1.press-16.telemetry", _reading(), smuggling)


def commanding_by_mqtt(stage: Stage) -> None:
    """A command for another sensor."""
    with stage.mqtt("sensor-11") as client:
        for _ in range(3):
            mqtt_publish(client, "plant/hall/sensor-1/command", '{"interval": 0}')


def naming_wrongly(stage: Stage) -> None:
    """A place whose name breaks the naming rule."""
    with stage.mqtt("sensor-12") as client:
        for _ in range(2):
            mqtt_publish(client, "plant/Hall_1!/sensor-12/telemetry", _reading().decode())


def publishing_too_fast(stage: Stage) -> None:
    """All at once: without waiting for the broker's confirmation, as careless publishers do."""
    with stage.amqp("press-12") as connection:
        channel = connection.channel()
        for _ in range(TOO_MANY):
            channel.basic_publish("readings", "line1.press-12.telemetry", _reading())
        channel.close()


def publishing_too_much(stage: Stage) -> None:
    """Messages of 40 KiB where 4 are expected."""
    with stage.amqp("press-13") as connection:
        channel = confirmed(connection)
        for _ in range(3):
            channel.basic_publish("readings", "line1.press-13.telemetry", b'"' + b"7" * 40_958 + b'"')


def visiting(stage: Stage) -> None:
    """An account nobody remembered when the policy was written."""
    with stage.amqp("contractor-1") as connection:
        confirmed(connection).basic_publish("readings", "line1.notes", b"was here")


def consuming_what_is_not_its_own(stage: Stage) -> None:
    """Reads the historian's queue for a moment; what it did not acknowledge goes back."""
    with stage.amqp("press-15") as connection:
        connection.channel().basic_consume("history", lambda *_: None)
        connection.process_data_events(time_limit=0.5)


def declaring(stage: Stage) -> None:
    """A queue of its own making."""
    with stage.amqp("press-17") as connection:
        connection.channel().queue_declare("backdoor", durable=True)


def being_given_more(stage: Stage) -> None:
    """It behaves; the operator gives it everything all the same."""
    with stage.amqp("press-18") as connection:
        channel = confirmed(connection)
        channel.basic_publish("readings", "line1.press-18.telemetry", _reading())
        permit(stage.node, "press-18", VHOST, WIDE)
        channel.basic_publish("readings", "line1.press-18.telemetry", _reading())


def denied_again_and_again(stage: Stage) -> None:
    """The broker closes the channel at each refusal; a new one is opened and the same is tried again."""
    with stage.amqp("press-14") as connection:
        for _ in range(DENIALS):
            if stage.pause(stage.seconds / (DENIALS * 3)):
                return
            try:
                confirmed(connection).basic_publish("maintenance", "line1.press-14.firmware", b"x")
            except ChannelClosedByBroker as refusal:
                if refusal.reply_code != ACCESS_REFUSED:
                    raise
            else:
                raise ObservationError(Problem("the broker allowed press-14 what it was to refuse"))


def binding_everything(stage: Stage) -> None:
    """The queue is its own, what flows into it is not."""
    with stage.amqp("viewer") as connection:
        channel = connection.channel()
        channel.queue_declare("viewer.live", auto_delete=True)
        channel.queue_bind("viewer.live", "readings", "#")
        channel.basic_consume("viewer.live", lambda *_: None, auto_ack=True)
        for _ in range(20):
            if stage.pause(stage.seconds / 25):
                return
            connection.process_data_events(time_limit=0)


def publishing_after_revocation(stage: Stage) -> None:
    """Its permission is taken away while its channel is busy, and the channel goes on being served."""
    if stage.pause(stage.seconds / 4):
        return
    with stage.amqp("press-19") as connection:
        channel = confirmed(connection)
        channel.basic_publish("readings", "line1.press-19.telemetry", _reading())
        stage.node.api("DELETE", f"/permissions/{VHOST}/{quoted('press-19')}")
        for number in range(AFTER_REVOCATION):
            try:
                channel.basic_publish("readings", "line1.press-19.telemetry", _reading())
            except ChannelClosedByBroker:
                # A machine so busy that the channel was idle for a second.
                if number == 0:
                    raise
                return
            if stage.pause(0.15):
                return


def _reading() -> bytes:
    return telemetry(random.Random(0)).encode()  # noqa: S311 - a made-up reading
