"""OCSF 1.5.0 Detection Findings (class 2004), for Amazon Security Lake, Splunk and whatever else speaks OCSF."""

from __future__ import annotations

from typing import Any, Final

from topicwarden.events import Certainty, Client, Identity
from topicwarden.findings import Finding, Severity
from topicwarden.output import wording
from topicwarden.output.attack import Technique, technique
from topicwarden.output.behind import behind_object, ocsf_process
from topicwarden.output.jsonl import Event, client_object, prose, title_text
from topicwarden.output.origin import PRODUCT, Origin
from topicwarden.output.summary import Summary, summary_object

OCSF_VERSION: Final = "1.5.0"
CLASS_UID: Final = 2004
ATTACK_VERSION: Final = "18"
_SEVERITY: Final = {
    Severity.INFO: (1, "Informational"),
    Severity.LOW: (2, "Low"),
    Severity.MEDIUM: (3, "Medium"),
    Severity.HIGH: (4, "High"),
    Severity.CRITICAL: (5, "Critical"),
}
_CONFIDENCE: Final = {
    Certainty.EXACT: (3, "High"),
    Certainty.INFERRED: (2, "Medium"),
    Certainty.UNKNOWN: (0, "Unknown"),
}


def finding_document(event: Event, finding: Finding, origin: Origin) -> dict[str, Any]:
    """Return a finding as a Detection Finding: activity Create when it is new, Update afterwards."""
    activity_id, activity = (1, "Create") if event is Event.OPENED else (2, "Update")
    severity_id, severity = _SEVERITY[finding.severity]
    confidence_id, confidence = _CONFIDENCE[finding.certainty]
    first_ms, last_ms = finding.first_ns // 1_000_000, finding.last_ns // 1_000_000
    line = title_text(finding)
    place = finding.broker if finding.host is None else finding.host
    info: dict[str, Any] = {
        "uid": finding.fingerprint,
        "title": line,
        "desc": prose(finding.type.meaning),
        "types": [finding.type.name],
        "first_seen_time": first_ms,
        "last_seen_time": last_ms,
        "data_sources": [place],
        "analytic": {
            "uid": finding.type.code,
            "name": finding.type.name,
            "type_id": 1,
            "type": "Rule",
            "version": origin.version,
        },
    }
    if finding.type.attack:
        info["attacks"] = [_attack(technique(item)) for item in finding.type.attack]
    accepted = finding.accepted is not None
    document: dict[str, Any] = {
        "activity_id": activity_id,
        "activity_name": activity,
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": CLASS_UID,
        "class_name": "Detection Finding",
        "type_uid": CLASS_UID * 100 + activity_id,
        "type_name": f"Detection Finding: {activity}",
        "time": last_ms,
        "start_time": first_ms,
        "end_time": last_ms,
        "count": finding.count,
        "severity_id": severity_id,
        "severity": severity,
        "confidence_id": confidence_id,
        "confidence": confidence,
        "status_id": 3 if accepted else 1,
        "status": "Suppressed" if accepted else "New",
        "is_alert": not accepted,
        "message": line,
        "metadata": _metadata(origin)
        | {"uid": f"{finding.fingerprint}-{finding.count}", "event_code": finding.type.code},
        "finding_info": info,
        "evidences": _evidences(finding),
        "resources": [
            {"name": place, "type": "broker" if finding.host is None else "host"},
            *(
                {
                    "name": name,
                    "type": _kind_of_name(finding),
                    "namespace": finding.broker or finding.host,
                    "data": {"count": count},
                }
                for name, count in finding.witnesses.items()
            ),
        ],
        "remediation": {"desc": prose(finding.type.fix)},
        "risk_details": prose(finding.type.why),
        "unmapped": {
            "event": event.value,
            "certainty": finding.certainty.name.lower(),
            "difference": finding.type.difference,
            "scope": list(finding.scope),
            "more_witnesses": finding.more_witnesses,
            "accepted": finding.accepted,
            "limits": [prose(limit) for limit in finding.type.limits],
            "controls": {framework: list(ids) for framework, ids in finding.type.controls.items()},
        },
    }
    if observables := _observables(finding.client):
        document["observables"] = observables
    return document


