"""The report over two million events of Zipf traffic, and over many findings of one kind.

Run: python -m bench.report [EVENTS [FINDINGS]]
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from topicwarden.events import Action, Certainty, Client, Outcome, Resource, ResourceKind, Tables, finish_batch
from topicwarden.findings import Ledger, load_catalogue
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.report import html_page, json_document
from topicwarden.report.build import build_report
from topicwarden.report.controls import load_frameworks
from topicwarden.report.inputs import Inputs
from topicwarden.report.integrity import read_log
from topicwarden.report.reading import Span
from topicwarden.store.notes import Signer
from topicwarden.store.reader import Store
from topicwarden.store.writer import StoreWriter

EVENTS = 2_000_000
FINDINGS = 20_000
CLIENTS = 2_000
TOPICS = 10_000
BATCH = 100_000
START = 1_795_392_000_000_000_000
HOUR = 3_600 * 10**9
HOURS = 24 * 7
CATALOGUE = load_catalogue()


def fill(folder: Path, events: int, findings: int) -> None:
    """Write a week of traffic: clients and topics by Zipf's law, two in a thousand refused; and findings."""
    source = np.random.default_rng(1)
    tables = Tables()
    clients = [
        tables.clients.intern(Client("plant", "mqtt", f"c-{n}", f"user-{n}", "10.0.0.1")) for n in range(CLIENTS)
    ]
    topics = [tables.resources.intern(Resource(ResourceKind.TOPIC, f"plant/{n % 50}/{n}/state")) for n in range(TOPICS)]
    about = {
        "command": "watch",
        "sources": [{"title": "bench", "broker": "plant", "kind": "mosquitto", "blind_spots": []}],
    }
    with StoreWriter(folder, Signer.generate("bench"), about=about) as writer:
        for first in range(0, events, BATCH):
            count = min(BATCH, events - first)
            begin = START + first * HOURS * HOUR // events
            end = START + (first + count) * HOURS * HOUR // events
            batch = finish_batch(
                tables,
                {
                    "time_ns": np.sort(source.integers(begin, end, count)),
                    "action": np.where(source.random(count) < 0.02, Action.SUBSCRIBE, Action.PUBLISH),
                    "outcome": np.where(source.random(count) < 0.002, Outcome.DENIED, Outcome.ALLOWED),
                    "certainty": np.full(count, Certainty.EXACT),
                    "client": np.array(clients)[(source.zipf(1.2, count) - 1) % CLIENTS],
                    "resource": np.array(topics)[(source.zipf(1.2, count) - 1) % TOPICS],
                    "size": source.integers(8, 200, count),
                    "entropy": np.full(count, np.nan),
                    "shape": np.zeros(count),
                    "qos": np.zeros(count),
                    "retain": np.zeros(count),
                    "count": np.ones(count),
                },
            )
            writer.write(batch)
            while writer.waiting > 2_000_000:
                time.sleep(0.05)
        ledger = Ledger(CATALOGUE)
        client = Client("plant", "mqtt", "c-1", "user-1")
        found = ledger.record("TW201", broker="plant", client=client, first_ns=START, last_ns=START + HOUR, count=3)
        assert found is not None
        document = json.loads(encode(finding_document(Event.OPENED, found, Origin())))
        for number in range(findings):
            writer.finding(START + number, "plant", "TW201", document | {"fingerprint": f"{number:032x}"})
            if number % 10_000 == 0:
                while writer.waiting > 50_000:
                    time.sleep(0.05)


def main() -> None:
    """Print what a report takes."""
    numbers = [int(word) for word in sys.argv[1:3]]
    events, findings = (numbers + [EVENTS, FINDINGS][len(numbers) :])[:2]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"
        fill(folder, events, findings)
        started = time.perf_counter()
        store = Store(folder)
        log = read_log(store)
        read = time.perf_counter()
        inputs = Inputs(
            store, log.runs, log.entries, Span(START, START + HOURS * HOUR - 1), time.time_ns(), "bench", log.integrity,
            frameworks=load_frameworks(),
        )  # fmt: skip
        report = build_report(inputs, CATALOGUE)
        built = time.perf_counter()
        page = html_page.render(report)
        rendered = time.perf_counter()
        text = json_document.text(report)
        done = time.perf_counter()
    assert {figure.id: figure.value for figure in report.figures()}["events"] == events
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{events:,} events, {findings:,} findings, {store.sealed + 1} segments")
    print(f"log read and checked          {read - started:7.2f} s")
    print(f"report built                  {built - read:7.2f} s")
    print(f"HTML, {len(page) / 1e6:.1f} MB                  {rendered - built:7.2f} s")
    print(f"JSON, {len(text) / 1e6:.1f} MB                  {done - rendered:7.2f} s")
    print(f"whole report                  {done - started:7.2f} s, peak memory {peak} MiB, writing the store included")


if __name__ == "__main__":
    main()
