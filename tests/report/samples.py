"""A small store with something of everything a report shows, plain or with hostile names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBuilder,
    GrantChange,
    Identity,
    Notice,
    Outcome,
    Process,
    Resource,
    ResourceKind,
    Right,
    Tables,
)
from topicwarden.events.host_events import Endpoint, Executed
from topicwarden.findings import Finding, Ledger, load_catalogue
from topicwarden.hosts.join import Attribution, Sureness
from topicwarden.output.jsonl import Event, encode, finding_document
from topicwarden.output.origin import Origin
from topicwarden.policy import parse_policy
from topicwarden.store.notes import Signer
from topicwarden.store.writer import StoreWriter

SIGNER = Signer("plant", bytes(range(32)))
DAY = 86_400 * 10**9
HOUR = DAY // 24
START = 1_795_392_000_000_000_000
"""2026-11-23T00:00:00Z."""
END = START + 5 * DAY
CATALOGUE = load_catalogue()
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "=cmd|'/C calc'!A0",
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\tx",
    "\r\nx",
    "'quoted",
    "＝1+1",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.x",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "</title></svg></style><script>alert(2)</script>",
    "]]><!--",
    "\\u{1b}",
    "a\x00b",
    "\udcff",
    "x" * 5000,
)
POLICY = """\
topicwarden: 1
roles:
  sensor:
    members: [{user: "sensor-*"}]
    publish:
      - {topic: "plant/+/%u/telemetry", rate: 10/s, burst: 20}
    subscribe:
      - {topic: "plant/+/%u/command"}
  gateway:
    members: [{user: gw}]
    publish: [{topic: "plant/#"}]
    subscribe: [{topic: "plant/#"}]
exceptions:
  - {finding: TW201, user: sensor-4, reason: "replaced by Q2", until: 2027-06-30}
  - {finding: TW240, user: gw, reason: "moves to the new bridge", until: 2026-11-20}
