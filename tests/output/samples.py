"""Findings, clients and summaries to render, plain and hostile."""

from __future__ import annotations

from typing import Any

from topicwarden.events import Certainty, Client, Endpoint, Identity, Process
from topicwarden.findings import MAX_BEHIND, Catalogue, Finding, FindingType, Ledger
from topicwarden.hosts.join import Attribution, Joined, Sureness
from topicwarden.output import InventoryRow, Kept, ScannedGrants, SourceSummary, Summary
from topicwarden.sources import BlindSpot, Counters

START = 1_795_427_880_123_456_789
"""2026-11-23T09:58:00.123456789Z."""
SECOND = 1_000_000_000

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202egnp.x\u200b\u2028\x9b31m\udcff\x7f\r\n…"


def finding_type(code: str = "TW201", **changes: Any) -> FindingType:
    fields: dict[str, Any] = {
        "code": code,
        "name": "publish.outside-policy",
        "severity": "high",
        "title": "{client} published to {witness}, which no role of its allows",
        "difference": "observed - intended",
        "needs_policy": True,
        "meaning": "The broker accepted a publish nobody intended.\n",
        "why": "Whoever controls this client can inject data.\n",
        "fix": "Narrow the broker's grant.\n",
        "limits": ["Bridges are judged under their own client id."],
        "attack": ["T1071.005"],
        "controls": {"nist-800-53r5": ["AC-3", "SI-4"]},
    }
    return FindingType.model_validate(fields | changes)


CATALOGUE = Catalogue(
    {
        item.code: item
        for item in (
            finding_type(),
            finding_type(
                "TW101",
                name="grant.excess",
                severity="medium",
                title="{client} may publish to {witness}",
                difference="granted - intended",
                attack=[],
            ),
            finding_type(
                "TW203",
                name="publish.rate",
                severity="critical",
                title="{client} published {max_rate} messages a second, {limit} are allowed",
                attack=["T1499", "T1078"],
            ),
            finding_type(
                "TW301",
                name="access.denied",
                severity="low",
                title="{client} was denied {witness}",
                difference="observed, denied",
                attack=["T1110"],
            ),
            finding_type(
                "TW302",
                name="login.repeated-failures",
                severity="medium",
                title="Logins as {user} from {address} failed {count} times",
                difference="observed, denied",
                attack=["T1110.001"],
            ),
            finding_type(
                "TW401",
                name="host.outbound-connection",
                severity="medium",
                title="{process} on {host} connected {count} times to {witness}",
                difference="hosts observed - inventory",
            ),
            finding_type(
                "TW901",
                name="observing.gap",
                severity="medium",
                title="{sum_lost} events of {broker} were lost",
                difference="what cannot be observed",
                attack=[],
                controls={},
            ),
        )
    }
)


def client(**changes: Any) -> Client:
    fields: dict[str, Any] = {
        "broker": "plant-a",
        "protocol": "mqtt",
        "client_id": "s-17",
        "user": "sensor-1",
        "address": "10.0.0.5",
        "port": 51234,
        "tls_subject": "CN=sensor-1,O=Plant",
        "vhost": "/",
        "identity": Identity.VERIFIED,
    }
    return Client(**(fields | changes))


def finding(code: str = "TW201", *, catalogue: Catalogue = CATALOGUE, **changes: Any) -> Finding:
    ledger = Ledger(catalogue)
    fields: dict[str, Any] = {
        "broker": "plant-a",
        "client": client(),
        "scope": ("roles.sensor.publish[0]",),
        "first_ns": START,
        "last_ns": START + 9 * SECOND,
        "count": 1234,
        "witnesses": {"plant/a/sensor-1/command": 1000, "plant/b": 234},
        "evidence": {"max_rate": 12.5, "limit": 10, "tool": "mosquitto_pub"},
    }
    ledger.record(code, **(fields | changes))
    return ledger.findings()[0]


def behind(**changes: Any) -> Attribution:
    fields: dict[str, Any] = {
        "host": "ci-7",
        "pid": 4711,
        "executable": "/usr/bin/mosquitto_pub",
        "arguments": ("mosquitto_pub", "-h", "10.0.0.9", "-P", "***", "-t", "c2/beacon", "-m", "<payload>"),
        "parent_pid": 4710,
        "parent_executable": "/usr/bin/bash",
        "user": "build",
        "login_user": "mallory",
        "terminal": "pts0",
        "container": "0123456789abcdef",
    }
    return Attribution(
        Process(**(fields | changes)),
        Sureness.EXACT,
        "same connection 10.0.0.5 port 51234, 3 ms apart",
        START,
        Endpoint("10.0.0.9", 1883),
        Endpoint("10.0.0.5", 51234),
    )


