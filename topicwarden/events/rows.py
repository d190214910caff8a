"""Events as plain rows, for JSON lines: golden files, recordings a person reads, `jq`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from topicwarden.events.batch import (
    QOS_UNKNOWN,
    RETAIN_UNKNOWN,
    SIZE_UNKNOWN,
    Action,
    Certainty,
    EventBatch,
    Outcome,
    Shape,
)
from topicwarden.events.tables import Client, Resource, ResourceKind


def to_rows(batch: EventBatch) -> Iterator[dict[str, Any]]:
    """Yield each event as a dict of JSON values; what is not known is left out, so rows stay short.

    Keys: time_ns, action, outcome, certainty, client {broker, protocol, client_id, user, address, port, tls_subject,
    vhost, identity}, resource {kind, name, length when cut}, size, entropy (4 decimals), shape, qos, retain, count
    when not 1.
    """
    clients = batch.tables.clients.entries
    resources = batch.tables.resources.entries
    columns = zip(
        batch.time_ns.tolist(),
        batch.action.tolist(),
        batch.outcome.tolist(),
        batch.certainty.tolist(),
        batch.client.tolist(),
        batch.resource.tolist(),
        batch.size.tolist(),
        batch.entropy.tolist(),
        batch.shape.tolist(),
        batch.qos.tolist(),
        batch.retain.tolist(),
        batch.count.tolist(),
        strict=True,
    )
    for time_ns, action, outcome, certainty, client, resource, size, entropy, shape, qos, retain, count in columns:
        row: dict[str, Any] = {
            "time_ns": time_ns,
            "action": Action(action).name.lower(),
            "outcome": Outcome(outcome).name.lower(),
            "certainty": Certainty(certainty).name.lower(),
            "client": client_row(clients[client]),
        }
        if (named := resource_row(resources[resource])) is not None:
            row["resource"] = named
        if size != SIZE_UNKNOWN:
            row["size"] = size
        if not math.isnan(entropy):
            row["entropy"] = round(entropy, 4)
        if shape != Shape.UNKNOWN:
            row["shape"] = Shape(shape).name.lower()
        if qos != QOS_UNKNOWN:
            row["qos"] = qos
        if retain != RETAIN_UNKNOWN:
            row["retain"] = retain
        if count != 1:
            row["count"] = count
        yield row


def client_row(client: Client | None) -> dict[str, Any]:
    """Return the client's known fields; an entry that is gone from its table is an error of the producer."""
    if client is None:
        raise ValueError("a batch refers to a client its tables do not hold")
    row = {
        "broker": client.broker,
        "protocol": client.protocol,
        "client_id": client.client_id,
        "user": client.user,
        "address": client.address,
        "port": client.port,
        "tls_subject": client.tls_subject,
        "vhost": client.vhost,
        "identity": client.identity.value,
    }
    return {name: value for name, value in row.items() if value is not None}


def resource_row(resource: Resource | None) -> dict[str, Any] | None:
    """Return the resource's fields, or None when the event has no resource."""
    if resource is None:
        raise ValueError("a batch refers to a resource its tables do not hold")
    if resource.kind is ResourceKind.NONE:
        return None
    row: dict[str, Any] = {"kind": resource.kind.name.lower(), "name": resource.name}
    if resource.truncated:
        row["length"] = resource.length
    return row
