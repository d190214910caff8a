"""JSON lines: one object a line, with keys that stay. `docs/output.md` lists them all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np

from topicwarden.events import Client
from topicwarden.findings import Finding
from topicwarden.output import wording
from topicwarden.output.behind import behind_object
from topicwarden.output.escape import well_formed
from topicwarden.output.origin import Origin
from topicwarden.output.summary import Summary, summary_object
from topicwarden.output.text import title


class Event(StrEnum):
    """Why a document about a finding is written now."""

    OPENED = "opened"
    UPDATED = "updated"
    """Its count passed another power of ten, or it has a new witness."""
    FINAL = "final"
    """At the end: the count grew since the last document about it."""


class Shown(str):
    """Text that was made fit for people already, by the escapes of `visible`; it is not escaped once more."""

    __slots__ = ()


def encode(document: Mapping[str, Any]) -> str:
    """Return a document as one line of ASCII JSON, without the line feed.

    Everything outside ASCII is escaped, so that not even printing the line can harm a terminal; lone surrogates, which
    strict parsers refuse, are made visible (see `well_formed`); NaN and infinities, which JSON lacks, become null.
    """
    return json.dumps(_clean(document), ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def finding_document(event: Event, finding: Finding, origin: Origin) -> dict[str, Any]:
    """Return a finding as the object of one line; values that are not known are null, keys are always there."""
    return {
        "type": "finding",
        "event": event.value,
        "code": finding.type.code,
        "name": finding.type.name,
        "severity": finding.severity.name.lower(),
        "title": title_text(finding),
        "broker": finding.broker,
        "host": finding.host,
        "client": None if finding.client is None else client_object(finding.client),
        "scope": list(finding.scope),
        "fingerprint": finding.fingerprint,
        "count": finding.count,
        "certainty": finding.certainty.name.lower(),
        "first_seen": wording.timestamp(finding.first_ns, 9),
        "last_seen": wording.timestamp(finding.last_ns, 9),
        "witnesses": [{"name": name, "count": count} for name, count in finding.witnesses.items()],
        "more_witnesses": finding.more_witnesses,
        "evidence": dict(finding.evidence),
        "behind": [behind_object(behind) for behind in finding.behind],
        "more_behind": finding.more_behind,
        "accepted": finding.accepted,
        "difference": finding.type.difference,
        "meaning": prose(finding.type.meaning),
        "why": prose(finding.type.why),
        "fix": prose(finding.type.fix),
        "limits": [prose(limit) for limit in finding.type.limits],
        "attack": list(finding.type.attack),
        "controls": {framework: list(ids) for framework, ids in finding.type.controls.items()},
        "observer": {"version": origin.version, "host": origin.host},
    }


def summary_document(summary: Summary, origin: Origin) -> dict[str, Any]:
    """Return the closing summary as the last line's object."""
    return summary_object(summary) | {"observer": {"version": origin.version, "host": origin.host}}


def client_object(client: Client) -> dict[str, Any]:
    """Return a client under the same names as in event rows; what is not known is null."""
    return {
        "protocol": client.protocol,
        "client_id": client.client_id,
        "user": client.user,
        "identity": client.identity.value,
        "address": client.address,
        "port": client.port,
        "tls_subject": client.tls_subject,
        "vhost": client.vhost,
    }


def title_text(finding: Finding) -> Shown:
    """Return the finding's one-line title as people see it."""
    return Shown(title(finding).plain)


def prose(text: str) -> str:
    """Return a paragraph of the catalogue without the line feed YAML leaves at its end."""
    return text.strip()


def _clean(value: Any) -> Any:
    """Return a JSON value that every parser takes."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return value if isinstance(value, Shown) else well_formed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {well_formed(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_clean(item) for item in value]
    return value
