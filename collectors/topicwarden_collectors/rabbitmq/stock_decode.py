"""The decoder of the stock mode: deliveries of the event, log and trace exchanges in, batches out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from topicwarden.events import EventBatch, Tables
from topicwarden.sources import Counters
from topicwarden_collectors.rabbitmq.genuine import origin_of_forgery
from topicwarden_collectors.rabbitmq.grants import Grants
from topicwarden_collectors.rabbitmq.link import Delivery, LinkChange, LinkKind, News
from topicwarden_collectors.rabbitmq.log_facts import TracingSwitched
from topicwarden_collectors.rabbitmq.log_spelling import spelling_of
from topicwarden_collectors.rabbitmq.management import Snapshot
from topicwarden_collectors.rabbitmq.stock_blind_spots import EVENTS, LOG, TRACE, Firehose, Sight
from topicwarden_collectors.rabbitmq.stock_events import EventSteps
from topicwarden_collectors.rabbitmq.stock_log import LogSteps
from topicwarden_collectors.rabbitmq.stock_sink import FORGED_MESSAGE, SWITCHED_OFF, Sink
from topicwarden_collectors.rabbitmq.stock_traces import TraceSteps
from topicwarden_collectors.rabbitmq.stock_waiting import Waiting

_ORIGINS: Final = 64
"""Most different origins of forged messages told of at once."""
_NO_TRACE_NS: Final = 10_000_000_000
"""How long after a reconnection the firehose may be silent before we say so."""
_INTERNAL_ERROR: Final = "INTERNAL_ERROR"


class StockDecoder:
    """Feed it what the link gives, tell it the time, take batches."""

    def __init__(
        self, tables: Tables, broker: str, counters: Counters, firehose: Sequence[str], grants: Grants | None = None
    ) -> None:
        self.sink = Sink(tables, broker, counters, grants or Grants(broker))
        self.sight = Sight(firehose={vhost: Firehose() for vhost in firehose}, grants_known=grants is not None)
        self.stale = False
        """Whether connections may have come and gone unseen, so that a new snapshot is needed."""
        self._waiting = Waiting()
        self.events = EventSteps(self.sink, self._waiting)
        self.events.firehose = frozenset(firehose)
        self.traces = TraceSteps(self.sink, self._waiting)
        self.log = LogSteps(self.sink, self._waiting, self.events, self._tracing)
        self._forged: dict[tuple[str, str, str], int] = {}
        self._silent_until: dict[str, int] = {}
        """When a firehose that is silent since a reconnection is told of, by virtual host."""

    def ours(self, connections: frozenset[str], queues: frozenset[str]) -> None:
        """Take over what the broker calls our own connections and queues now."""
        self.traces.own = self.log.own = connections
        self.events.ours(connections, queues)

    def served_by(self, rabbit_version: str | None) -> None:
        """Take over which RabbitMQ it is: how it writes names in its log, and what its events mean."""
        self.log.spelling(spelling_of(rabbit_version))
        self.sink.grants.served_by(rabbit_version)

    def feed(self, news: Sequence[News], now_ns: int) -> None:
        """Take over what came. `now_ns`: our own clock."""
        self.sink.now_ns = now_ns
        for one in news:
            if isinstance(one, Delivery):
                self._delivery(one, now_ns)
            else:
                self._changed(one)
        for (exchange, vhost, origin), count in self._forged.items():
            evidence: dict[str, str | int | float] = {"exchange": exchange, "vhost": vhost}
            self.sink.notice(FORGED_MESSAGE, exchange, count=count, witness=origin, evidence=evidence)
        self._forged.clear()

    def pass_time(self, now_ns: int) -> None:
        """Go on with what has waited long enough."""
        self.sink.now_ns = now_ns
        self.log.pass_time()
        self._waiting.pass_time(now_ns)
        self.events.pass_time()
        for vhost, until in list(self._silent_until.items()):
            if now_ns >= until:
                del self._silent_until[vhost]
                if self.sight.firehose[vhost].on and self.sight.firehose[vhost].off is None:
                    self._off(vhost, "nothing was traced since we connected again; a restart switches it off")

    def finish(self) -> None:
        """Wait for nothing any more."""
        self.log.finish()
        self._waiting.finish()
        self.events.finish()

    def take(self) -> list[EventBatch]:
        """Return the batches there are."""
        self.sink.say_unresolved()
        self.sink.flush()
        sight, log = self.sight, self.log
        sight.log_seen, sight.log_info_seen, sight.log_not_json = log.seen, log.info_seen, log.not_json
        source = self.sink.counters.source
        source["connections"] = len(self.sink.connections)
        source["forgotten"] = self.sink.connections.forgotten + self._waiting.overflowed
        done, self.sink.done = self.sink.done, []
        return done

    def listed(self, snapshot: Snapshot, *, complete: bool) -> None:
        """Take over what the management API says there is; `complete`: no connection from before is missing in it."""
        self.stale = False
        self.sight.management_problem = snapshot.problem
        self.sight.earlier_known = complete and snapshot.problem is None
        if snapshot.problem is not None:
            return
        if snapshot.undecodable:
            self.sink.counters.error("management", snapshot.undecodable)
        others = [row for row in snapshot.connections if row.name not in self.events.own]
        self.sink.connections.listed(others, complete=complete)
        for row in others:
            self._waiting.known(row.name)
        for (vhost, name), kind in snapshot.exchange_types.items():
            self.sink.grants.apply(0, "exchange.created", {"vhost": vhost, "name": name, "type": kind})
        for vhost, on in snapshot.tracing.items():
            state = self.sight.firehose.get(vhost)
            if state is None:
                continue
            if on:
                state.on, state.off = True, None
                self._silent_until.pop(vhost, None)
            elif state.off is None:
                self._off(vhost, "the management API says so")

    def take_unbound(self) -> bool:
        """Return whether our queues lost their bindings without a word since the last call: then subscribe anew."""
        gone, self.events.switched_off = self.events.switched_off, False
        if gone:
            self.sight.events = "its plugin was disabled while we looked"
            self.log.has_events = False
            self._forget()
            self.sink.gap("subscriptions", "we subscribe anew: the event exchange was taken away with our binding")
        return gone

    def _delivery(self, delivery: Delivery, now_ns: int) -> None:
        exchange = delivery.subscription.exchange
        origin = origin_of_forgery(delivery, exchange)
        if origin is not None:
            source = self.sink.counters.source
            source["forged"] = source.get("forged", 0) + 1
            about = (exchange, delivery.subscription.vhost, origin)
            if about not in self._forged and len(self._forged) >= _ORIGINS:
                about = (exchange, delivery.subscription.vhost, "many origins")
            self._forged[about] = self._forged.get(about, 0) + 1
            return
        headers = delivery.properties.headers
        if exchange == TRACE:
            vhost = delivery.subscription.vhost
            state = self.sight.firehose[vhost]
            if not state.traced or state.off is not None:
                state.traced, state.on, state.off = True, True, None
                self._silent_until.pop(vhost, None)
            self.traces.decode(delivery.routing_key, headers, delivery.size, now_ns)
        elif exchange == EVENTS:
            self.events.decode(delivery.routing_key, headers)
        else:
            self.log.decode(delivery.body, delivery.properties.content_type, headers)

    def _tracing(self, fact: TracingSwitched) -> None:
        state = self.sight.firehose.get(fact.vhost)
        if state is None:
            return
        if fact.on:
            state.on, state.off = True, None
        elif state.off is None:
            state.on = True
            self._off(fact.vhost, "the broker's log says so", fact.time_ns)

    def _off(self, vhost: str, why: str, time_ns: int | None = None) -> None:
        state = self.sight.firehose[vhost]
        was_on, state.on, state.off = state.on, False, why
        if not was_on:
            return  # it was off when we came: that is a blind spot, and nobody's doing
        evidence: dict[str, str | int | float] = {"what": f"tracing of {vhost}", "why": why}
        self.sink.notice(SWITCHED_OFF, f"tracing {vhost}", time_ns=time_ns, evidence=evidence)

    # The link itself --------------------------------------------------------------------------------------------------

    def _changed(self, change: LinkChange) -> None:
        subscription = change.subscription
        if subscription is None:
            if change.kind is LinkKind.LOST:
                self._lost(change)
            return
        exchange, vhost = subscription.exchange, change.vhost
        match change.kind:
            case LinkKind.SUBSCRIBED:
                self._say(exchange, vhost, None)
                if exchange == EVENTS:
                    self.stale = True
            case LinkKind.REFUSED:
                was_read = self._problem(exchange, vhost) is None
                self._say(exchange, vhost, change.reason)
                if was_read:
                    what: dict[str, str | int | float] = {"what": f"{exchange} in {vhost}", "why": change.reason}
                    self.sink.notice(SWITCHED_OFF, f"{exchange} {vhost}", evidence=what)
            case LinkKind.QUEUE_GONE:
                self.sink.gap(f"queue {exchange} {vhost}", f"our queue was lost: {change.reason}")
                if exchange == EVENTS:
                    self._forget()
            case LinkKind.QUEUE_FULL:
                why = f"our queue at the broker may have been full ({change.reason}): it drops the oldest, uncounted"
                self.sink.gap(f"queue {exchange} {vhost}", why)
                if exchange == EVENTS:
                    self._forget()
            case _:
                pass

    def _lost(self, change: LinkChange) -> None:
        why = f"the connection was lost: {change.reason}"
        if change.vhost in self.sight.firehose and _INTERNAL_ERROR in change.reason:
            why += "; so RabbitMQ (3.10.8) ends it when an exchange or queue has a name that is too long to be traced"
        self.sink.gap(f"connection {change.vhost}", why)
        if change.vhost == "/":
            self._forget()
        state = self.sight.firehose.get(change.vhost)
        if state is not None and state.off is None:
            state.traced = False
            self._silent_until[change.vhost] = change.time_ns + _NO_TRACE_NS

    def _forget(self) -> None:
        """Forget who is connected: comings and goings were missed, and addresses are given to others."""
        self._waiting.finish()
        self.events.forget()
        self.sight.earlier_known = False
        self.stale = True

    def _problem(self, exchange: str, vhost: str) -> str | None:
        if exchange == TRACE:
            return self.sight.firehose[vhost].problem
        return self.sight.events if exchange == EVENTS else self.sight.log

    def _say(self, exchange: str, vhost: str, problem: str | None) -> None:
        if exchange == TRACE:
            self.sight.firehose[vhost].problem = problem
        elif exchange == EVENTS:
            self.sight.events = problem
            self.log.has_events = problem is None
        elif exchange == LOG:
            self.sight.log = problem