def attributed(found: Finding, *processes: Attribution) -> Finding:
    ledger = Ledger(CATALOGUE)
    for one in processes:
        ledger.attribute(found, one)
    return found


def many() -> list[Finding]:
    """One finding of every kind that is rendered differently."""
    return [
        finding(),
        finding("TW203", certainty=Certainty.INFERRED, client=client(user=None, identity=Identity.ANONYMOUS)),
        finding("TW101", client=client(address="/run/mosquitto.sock", port=None, tls_subject=None, vhost=None)),
        finding("TW301", client=client(user="admin", identity=Identity.CLAIMED), certainty=Certainty.UNKNOWN),
        finding("TW901", client=None, witnesses={}, evidence={"sum_lost": 4096}, scope=()),
        finding("TW302", client=client(identity=Identity.CLAIMED), witnesses={}),
        finding("TW201", accepted="replaced by Q2, until 2027-06-30", count=1, last_ns=START),
        finding("TW301", client=client(user=None, client_id="", identity=Identity.UNKNOWN, address=None, port=None)),
        finding("TW301", evidence={"outcome": "allowed"}, witnesses={f"t/{n}": n for n in range(1, 20)}),
        finding(
            client=client(
                broker=HOSTILE,
                user=HOSTILE,
                client_id=HOSTILE * 50,
                address=HOSTILE,
                tls_subject=HOSTILE,
                vhost=HOSTILE,
            ),
            broker=HOSTILE,
            witnesses={HOSTILE: 3, "x" * 65535: 2},
            evidence={"last_text": HOSTILE, "max_rate": float("nan")},
            scope=(HOSTILE,),
            accepted=HOSTILE,
        ),
        attributed(finding(count=3), behind()),
        attributed(
            finding(
                "TW401",
                broker="",
                host="ci-7",
                client=None,
                scope=("mosquitto_pub", "1883"),
                witnesses={"10.0.0.9": 2},
                evidence={"process": "mosquitto_pub", "host": "ci-7"},
            ),
            *(behind(arguments=("nc", str(number)), cut=True) for number in range(MAX_BEHIND + 3)),
        ),
        attributed(
            finding("TW401", broker="", host=HOSTILE, client=None, evidence={"process": HOSTILE, "host": HOSTILE}),
            behind(
                host=HOSTILE,
                executable=HOSTILE,
                arguments=(HOSTILE, HOSTILE * 50),
                parent_executable=HOSTILE,
                user=HOSTILE,
                login_user=HOSTILE,
                terminal=HOSTILE,
                container=HOSTILE,
            ),
        ),
        attributed(
            finding(),
            behind(
                executable="",
                arguments=(),
                parent_pid=None,
                parent_executable=None,
                user=None,
                login_user=None,
                terminal=None,
                container=None,
            ),
        ),
    ]


GRANTS = ScannedGrants(
    "acl_file /etc/mosquitto/acl",
    "plant-a",
    [BlindSpot("users are not listed: they log in with certificates", "add a password_file")],
    grants=1000,
    accounts=334,
    classes=12,
    undecided=2,
    confirmed=5,
    refuted=1,
    not_tried=3,
    unexplained=4,
)


def summary(**changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "command": "watch",
        "sources": [
            SourceSummary(
                "mosquitto plugin, every event (/run/topicwarden/mosquitto.ring)",
                "plant-a",
                [
                    BlindSpot(
                        "bridges are not seen: they pass the plugin by", "close the listener\nor watch the far end"
                    ),
                    BlindSpot("what is delivered to subscribers is not recorded"),
                ],
                Counters(1234567, 12, 2, 3, {"record": 4}, 1_500_000, {"clients_evicted": 5}),
            ),
        ],
        "joined": Joined(195, 3, 2, 1),
        "kept": Kept("/var/lib/topicwarden/store", 1_234_000, 567, (START - SECOND, START), "No space left on device"),
        "findings": sorted(many(), key=lambda f: -f.severity),
        "started_ns": START,
        "ended_ns": START + 3723 * SECOND,
        "clients": 123,
        "topics": 456,
        "denied": 7,
        "inventory": [
            InventoryRow(
                "plant-a",
                "sensor-1",
                "s-17",
                Identity.VERIFIED,
                "10.0.0.5",
                12345,
                3.3125,
                4,
                0,
                START,
                START + SECOND,
            ),
            InventoryRow("plant-a", None, HOSTILE, Identity.ANONYMOUS, None, 12, 0.0, 1, 6, START, START),
        ],
        "overflow": 9,
        "policy": "policy.yaml",
        "interrupted": True,
    }
    return Summary(**(fields | changes))