def summary_document(summary: Summary, origin: Origin) -> dict[str, Any]:
    """Return the closing summary as an OCSF Base Event (class 0), activity Other, whole under `unmapped.summary`."""
    return {
        "activity_id": 99,
        "activity_name": "Summary",
        "category_uid": 0,
        "category_name": "Uncategorized",
        "class_uid": 0,
        "class_name": "Base Event",
        "type_uid": 99,
        "type_name": "Base Event: Other",
        "time": summary.ended_ns // 1_000_000,
        "start_time": summary.started_ns // 1_000_000,
        "end_time": summary.ended_ns // 1_000_000,
        "severity_id": 1,
        "severity": "Informational",
        "message": f"topicwarden {summary.command}: {wording.number(len(summary.open))} open findings in "
        f"{wording.number(summary.events)} events, {wording.number(summary.lost)} lost",
        "metadata": _metadata(origin),
        "unmapped": {"summary": summary_object(summary)},
    }


def _metadata(origin: Origin) -> dict[str, Any]:
    product = {"name": PRODUCT, "vendor_name": PRODUCT, "version": origin.version}
    metadata: dict[str, Any] = {"version": OCSF_VERSION, "product": product, "log_provider": PRODUCT}
    if origin.host is not None:
        # name, uid and log_name only say the host again: consumers' models want them, though the schema does not.
        logger = {"name": origin.host, "uid": origin.host, "log_name": PRODUCT, "log_provider": PRODUCT}
        metadata["loggers"] = [logger | {"product": product}]
    return metadata


def _evidences(finding: Finding) -> list[dict[str, Any]]:
    """Return who did it and what was measured; OCSF wants at least one of the objects an evidence can hold."""
    data: dict[str, Any] = {"measured": dict(finding.evidence)}
    evidence: dict[str, Any] = {"name": finding.type.name, "data": data}
    client = finding.client
    if client is not None:
        data["client"] = {key: value for key, value in client_object(client).items() if value is not None}
        actor: dict[str, Any] = {}
        # A name the client only wrote down is no actor; it stands in data.client with how far to believe it.
        if client.user is not None and client.identity is not Identity.CLAIMED:
            actor["user"] = {"name": client.user, "type_id": 0}
        if client.client_id:
            actor["app_uid"] = client.client_id
        if actor:
            evidence["actor"] = actor
        ip = wording.ip_address(client.address)
        if ip is not None:
            evidence["src_endpoint"] = {"ip": ip} | ({} if client.port is None else {"port": client.port})
    for behind in finding.behind:
        data.setdefault("behind", []).append(behind_object(behind))
    if finding.behind:
        evidence["process"] = ocsf_process(finding.behind[0])
    return [evidence]


def _observables(client: Client | None) -> list[dict[str, Any]]:
    if client is None:
        return []
    found: list[dict[str, Any]] = []
    if (ip := wording.ip_address(client.address)) is not None:
        found.append({"name": "evidences.src_endpoint.ip", "type_id": 2, "type": "IP Address", "value": ip})
    if client.user is not None and client.identity is not Identity.CLAIMED:
        found.append({"name": "evidences.actor.user.name", "type_id": 4, "type": "User Name", "value": client.user})
    return found


def _attack(found: Technique) -> dict[str, Any]:
    main = found.parent or found
    attack: dict[str, Any] = {
        "version": ATTACK_VERSION,
        "technique": {"uid": main.id, "name": main.name, "src_url": main.url},
    }
    if found.parent is not None:
        attack["sub_technique"] = {"uid": found.id, "name": found.name, "src_url": found.url}
    if found.tactic_id is not None:
        attack["tactic"] = {"uid": found.tactic_id, "name": found.tactic}
    return attack


def _kind_of_name(finding: Finding) -> str:
    """Return what a finding's witnesses are."""
    return "topic" if finding.client is None or finding.client.protocol == "mqtt" else "messaging destination"
