"""Elastic Common Schema 9 documents: alerts for Elasticsearch and whatever else speaks ECS.

ECS has no fields for messaging, so what is about topics and clients stands under `topicwarden.*`, each key with one
type, and evidence, whose keys depend on the finding's code, as strings under `labels.*`, so that no index can refuse a
document for a type another code's evidence had before.
"""

from __future__ import annotations

from typing import Any, Final

from topicwarden.events import Client, Identity
from topicwarden.findings import Finding, Severity
from topicwarden.output import wording
from topicwarden.output.attack import FRAMEWORK, Technique, technique
from topicwarden.output.behind import behind_object, ecs_fields
from topicwarden.output.jsonl import Event, client_object, prose, title_text
from topicwarden.output.origin import PRODUCT, Origin
from topicwarden.output.summary import Summary, summary_object

ECS_VERSION: Final = "9.4.0"
SEVERITY: Final = {Severity.INFO: 0, Severity.LOW: 21, Severity.MEDIUM: 47, Severity.HIGH: 73, Severity.CRITICAL: 99}
"""`event.severity`: the numbers Elastic Security gives its own severities; 0 where it has none."""


def finding_document(event: Event, finding: Finding, origin: Origin) -> dict[str, Any]:
    """Return a finding as an ECS alert; what is not known is left out."""
    document: dict[str, Any] = {
        "@timestamp": wording.timestamp(finding.last_ns, 9),
        "ecs": {"version": ECS_VERSION},
        "message": title_text(finding),
        "event": {
            "kind": "alert",
            **_classification(finding),
            "action": finding.type.name,
            "code": finding.type.code,
            "id": f"{finding.fingerprint}-{finding.count}",
            "severity": SEVERITY[finding.severity],
            "start": wording.timestamp(finding.first_ns, 9),
            "end": wording.timestamp(finding.last_ns, 9),
            "module": PRODUCT,
            "dataset": f"{PRODUCT}.finding",
            "provider": PRODUCT,
        },
        "rule": {
            "id": finding.type.code,
            "name": finding.type.name,
            "description": prose(finding.type.meaning),
            "category": finding.type.difference,
            "ruleset": PRODUCT,
            "version": origin.version,
        },
        "observer": _observer(origin),
        "labels": {key: str(value) for key, value in finding.evidence.items()},
        "topicwarden": {
            "event": event.value,
            "fingerprint": finding.fingerprint,
            "severity": finding.severity.name.lower(),
            "count": finding.count,
            "certainty": finding.certainty.name.lower(),
            "scope": list(finding.scope),
            "witnesses": list(finding.witnesses),
            "witness_counts": list(finding.witnesses.values()),
            "more_witnesses": finding.more_witnesses,
            "accepted": finding.accepted is not None,
            "why": prose(finding.type.why),
            "fix": prose(finding.type.fix),
            "limits": [prose(limit) for limit in finding.type.limits],
            "controls": [f"{framework} {item}" for framework, ids in finding.type.controls.items() for item in ids],
        },
    }
    if finding.host is None:
        document["service"] = _service(finding.broker, origin)
    else:
        document["host"] = {"hostname": finding.host, "name": finding.host}
    if finding.behind:
        document |= ecs_fields(finding.behind[0])
        document["topicwarden"]["behind"] = [
            {key: value for key, value in behind_object(behind).items() if value is not None}
            for behind in finding.behind
        ]
        document["topicwarden"]["more_behind"] = finding.more_behind
    if finding.accepted is not None:
        document["topicwarden"]["exception"] = finding.accepted
    if finding.type.attack:
        document["threat"] = _threat([technique(item) for item in finding.type.attack])
    if finding.client is not None:
        _add_client(document, finding.client)
    return document


