"""Who is connected, as far as a log tells: client id -> the client with its user name and address."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from topicwarden.events import Client, Identity
from topicwarden_collectors.mosquitto.log_grammar import FIRST_WORDS

CAPACITY: Final = 1 << 16
"""Most clients remembered; the one not heard of for longest is forgotten first."""
CONNECTION_CAPACITY: Final = 4096
"""Most accepted connections remembered that have not said who they are."""
_NAMELESS_CAPACITY: Final = 4096


def name(data: bytes) -> str:
    """Decode a name without loss: bytes that are not UTF-8 (only a certificate's can be) become lone surrogates."""
    return data.decode("utf-8", "surrogateescape")


class Sessions:
    """The clients that are connected now, and the connections that have not said who they are."""

    def __init__(self, broker: str, capacity: int = CAPACITY) -> None:
        self.broker = broker
        self.capacity = capacity
        self.complete = False
        """Whether every connection since the broker started was seen; then an unknown client id is not connected."""
        self.unreadable = False
        """Whether a client connected whose id we could not read, since the broker started."""
        self.forgotten = 0
        """Clients forgotten to make room."""
        self.changed = False
        """Whether anything changed since the flag was last taken back."""
        self._clients: OrderedDict[str, Client] = OrderedDict()
        self._connections: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._nameless: dict[str, Client] = {}
        self._unannounced: dict[str, None] = {}
        self._late_ends: OrderedDict[str, None] = OrderedDict()
        self.imitators: dict[str, None] = {}
        """Ids of clients that are, or may be, connected, that begin like a line of the broker's."""

    def __len__(self) -> int:
        return len(self._clients)

    def restart(self, *, complete: bool) -> None:
        """Forget everything: the broker started or stopped."""
        self._clients.clear()
        self._connections.clear()
        self._unannounced.clear()
        self._late_ends.clear()
        self.imitators.clear()
        self.complete = complete
        self.unreadable = False
        self.changed = True

    def opened(self, address: str, port: int) -> None:
        """Note an accepted connection."""
        self._connections[address, port] = None
        if len(self._connections) > CONNECTION_CAPACITY:
            self._connections.popitem(last=False)
            self.complete = False

    def closed(self, address: str, port: int) -> bool:
        """Note that a connection closed, or said who it is; return whether it had been noted as accepted."""
        return self._connections.pop((address, port), 0) is None

    def only_connection(self, address: str | None) -> tuple[str | None, int | None]:
        """Return address and port of the one nameless connection, or of the one from `address`, and forget it.

        With several, the address if it is the same for all, and no port. Nothing without knowing all connections.
        """
        if address is None and not self.complete:
            return None, None
        found = [key for key in self._connections if address is None or key[0] == address]
        if len(found) == 1:
            del self._connections[found[0]]
            return found[0]
        addresses = {key[0] for key in found}
        return (addresses.pop() if len(addresses) == 1 else None), None

    def has_connection_from(self, address: str) -> bool:
        """Whether a nameless connection comes from this address."""
        return any(key[0] == address for key in self._connections)

    def connected(self, client: Client, announced: bool) -> None:
        """Note a client that was let in; `announced`: a New connection line came before (TCP, not websockets)."""
        client_id = client.client_id
        self._clients[client_id] = client
        self._clients.move_to_end(client_id)
        if announced:
            self._unannounced.pop(client_id, None)
        else:
            self._unannounced[client_id] = None
        self.may_be_connected(client_id)
        self.changed = True
        if len(self._clients) > self.capacity:
            forgotten, _ = self._clients.popitem(last=False)
            self._drop(forgotten)
            self.forgotten += 1
            self.complete = False

    def may_be_connected(self, client_id: str) -> None:
        """Be wary of lines that begin like this id, though it is not certain that a client has it."""
        if client_id.partition(" ")[0] in FIRST_WORDS:
            self.imitators[client_id] = None
            if len(self.imitators) > _NAMELESS_CAPACITY:
                self.imitators.pop(next(iter(self.imitators)))

    def _drop(self, client_id: str) -> None:
        self._unannounced.pop(client_id, None)
        self.imitators.pop(client_id, None)

    def taken_over(self, client_id: str) -> Client:
        """Return the client whose connection another one with its id takes over.

        A websocket's own end is logged later, after the newcomer was let in (seen with 2.0.11; the New connection line
        that only TCP has tells them apart).
        """
        late = client_id in self._unannounced
        client = self.ended(client_id)
        if late:
            self._late_ends[client_id] = None
            if len(self._late_ends) > _NAMELESS_CAPACITY:
                self._late_ends.popitem(last=False)
        return client

    def ended_before(self, client_id: str) -> bool:
        """Whether the end that is logged now is that of a connection that was taken over before."""
        return self._late_ends.pop(client_id, 0) is None

    def knows(self, client_id: str) -> bool:
        """Whether a client of this id is connected, as far as we saw."""
        return client_id in self._clients

    def find(self, client_id: str) -> Client:
        """Return the client of this id; one without user and address when its connecting was not seen."""
        client = self._clients.get(client_id)
        if client is not None:
            self._clients.move_to_end(client_id)
            return client
        client = self._nameless.get(client_id)
        if client is None:
            if len(self._nameless) >= _NAMELESS_CAPACITY:
                self._nameless.clear()
            client = self._nameless[client_id] = Client(self.broker, "mqtt", client_id, identity=Identity.UNKNOWN)
        return client

    def ended(self, client_id: str) -> Client:
        """Return the client of this id and forget it."""
        client = self.find(client_id)
        if self._clients.pop(client_id, None) is not None:
            self._drop(client_id)
            self.changed = True
        return client

    def snapshot(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "complete": self.complete,
            "unreadable": self.unreadable,
            "clients": [
                [
                    client.client_id,
                    client.user,
                    client.address,
                    client.port,
                    client.identity.value,
                    client.client_id not in self._unannounced,
                ]
                for client in self._clients.values()
            ],
            "connections": [list(key) for key in self._connections],
        }

    def restore(self, snapshot: Any) -> None:
        """Take over a snapshot; raises ValueError, TypeError or KeyError when it is not one."""
        for client_id, user, address, port, identity, announced in snapshot["clients"][-self.capacity :]:
            if not (
                isinstance(client_id, str)
                and isinstance(user, str | None)
                and isinstance(address, str | None)
                and isinstance(port, int | None)
            ):
                raise TypeError("not a snapshot of sessions")
            client = Client(self.broker, "mqtt", client_id, user, address, port, identity=Identity(identity))
            self.connected(client, bool(announced))
        for address, port in snapshot["connections"][-CONNECTION_CAPACITY:]:
            self._connections[str(address), int(port)] = None
        self.complete = bool(snapshot["complete"])
        self.unreadable = bool(snapshot["unreadable"])