"""


def client(user: str | None = "sensor-1", client_id: str = "s-1", broker: str = "plant", **more: Any) -> Client:
    return Client(broker, "mqtt", client_id, user, more.pop("address", "10.0.0.5"), **more)


def topic(name: str) -> Resource:
    return Resource(ResourceKind.TOPIC, name)


def write_store(folder: Path, names: tuple[str, ...] = (), *, signer: Signer = SIGNER) -> Path:
    """Write five days of a plant; each of `names` is also used as everything that a name can be."""
    now = [START]
    with StoreWriter(folder, signer, about=about(names), now_ns=lambda: now[0]) as writer:
        builder = EventBuilder(Tables())
        for hour in range(0, 120, 6):
            _hour(builder, hour)
        for place, name in enumerate(names):
            who = client(name, name[:64], broker=name[:64], vhost=name, tls_subject=name, address=name[:64])
            for action, outcome in ((Action.PUBLISH, Outcome.ALLOWED), (Action.SUBSCRIBE, Outcome.DENIED)):
                builder.add(START + place * HOUR, action, who, topic(name), outcome, Certainty.EXACT, size=9, count=500)
            builder.notice(Notice("TW901", START + place * HOUR, name, name, 3, who, name, {name: name}))
            builder.change(
                GrantChange(START + place * HOUR, who, name, who, name, name, [Right(Action.PUBLISH, topic(name))],
                            powers=[name])
            )  # fmt: skip
        builder.notice(Notice("TW901", START + 30 * HOUR, "plant", "ring", 412))
        builder.notice(Notice("TW906", START + 31 * HOUR, "plant"))
        builder.change(
            GrantChange(START + 40 * HOUR, client("sensor-2", ""), "permission", client("ops", "admin-ui"),
                        "write ^plant/a$", "write .*", [Right(Action.PUBLISH, topic("plant/b"))])
        )  # fmt: skip
        builder.host(
            Executed(START + 41 * HOUR, Process("ci-7", 4711, "/usr/bin/mosquitto_pub", ("mosquitto_pub", "-t", "c2")))
        )
        writer.write(builder.take())
        for finding in sample_findings(names):
            keep(writer, finding)
        now[0] = END
    return folder


def keep(writer: StoreWriter, finding: Finding, event: Event = Event.OPENED) -> None:
    """Keep a finding as `watch --store` does."""
    place = finding.broker if finding.host is None else finding.host
    document = json.loads(encode(finding_document(event, finding, Origin(version="1.0"))))
    writer.finding(finding.last_ns, place, finding.type.code, document)


def about(names: tuple[str, ...] = ()) -> Mapping[str, Any]:
    spots = [
        {"what": "what is delivered to subscribers is not recorded", "fix": None},
        {"what": "bridges are not seen", "fix": "watch the far end"},
        *({"what": name, "fix": name} for name in names if "\udcff" not in name),
    ]
    return {
        "command": "watch",
        "version": "1.0",
        "policy": {"file": "policy.yaml", "sha256": sha256(POLICY.encode()).hexdigest()},
        "sources": [
            {"title": "mosquitto plugin, every event", "broker": "plant", "kind": "mosquitto", "host": False,
             "runs_on": "", "blind_spots": spots},
            {"title": "auditd", "broker": "ci-7", "kind": "", "host": True, "runs_on": "", "blind_spots": []},
        ],
    }  # fmt: skip


def sample_findings(names: tuple[str, ...] = ()) -> list[Finding]:
    ledger = Ledger(CATALOGUE)
    for number in range(1, 5):
        ledger.record(
            "TW201",
            broker="plant",
            client=client(f"sensor-{number}", f"s-{number}", identity=Identity.VERIFIED),
            first_ns=START + number * 17 * HOUR,
            last_ns=START + (number * 17 + 9) * HOUR,
            count=10**number,
            witnesses={f"plant/a/sensor-{number + 1}/command": 7, "plant/b/other": 3},
            evidence={"role": "sensor"},
            accepted="replaced by Q2 (until 2027-06-30)" if number == 4 else None,
        )
    ledger.record(
        "TW240", broker="plant", client=client("gw", "gateway"), first_ns=START + HOUR, last_ns=START + 50 * HOUR,
        count=3, witnesses={"#": 3},
    )  # fmt: skip
    ledger.record(
        "TW301",
        broker="plant",
        client=client(None, "probe-1", identity=Identity.ANONYMOUS),
        first_ns=START + 60 * HOUR,
        last_ns=START + 61 * HOUR,
        count=450,
        witnesses={"plant/a/sensor-1/command": 450},
        certainty=Certainty.INFERRED,
    )
    for number, (code, roles) in enumerate(
        (("TW101", "sensor"), ("TW102", "sensor"), ("TW108", ""), ("TW112", "gateway"))
    ):
        ledger.record(
            code,
            broker="plant",
            client=client(f"sensor-{number}", "", address=None),
            first_ns=START + 2 * HOUR,
            last_ns=START + 2 * HOUR,
            witnesses={} if code == "TW102" else {f"publish to plant/x{number}": 1},
            evidence={"grant": "topic write plant/#", "where_file": "/etc/mosquitto/acl", "where_line": number + 2,
                      "roles": roles, "alike": number, "period": "5 days", "reason": "everybody may write it"},
        )  # fmt: skip
    host = ledger.record(
        "TW402", broker="", host="ci-7", first_ns=START + 41 * HOUR, last_ns=START + 44 * HOUR, count=12,
        witnesses={"198.51.100.7": 12}, evidence={"process": "mosquitto_pub", "host": "ci-7"},
    )  # fmt: skip
    assert host is not None
    arguments = ("mosquitto_pub", "-h", "198.51.100.7", "-P", "***", "-t", "c2/beacon", "-m", "<payload>")
    process = Process(
        "ci-7", 4711, "/usr/bin/mosquitto_pub", arguments, False, 4710, "/usr/bin/bash", "build", "mallory"
    )
    ends = (Endpoint("198.51.100.7", 1883), Endpoint("10.0.0.7", 51234))
    ledger.attribute(host, Attribution(process, Sureness.EXACT, "same connection", START + 41 * HOUR, *ends))
    ledger.record("TW901", broker="plant", first_ns=START + 30 * HOUR, last_ns=START + 30 * HOUR, count=412)
    for place, name in enumerate(names):
        who = client(name, name[:64], broker=name[:64], vhost=name, tls_subject=name, address=name[:64])
        found = ledger.record(
            "TW201", broker=name[:64], client=who, scope=(name,), first_ns=START + place * HOUR,
            last_ns=START + place * HOUR, witnesses={name: 1}, evidence={"role": name, name[:64]: name}, accepted=None
        )  # fmt: skip
        assert found is not None
        ledger.attribute(
            found,
            Attribution(
                Process(name, 1, name, (name, name), False, 1, name, name, name), Sureness.WEAK, name, START, None, None
            ),
        )
    return ledger.findings()


def _hour(builder: EventBuilder, hour: int) -> None:
    when = START + hour * HOUR
    for number in range(1, 7):
        who = client(f"sensor-{number}", f"s-{number}", identity=Identity.VERIFIED)
        name = topic(f"plant/{'ab'[number % 2]}/sensor-{number}/telemetry")
        count = 40 * number + (hour * 7 + number * 13) % 29 + (25 if 6 <= hour % 24 < 20 else 0)
        builder.add(when + number, Action.PUBLISH, who, name, Outcome.ALLOWED, Certainty.EXACT, size=120, count=count)
        if hour % 24 == 6:
            place = topic(f"plant/{'ab'[number % 2]}/sensor-{number}/command")
            builder.add(when, Action.SUBSCRIBE, who, place, Outcome.ALLOWED, Certainty.EXACT)
    if 54 <= hour <= 66 or hour % 42 == 0:
        who = client(None, "probe-1", address="203.0.113.9", identity=Identity.ANONYMOUS)
        builder.add(when + 9, Action.SUBSCRIBE, who, topic("plant/#"), Outcome.DENIED, Certainty.EXACT, count=hour)


INTENDED = parse_policy(POLICY, "policy.yaml")
