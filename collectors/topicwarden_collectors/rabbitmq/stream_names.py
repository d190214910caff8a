"""What the stream's numbers mean: actors become clients, and names resources in the words of who used them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from topicwarden.events import NO_RESOURCE, Client, Identity, Resource, Tables
from topicwarden_collectors.rabbitmq import naming
from topicwarden_collectors.rabbitmq import stream_layout as layout
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.stream_decode import Actor, Events, Named
from topicwarden_collectors.rabbitmq.stream_reconcile import Rows

Numbers = npt.NDArray[np.uint32]
Ids = npt.NDArray[np.int32]

MAX_NAMES: Final = 1 << 18
"""Actors, and resources, that one epoch may define; the plugin begins another well before."""
_WINDOW: Final = 1 << 19
_PAIR_BITS: Final = 18
_RESOURCE_BITS: Final = 19
_UNSET: Final = -1
_PLUMBING: Final = -2
_PERSONAL: Final = 1 << 24
"""Marks the number of an actor among those of kinds of actors."""
_GATEWAYS: Final = ("mqtt", "stomp")
_WORDS: Final = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, which spreads neighbouring numbers (Knuth, TAOCP 6.4)."""


class Window:
    """Maps the stream's numbers to our own small ones, direct-mapped by their low bits."""

    def __init__(self) -> None:
        self._number = np.zeros(_WINDOW, np.uint32)
        self._id = np.full(_WINDOW, _UNSET, np.int32)
        self._elsewhere: dict[int, int] = {}
        """Those whose place is taken."""

    def clear(self) -> None:
        """Forget everything."""
        self._id[:] = _UNSET
        self._elsewhere.clear()

    def set(self, number: int, own: int) -> None:
        """Let a number mean one of ours."""
        place = number % _WINDOW
        if self._id[place] == _UNSET or self._number[place] == number:
            self._number[place], self._id[place] = number, own
        else:
            self._elsewhere[number] = own

    def get(self, numbers: npt.NDArray[Any]) -> Ids:
        """Return our numbers; -1 for what has no meaning."""
        places = numbers % _WINDOW
        found: Ids = np.where(self._number[places] == numbers, self._id[places], _UNSET).astype(np.int32, copy=False)
        if self._elsewhere:
            for place in np.flatnonzero(found == _UNSET).tolist():
                found[place] = self._elsewhere.get(int(numbers[place]), _UNSET)
        return found


