"""One connection as one of a broker's users, which asks and waits for the answer: paho without a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from topicwarden_collectors.mosquitto.sys_link import Address, PahoClient

ANSWER_S: Final = 10.0
"""How long an answer may take."""
KEEPALIVE_S: Final = 60
_ROUND_S: Final = 0.25
MAX_RECEIVED: Final = 1 << 12
"""Messages noted between two questions."""


class LinkError(Exception):
    """The connection ended, or there was no answer; says why in words."""


class RefusedError(LinkError):
    """The broker does not let this user in."""


class Link:
    """A connection with a clean session that ends with it, and no will."""

    def __init__(self, address: Address, client_id: str) -> None:
        """`address` holds the user name and password. Raises ValueError when they cannot be sent."""
        self._address = address
        self.received: set[str] = set()
        """Topics of messages since it was last cleared."""
        self._code: ReasonCode | None = None
        self._answers: dict[int, int] = {}
        self._ended: str | None = None
        self._used = time.monotonic()
        client = PahoClient(address, client_id)
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        client.on_connect = self._on_connect
        client.on_publish = self._on_publish
        client.on_subscribe = client.on_unsubscribe = self._on_codes
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        self._client = client

    def open(self) -> None:
        """Connect; raises OSError for the way there, RefusedError and LinkError for what the broker says."""
        self._client.connect(self._address.host, self._address.port, KEEPALIVE_S)
        self._wait(lambda: self._code is not None, "does not answer like an MQTT broker")
        code = self._code
        if code is not None and code.is_failure:
            self.close()
            raise RefusedError(str(code))

    @property
    def usable(self) -> bool:
        """Whether it stands, as far as is known: an idle one may have been dropped by the broker meanwhile."""
        return self._ended is None and time.monotonic() - self._used < KEEPALIVE_S / 2

    def publish(self, topic: str) -> int:
        """Publish an empty message that is not kept, with QoS 1; returns the broker's reason code."""
        sent = self._client.publish(topic, b"", qos=1, retain=False)
        return self._answer(sent.rc, sent.mid)

    def subscribe(self, topic: str) -> int:
        """Subscribe to one filter; returns the broker's reason code."""
        status, number = self._client.subscribe(topic, options=SubscribeOptions(qos=0, noLocal=False))
        return self._answer(status, number)

    def unsubscribe(self, topic: str) -> int:
        """Unsubscribe; what the broker had sent before its answer has been received then."""
        status, number = self._client.unsubscribe(topic)
        return self._answer(status, number)

    def close(self) -> None:
        """Disconnect in an orderly way."""
        if self._ended is None:
            self._client.disconnect()
            self._client.loop(0)
        for name in ("on_connect", "on_publish", "on_subscribe", "on_unsubscribe", "on_message", "on_disconnect"):
            setattr(self._client, name, None)
        self._end("it was closed")

    def _answer(self, status: MQTTErrorCode, number: int | None) -> int:
        if status != MQTTErrorCode.MQTT_ERR_SUCCESS or number is None:
            raise LinkError(self._ended or paho.error_string(status))
        self._wait(lambda: number in self._answers, "did not answer in time")
        return self._answers.pop(number)

    def _wait(self, done: Callable[[], bool], otherwise: str) -> None:
        until = time.monotonic() + ANSWER_S
        while not done():
            if self._ended is not None:
                raise LinkError(f"the broker ended the connection: {self._ended}")
            if time.monotonic() > until:
                self.close()
                raise LinkError(otherwise)
            status = self._client.loop(_ROUND_S)
            if status != MQTTErrorCode.MQTT_ERR_SUCCESS and not done():
                self._end(paho.error_string(status))
        self._used = time.monotonic()

    # What paho calls, in our own thread

    def _on_connect(self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        self._code = code

    def _on_publish(self, _client: paho.Client, _data: Any, number: int, code: ReasonCode, _properties: Any) -> None:
        self._answers[number] = code.value

    def _on_codes(
        self, _client: paho.Client, _data: Any, number: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        self._answers[number] = codes[0].value if codes else 0

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        if len(self.received) < MAX_RECEIVED:
            self.received.add(message.topic)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode | None, _properties: Any
    ) -> None:
        self._end(str(code) if code is not None else "it ended")

    def _end(self, why: str) -> None:
        self._ended = self._ended or why
