"""One MQTT connection to a broker's `$SYS` topics: paho's thread on one side, asyncio on the other."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.sources import SourceOptions
from topicwarden_collectors.account import read_password, tls_context

FILTER: Final = "$SYS/#"
QUEUE_LENGTH: Final = 1 << 14
"""Most messages that wait for us; more are dropped and counted, never held back in the broker."""
MAX_PAYLOAD: Final = 4096
"""Bytes of the longest message taken; a log line has at most 999."""
_STEP_S: Final = 1.5
"""How long connecting, or the TLS handshake, may take; `close` may have to wait for it."""
_ANSWER_S: Final = 10.0
_KEEPALIVE_S: Final = 20
KEPT_OUT: Final = frozenset(("Bad user name or password", "Not authorized", "Banned", "Bad authentication method"))
"""What a broker says to those it does not let in."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where the broker listens, and as whom we go there."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    username: str | None
    password: str | None

    @property
    def text(self) -> str:
        """The address as a URL, without user or password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{host}:{self.port}"


def read_address(source: str, options: SourceOptions) -> Address:
    """Read `mqtt://[user@]host[:port]` or `mqtts://…`; raises ConfigurationError."""
    hint = "write it as mqtt://[user@]host:1883 or mqtts://[user@]host:8883"
    try:
        parts = urlsplit(source)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(Problem(f"{_without_password(source)!r} is no address: {error}", hint=hint)) from error
    if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path not in ("", "/") or parts.query:
        raise ConfigurationError(Problem(f"{_without_password(source)!r} is no address of a broker", hint=hint))
    if parts.password is not None:
        raise ConfigurationError(
            Problem(
                "a password in an address can be read by everybody on this host",
                hint="put it into a file, and give --password-file",
            )
        )
    username = unquote(parts.username) if parts.username else options.username
    password = read_password(options.password_file)
    if password is not None and username is None:
        raise ConfigurationError(Problem("a password file without a user name", hint="write mqtt://user@host"))
    tls = tls_context(options) if parts.scheme == "mqtts" else None
    return Address(host, port or (1883 if tls is None else 8883), tls, username, password)


def _without_password(source: str) -> str:
    scheme, _, rest = source.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


class PahoClient(paho.Client):
    """paho that closes a socket whose TLS handshake failed; 2.1.0 leaves that to the garbage collector."""

    def __init__(self, address: Address, client_id: str) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        self._address = address

    def _create_socket(self) -> socket.socket:
        """Connect; overrides paho's own."""
        address = self._address
        connection = socket.create_connection((address.host, address.port), _STEP_S)
        if address.tls is None:
            return connection
        try:
            wrapped = address.tls.wrap_socket(connection, server_hostname=address.host, do_handshake_on_connect=False)
        except BaseException:
            connection.close()
            raise
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