class Names:
    """All that the current epoch has defined, and what of earlier ones is still in use."""

    def __init__(self, tables: Tables, broker: str, grants: Grants, ours: Callable[[Actor], bool]) -> None:
        """`ours` tells our own connection's channels, which are not to be reported."""
        self.tables = tables
        self.broker = broker
        self.plumbing = 0
        """Events of the broker's own gateways that were left out."""
        self._grants = grants
        self._ours = ours
        self._actor_window = Window()
        self._actors: list[Actor | None] = []
        self._actor_ids: dict[int, int] = {}
        self._free: list[int] = []
        self._is_ours = np.zeros(256, np.bool_)
        self._clients = np.full((2, 256), _UNSET, np.int64)
        """The table's number of each actor as somebody the broker let in, and as somebody it did not."""
        self._speaker = np.zeros(256, np.int32)
        """What each actor's names mean depends on: see `_speaks`."""
        self._speakers: dict[tuple[str, str], int] = {}
        self._representatives: list[Actor] = []
        """An actor of each such kind."""
        self._by_gateway = np.zeros(256, np.bool_)
        self._epoch_actors: set[int] = set()
        self._earlier_actors: set[int] = set()
        self._resource_window = Window()
        self._resources: list[Named | None] = [None]
        self._is_queue = np.zeros(256, np.bool_)
        self._pair = np.full(1 << _PAIR_BITS, _UNSET, np.int64)
        self._pair_number = np.zeros(1 << _PAIR_BITS, np.int64)
        self._evicted = (0, 0)

    def about(self, resource: int) -> Named | None:
        """Return what a row's resource is."""
        return self._resources[resource]

    def channel_of(self, actor: int) -> int:
        """Return a row's actor's channel number; 0 for a connection."""
        known = self._actors[actor] if actor >= 0 else None
        return 0 if known is None else known.channel

    # What the stream defines -------------------------------------------------------------------------------------

    def begin(self, waiting: Rows) -> list[int]:
        """Begin an epoch; returns the numbers of actors that are forgotten.

        `waiting`: rows that are still to be handed out; their resources get new numbers in place. An actor keeps its
        number for its life, so what is known of it stays as long as it acted in the epoch before.
        """
        kept = (set(waiting["actor"].tolist()) | self._epoch_actors) - {-1}
        forgotten = list(self._earlier_actors - kept)
        for own in forgotten:
            actor = self._actors[own]
            if actor is not None:
                self._actor_ids.pop(actor.number, None)
            self._actors[own] = None
        self._free += forgotten
        self._earlier_actors, self._epoch_actors = kept, set()
        self._actor_window.clear()
        self._resource_window.clear()
        used, places = np.unique(waiting["resource"], return_inverse=True)
        # A row that is no event of the stream has a number of another kind there.
        resources, numbers = [self._resources[0]], []
        for own in used.tolist():
            numbers.append(len(resources) if own else 0)
            if own:
                resources.append(self._resources[own] if own < len(self._resources) else None)
        if len(used):
            from_stream = waiting["actor"] >= 0
            waiting["resource"][from_stream] = np.array(numbers, np.int32)[places.reshape(-1)][from_stream]
        self._resources = []
        for resource in resources:
            self._append(resource)
        self._pair[:] = _UNSET
        self._speakers.clear()
        self._representatives.clear()
        for own in kept:
            actor = self._actors[own]
            if actor is not None:
                self._speaker[own] = self._kind_of(actor)
        return forgotten

    def define_actor(self, actor: Actor) -> int | None:
        """Take in a definition; returns the row's number of the actor, None when there are too many."""
        own = self._actor_ids.get(actor.number)
        if own is None:
            if len(self._actor_ids) >= 2 * MAX_NAMES:
                return None
            if self._free:
                own = self._free.pop()
                self._actors[own] = actor
            else:
                own = len(self._actors)
                self._actors.append(actor)
                if own >= len(self._is_ours):
                    self._is_ours = np.append(self._is_ours, np.zeros(own, np.bool_))
                    self._by_gateway = np.append(self._by_gateway, np.zeros(own, np.bool_))
                    self._speaker = np.append(self._speaker, np.zeros(own, np.int32))
                    self._clients = np.append(self._clients, np.full((2, own), _UNSET), axis=1)
            self._actor_ids[actor.number] = own
        before = self._actors[own]
        if before is not None and before.client_id != actor.client_id:
            self._pair[:] = _UNSET
        self._actors[own] = actor
        self._speaker[own] = self._kind_of(actor)
        self._by_gateway[own] = actor.protocol in _GATEWAYS
        self._clients[:, own] = _UNSET
        self._is_ours[own] = self._ours(actor)
        self._epoch_actors.add(own)
        self._actor_window.set(actor.number, own)
        return own

    def define_resource(self, resource: Named) -> bool:
        """Take in a definition; False when there are too many."""
        if len(self._resources) > MAX_NAMES:
            return False
        self._resource_window.set(resource.number, len(self._resources))
        self._append(resource)
        return True

    def _append(self, resource: Named | None) -> None:
        own = len(self._resources)
        self._resources.append(resource)
        if own >= len(self._is_queue):
            self._is_queue = np.append(self._is_queue, np.zeros(own, np.bool_))
        self._is_queue[own] = resource is not None and resource.kind == layout.QUEUE

    def _kind_of(self, actor: Actor) -> int:
        """Return the number of those to whom names mean the same as to this actor."""
        kind = self._speakers.setdefault((actor.protocol, actor.vhost), len(self._speakers))
        if kind == len(self._representatives):
            self._representatives.append(actor)
        return kind

    def resolve(self, events: Events) -> tuple[Ids, Ids, npt.NDArray[np.bool_]]:
        """Return our numbers of events' actors and resources, and which events have both."""
        actor = self._actor_window.get(events["actor"].astype(np.uint32))
        wire = events["resource"].astype(np.uint32)
        resource = self._resource_window.get(wire)
        resource[wire == layout.NO_RESOURCE] = 0
        return actor, resource, (actor >= 0) & (resource >= 0)

    def is_ours(self, actor: Ids) -> npt.NDArray[np.bool_]:
        """Tell which rows' actors are our own link's."""
        ours: npt.NDArray[np.bool_] = self._is_ours[actor]
        return ours

    # What it becomes ---------------------------------------------------------------------------------------------

    def numbers(self, rows: Rows) -> tuple[Numbers, Numbers, npt.NDArray[np.bool_]]:
        """Return the tables' numbers of rows' clients and resources, and which rows are to be handed on.

        Those of the others mean nothing. The caller sees to it that one batch asks for no more rows than half of a
        table's capacity, so that there is always something else to forget.
        """
        self._forget_evicted()
        actor = rows["actor"]
        denied = rows["outcome"] == 2
        refused_login = denied & ((rows["right"] == layout.Permission.LOGIN) | (rows["action"] == layout.AUTHENTICATE))
        claimed = refused_login.astype(np.intp)
        as_binding = (rows["action"] == layout.SUBSCRIBE) | (rows["action"] == layout.UNSUBSCRIBE)
        speaker = self._speaker[actor]
        # Whether a queue is a gateway's own depends on whose it is.
        personal = self._by_gateway[actor] & self._is_queue[rows["resource"]]
        if personal.any():
            speaker = np.where(personal, actor | _PERSONAL, speaker)
        pair = speaker.astype(np.int64) << _RESOURCE_BITS + 1 | rows["resource"].astype(np.int64) << 1 | as_binding
        place = (pair.astype(np.uint64) * _WORDS >> np.uint64(64 - _PAIR_BITS)).astype(np.intp)
        clients = self._clients[claimed, actor]
        known = self._pair[place] == pair
        resources = np.where(known, self._pair_number[place], _UNSET)
        # Before anything is interned, or that could forget what this very batch is about to use.
        tables = self.tables
        tables.clients.touch(clients[clients >= 0].astype(np.uint32))
        tables.resources.touch(resources[resources >= 0].astype(np.uint32))
        if (clients == _UNSET).any():
            unset = np.unique(actor[clients == _UNSET] << 1 | claimed[clients == _UNSET].astype(np.int32))
            for which in unset.tolist():
                self._clients[which & 1, which >> 1] = tables.clients.intern(self._client(which >> 1, bool(which & 1)))
            clients = self._clients[claimed, actor]
        if not known.all():
            new, inverse = np.unique(pair[~known], return_inverse=True)
            found = np.array([self._interned(one) for one in new.tolist()])
            resources[~known] = found[inverse]
            self._pair[place[~known]], self._pair_number[place[~known]] = pair[~known], resources[~known]
        keep = np.ones(len(rows), np.bool_)
        plumbing = resources == _PLUMBING
        if plumbing.any():
            for row in np.flatnonzero(plumbing & denied).tolist():
                # What the gateway may not do for a client, the client cannot do.
                name = self._resources[int(rows["resource"][row])]
                known_as = NO_RESOURCE if name is None else naming.configured("queue", name.name)
                resources[row] = tables.resources.intern(known_as)
            plumbing = resources == _PLUMBING
            self.plumbing += int(np.count_nonzero(plumbing))
            keep = ~plumbing
        return clients.astype(np.uint32), resources.astype(np.uint32), keep

    def _forget_evicted(self) -> None:
        """Forget the tables' numbers when the tables have given some of them to others."""
        evicted = (self.tables.clients.evicted, self.tables.resources.evicted)
        if evicted != self._evicted:
            self._evicted = evicted
            self._clients[:] = _UNSET
            self._pair[:] = _UNSET

    def _client(self, own: int, claimed: bool) -> Client:
        actor = self._actors[own]
        if actor is None:
            return Client(self.broker, "", "")
        identity = Identity.UNKNOWN if not actor.user else Identity.CLAIMED if claimed else Identity.VERIFIED
        return Client(
            self.broker,
            actor.protocol,
            actor.client_id,
            user=actor.user or None,
            address=actor.address or None,
            port=actor.port or None,
            tls_subject=actor.tls_subject or None,
            vhost=actor.vhost or None,
            identity=identity,
        )

    def _interned(self, pair: int) -> int:
        """Return the table's number of what somebody calls a resource, or that it is a gateway's own affair."""
        speaker, resource, as_binding = pair >> _RESOURCE_BITS + 1, pair >> 1 & (1 << _RESOURCE_BITS) - 1, pair & 1
        actor = self._actors[speaker & ~_PERSONAL] if speaker & _PERSONAL else self._representatives[speaker]
        named = self._resources[resource]
        if actor is None or named is None:
            return self.tables.resources.intern(NO_RESOURCE)
        if named.kind == layout.QUEUE and naming.is_plumbing(actor.protocol, actor.client_id, named.name):
            return _PLUMBING
        if named.kind == layout.KEY:
            self._grants.saw_key(actor.vhost, actor.user or None, named.within, named.name)
        return self.tables.resources.intern(self._resource(actor, named, as_binding))

    def _resource(self, actor: Actor, named: Named, as_binding: int) -> Resource:
        protocol = actor.protocol
        if named.kind == layout.BINDING or (named.kind == layout.KEY and as_binding):
            kind = named.exchange_type or self._grants.exchange_type(actor.vhost, named.within)
            resource = naming.bound(protocol, named.within, kind, named.name)
        elif named.kind == layout.KEY:
            resource = naming.published(protocol, named.within, named.name)
        else:
            resource = naming.configured("exchange" if named.kind == layout.EXCHANGE_ITSELF else "queue", named.name)
        if named.cut:
            # How long it was the stream does not say.
            resource = replace(resource, length=resource.length + 1)
        return resource