def summary_document(summary: Summary, origin: Origin) -> dict[str, Any]:
    """Return the closing summary as an ECS document of kind `state`, whole under `topicwarden.summary`."""
    content = summary_object(summary)
    for source in content["sources"]:
        # Their keys depend on the broker; as lists of pairs they need one mapping only.
        for key in ("decode_errors", "counts"):
            source[key] = [{"name": name, "count": count} for name, count in source[key].items()]
    return {
        "@timestamp": wording.timestamp(summary.ended_ns, 9),
        "ecs": {"version": ECS_VERSION},
        "message": f"topicwarden {summary.command}: {wording.number(len(summary.open))} open findings in "
        f"{wording.number(summary.events)} events, {wording.number(summary.lost)} lost",
        "event": {
            "kind": "state",
            "action": f"{PRODUCT}.summary",
            "start": wording.timestamp(summary.started_ns, 9),
            "end": wording.timestamp(summary.ended_ns, 9),
            "module": PRODUCT,
            "dataset": f"{PRODUCT}.summary",
            "provider": PRODUCT,
        },
        "observer": _observer(origin),
        "topicwarden": {"summary": content},
    }


def _classification(finding: Finding) -> dict[str, Any]:
    """Return event.category, type and outcome, of the values ECS allows and expects together.

    What the broker decided is stated only where the finding's evidence or what its type compares says so.
    """
    decided = finding.evidence.get("outcome")
    if decided == "denied" or "denied" in f"{finding.type.name} {finding.type.difference}":
        kind, outcome = "denied", "failure"
    elif decided == "allowed":
        kind, outcome = "allowed", "success"
    else:
        kind, outcome = "info", "unknown"
    if finding.type.difference.startswith("granted"):
        return {"category": ["iam"], "type": ["info"], "outcome": "unknown"}
    if finding.type.name.startswith("login."):
        return {"category": ["authentication"], "type": ["info"], "outcome": outcome}
    if finding.host is not None:
        return {"category": ["intrusion_detection", "process"], "type": ["info"], "outcome": "unknown"}
    if finding.client is None:
        return {"category": ["configuration"], "type": ["info"], "outcome": "unknown"}
    return {"category": ["intrusion_detection", "network"], "type": [kind], "outcome": outcome}


def _add_client(document: dict[str, Any], client: Client) -> None:
    # The broker stands in service.name.
    document["topicwarden"]["client"] = {k: v for k, v in client_object(client).items() if v is not None}
    document["network"] = {"protocol": client.protocol.lower()}
    ip = wording.ip_address(client.address)
    if client.address:
        document["source"] = {"address": client.address}
        if ip is not None:
            document["source"]["ip"] = ip
            document["network"]["transport"] = "tcp"
        if client.port is not None:
            document["source"]["port"] = client.port
    # A name the client only wrote down must not turn up as a user's deed when somebody searches for that user.
    if client.user is not None and client.identity is not Identity.CLAIMED:
        document["user"] = {"name": client.user}
    if client.tls_subject is not None:
        document["tls"] = {"client": {"subject": client.tls_subject}}
    related = {"ip": [ip] if ip else [], "user": [client.user] if client.user is not None else []}
    if any(related.values()):
        document["related"] = {key: values for key, values in related.items() if values}


def _threat(techniques: list[Technique]) -> dict[str, Any]:
    main = list({t.id: t for t in (t.parent or t for t in techniques)}.values())
    threat: dict[str, Any] = {
        "framework": FRAMEWORK,
        "technique": {
            "id": [t.id for t in main],
            "name": [t.name for t in main],
            "reference": [t.url for t in main],
        },
    }
    if sub := [t for t in techniques if t.parent is not None]:
        threat["technique"]["subtechnique"] = {
            "id": [t.id for t in sub],
            "name": [t.name for t in sub],
            "reference": [t.url for t in sub],
        }
    if tactics := {t.tactic_id: t.tactic for t in techniques if t.tactic_id is not None}:
        threat["tactic"] = {"id": list(tactics), "name": list(tactics.values())}
    return threat


def _service(broker: str, origin: Origin) -> dict[str, Any]:
    kind = origin.kinds.get(broker)
    return {"name": broker} | ({} if kind is None else {"type": kind})


def _observer(origin: Origin) -> dict[str, Any]:
    observer = {"vendor": PRODUCT, "product": PRODUCT, "type": "sensor", "version": origin.version}
    return observer | ({} if origin.host is None else {"hostname": origin.host})
