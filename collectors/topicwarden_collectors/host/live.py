"""The collector of this machine as it runs: programs started, and connections made to publish/subscribe ports.

Processes come from the kernel's process connector, connections from SOCK_DIAG: from looking at what is open, ten times
a second and without a pause while a program is young that may speak to a broker, and from the kernel's word on each
that ends. Whose a connection is says the inode of its socket, which its process has among its descriptors. Without the
rights for these, /proc is looked at instead; `blind_spots` then says what that misses.

What is read is read as soon as it comes, whatever the consumer does, because a process may be gone a millisecond later.
"""

from __future__ import annotations

import asyncio
import os
import select
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from topicwarden.errors import ObservationError, Problem
from topicwarden.events import Dialled, EventBatch, EventBuilder, Executed, HostEvent, Tables
from topicwarden.sources import BlindSpot, Counters, SourceOptions
from topicwarden_collectors.host import procfs
from topicwarden_collectors.host.live_connections import PUBSUB_PORTS, LiveConnections, Told
from topicwarden_collectors.host.live_losses import Losses
from topicwarden_collectors.host.live_owners import SocketOwners, eldest
from topicwarden_collectors.host.live_processes import LiveProcesses
from topicwarden_collectors.host.live_sources import LiveSources
from topicwarden_collectors.host.live_watching import Watching
from topicwarden_collectors.host.netlink_process import ProcessEvent, Sequences, read_event
from topicwarden_collectors.host.procfs import ProcessState

LOOK_S: Final = 0.1
"""How often the connections that are open are looked at."""
MAX_WAITING: Final = 16_384
"""Events that wait for the consumer; with more, the kernel keeps them for us, and says when it cannot."""
_AT_ONCE: Final = 512
"""Datagrams taken before others get a turn."""
_STEP_S: Final = 0.005
"""How long one thing is done before others get a turn."""
_STOCK_S: Final = 0.05
_PAUSE_S: Final = 0.0001
"""Between two looks while somebody is watched closely."""
_GATHER_S: Final = 0.01
"""How long events gather to a batch."""
_COST: Final = 20
"""Looking now and then takes at most one part in so many of a processor, however many sockets there are."""
_LAST_S: Final = 0.5
"""How long is read after `close` at most."""
_MAX_VAIN: Final = 50
"""How often the kernel may not answer, one time after the other, before there is no point in going on."""
_YOUNG_S: Final = 3.0
"""Without the kernel's word: how long after its start a process may be about to start another program."""


