"""Prometheus metrics of what is seen and what is missed, from a registry of their own."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from threading import Thread
from types import TracebackType
from typing import Any, Final, Protocol, Self

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Change, Finding
from topicwarden.output.escape import visible
from topicwarden.sources import Counters

DEFAULT_ADDRESS: Final = "127.0.0.1"


class KeepsRows(Protocol):
    """What is served of a store that is being written."""

    @property
    def sealed(self) -> int:
        """Rows that are safe."""
        ...

    @property
    def dropped(self) -> int:
        """Rows that could not be kept."""
        ...

    @property
    def error(self) -> OSError | None:
        """Why the last attempt to write failed."""
        ...


class Metrics(Collector):
    """Reads the sources' counters when scraped, so that counting costs the hot path nothing."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._sources: dict[str, Counters] = {}
        self._store: KeepsRows | None = None
        self._findings = Counter(
            "topicwarden_findings",
            "Findings opened, by code and severity; repeats of the same cause are not counted again.",
            ["code", "severity"],
            registry=self.registry,
        )
        self._clients = Gauge("topicwarden_clients", "Clients known now.", registry=self.registry)
        self.registry.register(self)

    def add_source(self, name: str, counters: Counters) -> None:
        """Serve a source's counters under this label; the first keeps it, a second of that name becomes `name#2`."""
        label, number = visible(name), 2
        while label in self._sources:
            label, number = f"{visible(name)}#{number}", number + 1
        self._sources[label] = counters

    def set_store(self, store: KeepsRows) -> None:
        """Serve what is kept in a store, too."""
        self._store = store

    def finding(self, change: Change, finding: Finding) -> None:
        """Count a finding when it opens."""
        if change is Change.OPENED:
            self._findings.labels(finding.type.code, finding.severity.name.lower()).inc()

    def clients(self, number: int) -> None:
        """Set how many clients are known."""
        self._clients.set(number)

    def collect(self) -> Iterator[Any]:
        """Yield the metric families of all sources; called from the server's thread.

        Reading an int, and copying a dict whose keys are strings, are atomic in CPython: no lock is needed.
        """
        plain = {
            "events": CounterMetricFamily("topicwarden_events", "Events seen.", labels=["source"]),
            "lost": CounterMetricFamily(
                "topicwarden_lost", "Events known to have happened and not seen.", labels=["source"]
            ),
            "gaps": CounterMetricFamily("topicwarden_gaps", "Times events were lost.", labels=["source"]),
            "unresolved": CounterMetricFamily(
                "topicwarden_unresolved", "Events dropped because a name never became known.", labels=["source"]
            ),
        }
        errors = CounterMetricFamily(
            "topicwarden_decode_errors",
            "Records, lines or messages that could not be read.",
            labels=["source", "stage"],
        )
        lag = GaugeMetricFamily(
            "topicwarden_lag_seconds", "How far behind the broker the last batch was.", labels=["source"]
        )
        own = GaugeMetricFamily(
            "topicwarden_source_value", "What the source itself counts, by its own names.", labels=["source", "name"]
        )
        for source, counters in list(self._sources.items()):
            for name, family in plain.items():
                family.add_metric([source], getattr(counters, name))
            for stage, count in dict(counters.decode_errors).items():
                errors.add_metric([source, visible(stage)], count)
            lag.add_metric([source], counters.lag_ns / 1e9)
            for name, value in dict(counters.source).items():
                own.add_metric([source, visible(name)], value)
        yield from (*plain.values(), errors, lag, own)
        if self._store is not None:
            yield CounterMetricFamily(
                "topicwarden_store_rows", "Rows sealed in the store.", value=float(self._store.sealed)
            )
            yield CounterMetricFamily(
                "topicwarden_store_dropped", "Rows that could not be kept.", value=float(self._store.dropped)
            )
            failing = self._store.error is not None
            yield GaugeMetricFamily(
                "topicwarden_store_failing", "Whether the last attempt to write the store failed.", value=float(failing)
            )


class MetricsServer:
    """Serves metrics over HTTP until closed; a context manager. `port` is the real one when 0 was asked for."""

    def __init__(self, metrics: Metrics, port: int, address: str = DEFAULT_ADDRESS) -> None:
        """Listen at once; raises ConfigurationError when the address cannot be had."""
        try:
            self._server, self._thread = start_http_server(port, address, metrics.registry)
        except (OSError, OverflowError) as error:
            raise ConfigurationError(_cannot_listen(port, address, error)) from error
        self.port = int(self._server.server_port)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def thread(self) -> Thread:
        """The thread that serves."""
        return self._thread

    def close(self) -> None:
        """Stop serving and free the port; does nothing the second time."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


def _cannot_listen(port: int, address: str, error: Exception) -> Problem:
    where = f"{address}:{port}"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return Problem(
            f"metrics cannot be served on {where}: the port is in use",
            hint="name another port, or stop what listens there (`ss -ltnp` shows it)",
        )
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return Problem(f"metrics cannot be served on {where}: no permission", hint="name a port of 1024 or above")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Problem(
        f"metrics cannot be served on {where}: {reason}", hint="name an address of this machine and a port up to 65535"
    )
