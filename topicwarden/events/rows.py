"""Events as plain rows, for JSON lines: golden files, recordings a person reads, `jq`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from topicwarden.events.batch import (
    ENTROPY_UNKNOWN,
    QOS_UNKNOWN,
    RETAIN_UNKNOWN,
    SIZE_UNKNOWN,
    Action,
    Certainty,
    EventBatch,
    EventBuilder,
    GrantChange,
    Notice,
    Outcome,
    Right,
    Shape,
)
from topicwarden.events.tables import NO_RESOURCE, Client, Identity, Resource, ResourceKind


def to_rows(batch: EventBatch) -> Iterator[dict[str, Any]]:
    """Yield each event as a dict of JSON values; what is not known is left out, so rows stay short.

    Keys: time_ns, action, outcome, certainty, client {broker, protocol, client_id, user, address, port, tls_subject,
    vhost, identity}, resource {kind, name, within, length when cut}, size, entropy, shape, qos, retain, count
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
        batch.entropy,
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
            row["entropy"] = float(str(entropy))  # the shortest decimal that reads back as the same float32
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
    if resource.within:
        row["within"] = resource.within
    if resource.truncated:
        row["length"] = resource.length
    return row


def event_from_row(row: Mapping[str, Any], builder: EventBuilder) -> None:
    """Append the event a row of `to_rows` describes; raises KeyError, ValueError or TypeError for another row."""
    resource = row.get("resource")
    builder.add(
        _integer(row["time_ns"], -(2**63), 2**63 - 1),
        Action[row["action"].upper()],
        client_from_row(row["client"]),
        NO_RESOURCE if resource is None else resource_from_row(resource),
        Outcome[row["outcome"].upper()],
        Certainty[row["certainty"].upper()],
        size=_integer(row.get("size", SIZE_UNKNOWN), -1, 2**62),
        entropy=float(row.get("entropy", ENTROPY_UNKNOWN)),
        shape=Shape[row.get("shape", "unknown").upper()],
        qos=_integer(row.get("qos", QOS_UNKNOWN), 0, 255),
        retain=_integer(row.get("retain", RETAIN_UNKNOWN), 0, 255),
        count=_integer(row.get("count", 1), 0, 2**32 - 1),
    )


def client_from_row(row: Mapping[str, Any]) -> Client:
    """Return the client a row of `client_row` describes; raises TypeError for keys or values it does not know."""
    if any(not isinstance(value, int if key == "port" else str) for key, value in row.items()):
        raise TypeError("a client's fields are text, its port a number")
    return Client(**{**row, "identity": Identity(row.get("identity", "unknown"))})


def resource_from_row(row: Mapping[str, Any]) -> Resource:
    """Return the resource a row of `resource_row` describes."""
    within = row.get("within", "")
    if not isinstance(row["name"], str) or not isinstance(within, str):
        raise TypeError("a resource's name and what it is within are text")
    return Resource(ResourceKind[row["kind"].upper()], row["name"], _integer(row.get("length", -1), -1, 2**32), within)


def notice_row(notice: Notice) -> dict[str, Any]:
    """Return a notice as JSON values; what is empty is left out."""
    row: dict[str, Any] = {"code": notice.code, "time_ns": notice.time_ns, "broker": notice.broker}
    if notice.scope:
        row["scope"] = notice.scope
    if notice.count != 1:
        row["count"] = notice.count
    if notice.client is not None:
        row["client"] = client_row(notice.client)
    if notice.witness is not None:
        row["witness"] = notice.witness
    if notice.evidence:
        row["evidence"] = dict(notice.evidence)
    if notice.of_host:
        row["of_host"] = True
    return row


def notice_from_row(row: Mapping[str, Any]) -> Notice:
    """Return the notice a row of `notice_row` describes."""
    client = row.get("client")
    return Notice(**{**row, "client": None if client is None else client_from_row(client)})


def change_row(change: GrantChange) -> dict[str, Any]:
    """Return a grant change as JSON values; what is empty or not known is left out."""
    row: dict[str, Any] = {
        "time_ns": change.time_ns,
        "grantee": client_row(change.grantee),
        "what": change.what,
        "certainty": change.certainty.name.lower(),
        "before": change.before,
        "after": change.after,
        "by": None if change.by is None else client_row(change.by),
    }
    for name, rights in (("gained", change.gained), ("lost", change.lost)):
        if rights:
            row[name] = [
                {"action": right.action.name.lower(), "resource": resource_row(right.resource)} for right in rights
            ]
    if change.unlisted:
        row["unlisted"] = change.unlisted
    if change.powers:
        row["powers"] = list(change.powers)
    return {name: value for name, value in row.items() if value is not None}


def change_from_row(row: Mapping[str, Any]) -> GrantChange:
    """Return the change a row of `change_row` describes; raises KeyError, ValueError or TypeError for another row."""
    by = row.get("by")
    for name in ("before", "after"):
        if not isinstance(row.get(name, ""), str):
            raise TypeError(f"{name} is text")
    return GrantChange(
        time_ns=_integer(row["time_ns"], -(2**63), 2**63 - 1),
        grantee=client_from_row(row["grantee"]),
        what=str(row["what"]),
        by=None if by is None else client_from_row(by),
        before=row.get("before"),
        after=row.get("after"),
        gained=[_right(right) for right in row.get("gained", ())],
        lost=[_right(right) for right in row.get("lost", ())],
        unlisted=_integer(row.get("unlisted", 0), 0, 2**62),
        powers=[str(power) for power in row.get("powers", ())],
        certainty=Certainty[row["certainty"].upper()],
    )


def _right(row: Mapping[str, Any]) -> Right:
    return Right(Action[row["action"].upper()], resource_from_row(row["resource"]))


def _integer(value: Any, low: int, high: int) -> int:
    """Return the value when it is a whole number in range; raises ValueError otherwise."""
    if not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{value!r} is not a whole number from {low} to {high}")
    return value