class SysLink:
    """A connection that has subscribed to `FILTER`. Each one has a client id of its own."""

    def __init__(self, address: Address) -> None:
        self.address = address
        # Not to be guessed: a client that takes our id over would be taken for us.
        self.client_id = f"topicwarden-{secrets.token_hex(8)}"
        self.too_long = 0
        """Messages dropped because they were longer than any of the broker's."""
        self._inbox: deque[tuple[str, bytes, bool]] = deque()
        self._dropped = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        self._ready: asyncio.Future[str | None] | None = None
        self._ended: str | None = None
        client = PahoClient(address, self.client_id)
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        self._client = client

    async def open(self) -> None:
        """Connect and subscribe; raises ObservationError that says what the broker, or the way to it, objected to."""
        self._loop = asyncio.get_running_loop()
        self._ready = self._loop.create_future()
        try:
            await asyncio.to_thread(self._client.connect, self.address.host, self.address.port, _KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise ObservationError(unreachable(self.address, error)) from error
        self._client.loop_start()
        try:
            async with asyncio.timeout(_ANSWER_S):
                refusal = await self._ready
        except TimeoutError as error:
            problem = f"{self.address.text} does not answer like an MQTT broker"
            hint = "check the port; TLS listeners need mqtts://, websockets are not supported"
            raise ObservationError(Problem(problem, hint=hint)) from error
        if refusal is not None:
            raise ObservationError(_refused(self.address, refusal))

    async def wait(self, seconds: float) -> None:
        """Return when there is something new, or after so many seconds."""
        # Not wait_for: that of Python 3.11 swallows a cancellation that comes together with the news.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def take(self) -> tuple[list[tuple[str, bytes, bool]], int]:
        """Return the messages since the last call (topic, payload, retained), and how many were dropped."""
        with self._lock:
            messages, dropped = list(self._inbox), self._dropped
            self._inbox.clear()
            self._dropped = 0
        return messages, dropped

    @property
    def ended(self) -> str | None:
        """Why the connection ended; None as long as it stands."""
        return self._ended

    async def close(self) -> None:
        """Disconnect, and wait for paho's thread."""
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        for name in ("on_connect", "on_subscribe", "on_message", "on_disconnect"):
            setattr(self._client, name, None)

    def wake(self) -> None:
        """Make `wait` return."""
        self._tell(self._news.set)

    # What paho's thread calls

    def _tell(self, callback: Callable[[], object]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(callback)

    def _answer(self, refusal: str | None) -> None:
        ready = self._ready
        if ready is not None:
            self._tell(lambda: None if ready.done() else ready.set_result(refusal))

    def _on_connect(self, client: paho.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any) -> None:
        if code.is_failure:
            self._answer(str(code))
        else:
            client.subscribe(FILTER)

    def _on_subscribe(
        self, _client: paho.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refused = next((code for code in codes if code.is_failure), None)
        self._answer(None if refused is None else f"the subscription to {FILTER}: {refused}")

    def _on_message(self, _client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        with self._lock:
            if len(message.payload) > MAX_PAYLOAD:
                self.too_long += 1
            elif len(self._inbox) >= QUEUE_LENGTH:
                self._dropped += 1
            else:
                self._inbox.append((message.topic, bytes(message.payload), message.retain))
        if not self._news.is_set():
            self._tell(self._news.set)

    def _on_disconnect(
        self, _client: paho.Client, _data: Any, _flags: Any, code: ReasonCode | None, _properties: Any
    ) -> None:
        self._ended = str(code) if code is not None else "the connection ended"
        self._answer(self._ended)
        self._tell(self._news.set)


def unreachable(address: Address, error: OSError | ValueError) -> Problem:
    """Return why there is no connection, and what to do about it."""
    where = address.text
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = (
            "give the certificate authority's file with --cafile, and the name that stands in the certificate as host"
        )
        return Problem(f"the certificate of {where} is not trusted: {error.verify_message}", hint=hint)
    if isinstance(error, ssl.SSLError):
        hint = "check that this is a TLS listener, and whether it asks for a client certificate (--certfile, --keyfile)"
        return Problem(f"no TLS connection to {where}: {error.reason or error}", hint=hint)
    if isinstance(error, socket.gaierror):
        return Problem(f"the host of {where} is not known: {error.strerror}", hint="check the host name")
    why = "no answer in time" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
    return Problem(
        f"{where} cannot be reached: {why}", hint="check that the broker runs, its listener and the firewall"
    )


def _refused(address: Address, refusal: str) -> Problem:
    if refusal in KEPT_OUT:
        who = "without a user name" if address.username is None else f"as {address.username!r}"
        hint = "write the user into the address, mqtt://user@host, and the password into --password-file"
        return Problem(f"{address.text} does not let us in {who}: {refusal}", hint=hint)
    if refusal.startswith("the subscription"):
        hint = f"let this account read {FILTER}: `topic read {FILTER}` below its `user` line of the acl_file"
        return Problem(f"{address.text} refused {refusal}", hint=hint)
    hint = "the broker's log says why; a TLS listener may ask for a client certificate (--certfile, --keyfile)"
    return Problem(f"{address.text} ended the connection: {refusal}", hint=hint)
