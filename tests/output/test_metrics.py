"""Prometheus metrics, read the way Prometheus reads them."""

from __future__ import annotations

import socket
import urllib.request

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from tests.brokers import port_answers
from topicwarden.errors import ConfigurationError
from topicwarden.findings import Change
from topicwarden.output import Metrics, MetricsServer
from topicwarden.sources import Counters

from .samples import HOSTILE, finding


def scrape(server: MetricsServer) -> dict[tuple[str, ...], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_a_scrape_shows_the_counters_as_they_are_at_that_moment() -> None:
    metrics, counters = Metrics(), Counters(events=5)
    metrics.add_source("plant-a", counters)
    with MetricsServer(metrics, 0) as server:
        assert scrape(server)["topicwarden_events_total", "plant-a"] == 5
        counters.events, counters.lost, counters.gaps, counters.unresolved = 100, 12, 2, 3
        counters.lag_ns = 1_500_000_000
        counters.error("record", 4)
        counters.source["clients_evicted"] = 6
        metrics.finding(Change.OPENED, finding())
        metrics.finding(Change.GREW, finding())
        metrics.finding(Change.OPENED, finding(accepted="until then"))
        metrics.clients(7)
        assert scrape(server) == {
            ("topicwarden_events_total", "plant-a"): 100,
            ("topicwarden_lost_total", "plant-a"): 12,
            ("topicwarden_gaps_total", "plant-a"): 2,
            ("topicwarden_unresolved_total", "plant-a"): 3,
            ("topicwarden_decode_errors_total", "plant-a", "record"): 4,
            ("topicwarden_lag_seconds", "plant-a"): 1.5,
            ("topicwarden_source_value", "clients_evicted", "plant-a"): 6,
            ("topicwarden_findings_total", "TW201", "high"): 1,
            ("topicwarden_findings_total", "TW201", "info"): 1,
            ("topicwarden_clients",): 7,
        }


def test_sources_of_one_name_do_not_hide_each_other_and_hostile_names_break_no_scrape() -> None:
    metrics = Metrics()
    metrics.add_source("plant-a", Counters(events=1))
    metrics.add_source("plant-a", Counters(events=2))
    metrics.add_source(HOSTILE, Counters(events=3, decode_errors={HOSTILE: 1}, source={HOSTILE: 2}))
    with MetricsServer(metrics, 0) as server:
        found = scrape(server)
    assert found["topicwarden_events_total", "plant-a"] == 1
    assert found["topicwarden_events_total", "plant-a#2"] == 2
    assert sorted(v for k, v in found.items() if k[0] == "topicwarden_events_total") == [1, 2, 3]


def test_nothing_is_put_into_the_global_registry() -> None:
    Metrics().add_source("plant-a", Counters())
    assert not any(family.name.startswith("topicwarden") for family in REGISTRY.collect())


def test_closing_frees_the_port_and_ends_the_thread() -> None:
    server = MetricsServer(Metrics(), 0)
    assert port_answers(server.port)
    server.close()
    server.close()
    assert not server.thread.is_alive()
    MetricsServer(Metrics(), server.port).close()


def test_it_listens_on_loopback_only_unless_told_otherwise() -> None:
    with MetricsServer(Metrics(), 0) as server, socket.socket() as probe:
        probe.bind(("127.0.0.2", server.port))  # would fail if every address were taken


def test_a_port_in_use_is_an_error_that_says_what_to_do() -> None:
    with MetricsServer(Metrics(), 0) as server, pytest.raises(ConfigurationError) as caught:
        MetricsServer(Metrics(), server.port)
    assert f"127.0.0.1:{server.port}: the port is in use" in str(caught.value)
    assert "hint: " in str(caught.value)


@pytest.mark.parametrize(("port", "address"), [(70000, "127.0.0.1"), (0, "192.0.2.1"), (0, "no.such.host.invalid")])
def test_an_impossible_address_is_an_error_with_a_hint(port: int, address: str) -> None:
    with pytest.raises(ConfigurationError, match="hint: "):
        MetricsServer(Metrics(), port, address)