class LiveCollector:
    """Watches this machine; `topicwarden.sources.Collector`. Its batches hold no rows, but `hosts` and notices."""

    def __init__(
        self,
        host_name: str,
        options: SourceOptions | None = None,
        *,
        attributor_socket: Path | None = None,
        ports: Collection[int] = PUBSUB_PORTS,
        tables: Tables | None = None,
    ) -> None:
        """Begin to listen; raises ObservationError when nothing at all can be seen.

        `host_name`: the name of this machine in every event. `ports`: the remote ports that matter.
        `attributor_socket`: where a helper is to listen for the questions of Mosquitto's plugin; with it, raises what
        `Attributor` does. `options` has nothing that matters here: there is no place to go on from.
        """
        del options
        self.broker = host_name
        self.counters = Counters()
        self._builder = EventBuilder(tables or Tables())
        self._losses = Losses(host_name, self.counters, self._builder)
        self._sequences = Sequences()
        self._owners = SocketOwners()
        self._processes = LiveProcesses(host_name, self.counters, self._tell)
        self._sources = LiveSources(ports)
        if attributor_socket is not None:
            try:
                self._sources.attribute(attributor_socket, self.counters, host_name)
            except BaseException:
                self._sources.close()
                raise
        self._connections = LiveConnections(
            host_name,
            ports,
            own_pid=os.getpid(),
            ends_told=self._sources.ended is not None,
            others_tell=self._sources.attributor is not None,
        )
        self._watching = Watching(time.monotonic())
        self._stock: list[int] | None = None
        """Processes still to be looked at; None: to be listed anew."""
        self._young: dict[int, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.Handle | None = None
        self._close_look: asyncio.Handle | None = None
        self._wake = asyncio.Event()
        self._vain = 0
        self._reading = False
        self._closed = False
        self._failed: Exception | None = None

    @property
    def title(self) -> str:
        """The mode in a few words."""
        return self._sources.title

    @property
    def observing(self) -> bool:
        """From the start: what happens waits in the kernel until it is read, or is told as lost."""
        return not self._closed

    def blind_spots(self) -> Sequence[BlindSpot]:
        """What cannot be seen with the rights we have."""
        return self._sources.blind_spots()

    async def batches(self) -> AsyncIterator[EventBatch]:
        """Yield batches until closed; raises ObservationError when the kernel does not go on telling."""
        if self._done():
            return
        self._loop = asyncio.get_running_loop()
        try:
            self._read_on()
            self._look()
            ending = False
            while not ending:
                await self._wake.wait()
                self._wake.clear()
                if not self._done():
                    await asyncio.sleep(_GATHER_S)
                ending = self._done()
                if self._failed is None and ending:
                    self._attempt(self._last_words)
                if not self._builder.empty:
                    yield self._builder.take()
                self._read_on()
            if self._failed is not None:
                raise self._failed
        finally:
            self._closed = True
            self._release()

    async def close(self) -> None:
        """Stop; `batches` hands over what has come, and ends."""
        self._closed = True
        if self._loop is None:
            self._release()
        self._wake.set()

    def _done(self) -> bool:
        return self._closed or self._failed is not None

    def _release(self) -> None:
        self._stop_reading()
        for handle in (self._timer, self._close_look):
            if handle is not None:
                handle.cancel()
        self._sources.close()

    def _readers(self) -> list[tuple[int, Callable[[], object]]]:
        """Return the descriptors to wait for, and what to do when they are readable."""
        found: list[tuple[int, Callable[[], object]]] = []
        if self._sources.events is not None:
            found.append((self._sources.events.fileno(), self._read_processes))
        if self._sources.ended is not None:
            found.append((self._sources.ended.fileno(), self._read_ended))
        if self._sources.attributor is not None:
            found.append((self._sources.attributor.fileno(), self._read_attributor))
        return found

    def _read_on(self) -> None:
        """Read, unless too much waits already."""
        if self._loop is None or self._reading or self._done() or len(self._builder) >= MAX_WAITING:
            return
        for descriptor, read in self._readers():
            self._loop.add_reader(descriptor, self._guarded, read)
        self._reading = True

    def _stop_reading(self) -> None:
        if self._loop is not None and self._reading:
            for descriptor, _ in self._readers():
                self._loop.remove_reader(descriptor)
        self._reading = False

    def _guarded(self, act: Callable[[], object]) -> None:
        """Do something when the loop says so, unless we are done."""
        if not self._done():
            self._attempt(act)

    def _attempt(self, act: Callable[[], object]) -> None:
        """Do something; what it raises ends `batches`."""
        try:
            act()
        except OSError as error:
            problem = Problem(f"the kernel does not go on telling: {error}", hint="start it again")
            self._failed = ObservationError(problem)
        except Exception as error:  # noqa: BLE001 - raised in `batches`
            self._failed = error
        if self._failed is not None or len(self._builder) >= MAX_WAITING:
            self._stop_reading()
        if self._failed is not None or not self._builder.empty:
            self._wake.set()

    def _read_processes(self) -> bool:
        """Take what the kernel says of processes; whether there may be more."""
        events = self._sources.events
        if events is None:
            return False
        now = time.monotonic()
        offset_ns = time.time_ns() - time.monotonic_ns()
        taken: list[tuple[ProcessEvent, ProcessState | None]] = []
        more = True
        for _ in range(_AT_ONCE):
            datagram = events.receive()
            if datagram is None:
                more = False
                break
            event = read_event(datagram)
            if event is None:
                self.counters.error("process-event")
                continue
            missing = self._sequences.missing(event.processor, event.sequence)
            if missing:
                self._losses.lost(missing, "process events", "they came faster than they were read")
                self._stock = None
            if isinstance(event, ProcessEvent):
                taken.append((event, self._processes.look(event)))
        last_ns = 0
        for event, state in taken:
            last_ns = event.monotonic_ns + offset_ns
            started = self._processes.happened(event, state, offset_ns)
            if started is not None:
                self._watching.started(started, now)
            else:
                self._watching.ended(event.pid)
        if last_ns:
            self.counters.lag_ns = max(0, time.time_ns() - last_ns)
        self._watch()
        return more

    def _read_ended(self) -> None:
        """Take the kernel's word on connections that ended; those who made them come first."""
        ended = self._sources.ended
        if ended is None:
            return
        self._read_attributor()
        for one in ended.read(_AT_ONCE):
            for told in self._connections.closed(one, time.time_ns()):
                self._tell_dialled(told)

    def _read_attributor(self) -> None:
        self._read_processes()  # whoever connected had been started before
        attributor = self._sources.attributor
        if attributor is None:
            return
        for event in attributor.read():
            if isinstance(event, Executed):
                news = self._processes.told_by_another(event)
            else:
                news = not isinstance(event, Dialled) or self._connections.told_by_another(event)
            if news:
                self._tell(event)

    def _look(self) -> None:
        """Look at what is open, and at everything else that has to be looked at now and then."""
        self._guarded(self._take_stock)
        cpu = time.thread_time()
        self._guarded(self._look_everywhere)
        pause = max(LOOK_S, _COST * (time.thread_time() - cpu))
        self._guarded(self._report)
        if self._loop is not None and not self._done():
            self._timer = self._loop.call_later(pause, self._look)

    def _look_everywhere(self) -> None:
        try:
            self._look_at_connections(everywhere=True)
            self._vain = 0
        except OSError:
            self.counters.error("socket-dump")
            self._vain += 1
            if self._vain > _MAX_VAIN:
                raise

    def _look_at_connections(self, owners: Mapping[int, int] | None = None, *, everywhere: bool = False) -> None:
        """Look at what is open, and for whose it is: among `owners` (by inode), the newest processes, and all."""
        sockets, connections = self._sources.sockets, self._connections
        if sockets is None:
            return
        if everywhere:
            connections.listening(sockets.listening())
        now_ns, incomplete = time.time_ns(), sockets.incomplete
        found = sockets.connected()
        connections.looked(found, now_ns, complete=sockets.incomplete == incomplete)
        wanted = connections.wanted()
        if wanted and owners:
            known = {inode: eldest(owners[inode], inode) for inode in wanted if inode in owners}
            connections.owned(known, scanned=False)
            wanted -= known.keys()
        if wanted:
            connections.owned(self._owners.among(wanted, self._processes.newest), scanned=False)
            wanted = connections.wanted()
        if wanted and everywhere:
            anywhere, scanned = self._owners.anywhere(wanted)
            connections.owned(anywhere, scanned=scanned)
        self._tell_ready()

    def _tell_ready(self, *, last: bool = False) -> None:
        for told in self._connections.ready(time.time_ns(), last=last):
            self._tell_dialled(told)

    def _watch(self) -> None:
        """Look closely, soon, when somebody is to be watched."""
        if self._loop is None or self._sources.sockets is None or self._close_look is not None or self._done():
            return
        if self._watching.watched(time.monotonic()):
            self._close_look = self._loop.call_soon(self._guarded, self._look_closely)

    def _look_closely(self) -> None:
        """Look at those who are watched, for a moment, without a pause worth the name."""
        self._close_look = None
        until = time.monotonic() + _STEP_S
        waiting = select.poll()
        for descriptor, _ in self._readers():
            waiting.register(descriptor, select.POLLIN)
        owners: dict[int, int] = {}
        while (now := time.monotonic()) < until and self._watching.watched(now):
            cpu = time.thread_time()
            owners |= self._owners.sockets(self._watching)
            if self._watching.worth(owners):
                self._look_at_connections(owners)
            self._watching.spent(time.thread_time() - cpu)
            time.sleep(_PAUSE_S)
            if waiting.poll(0):
                break
        self._watch()

    def _take_stock(self) -> None:
        """Tell of the processes that are there and were not told, some at a time; without the kernel's word, always."""
        unheard = self._sources.events is None
        now = time.monotonic()
        if self._stock is None or (unheard and not self._stock):
            self._stock = procfs.pids()
            self._young = {pid: until for pid, until in self._young.items() if until > now}
            self._processes.compare(self._stock, self._young if unheard else None)
        while self._stock and time.monotonic() < now + _STOCK_S:
            pid = self._stock.pop()
            if self._processes.met(pid) and unheard:
                self._young[pid] = now + _YOUNG_S

    def _report(self) -> None:
        """Say what was lost, and what overflowed, since the last time."""
        ended, sockets, attributor = self._sources.ended, self._sources.sockets, self._sources.attributor
        losses, errors = self._losses, self.counters.decode_errors
        if ended is not None:
            losses.total(ended.overruns, "connections", "they ended faster than they were read")
            if ended.malformed:
                errors["ended-socket"] = ended.malformed
        if sockets is not None:
            losses.total(sockets.incomplete, "connections", "the kernel's answer was cut short")
            if sockets.malformed:
                errors["socket"] = sockets.malformed
        if attributor is not None:
            losses.counted(attributor.dropped, "attributions", "they came faster than they were read")
        losses.total(self._connections.overflowed, "connections", "more are open than are kept")
        losses.overflowed(self._processes.evicted, "processes of this machine")
        source = self.counters.source
        source["connections_open"] = len(self._connections)
        source["scans_unfinished"] = self._owners.unfinished
        source["not_watched"] = self._watching.passed_over

    def _last_words(self) -> None:
        """Take what has come until now, so that nothing that was done before `close` is missing."""
        until = time.monotonic() + _LAST_S
        while self._read_processes() and time.monotonic() < until:
            pass
        self._read_attributor()
        self._read_ended()
        self._look_at_connections()
        self._tell_ready(last=True)
        self._report()

    def _tell_dialled(self, told: Told) -> None:
        """Tell a connection, and whose it is, if that was not told before."""
        event = told.dialled
        if event.pid is not None:
            self._processes.met(event.pid)
        executable = self._processes.executable(event.pid)
        user = None if told.uid is None else procfs.user_name(told.uid)
        self._tell(replace(event, executable=executable, user=user))

    def _tell(self, event: HostEvent) -> None:
        self.counters.events += 1
        self._builder.host(event)
