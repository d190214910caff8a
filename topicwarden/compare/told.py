"""How rights are told: the words of a right, and the evidence that every finding about a grant has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from topicwarden.compare.principals import Principal
from topicwarden.events import Action, Client, Resource, ResourceKind, Right
from topicwarden.findings import Scalar
from topicwarden.grants import Origin
from topicwarden.policy import Space

NAMED: Final = 10
"""Clients alike that are named; the rest are counted."""


def resource_in(space: Space, name: str, action: Action) -> Resource:
    """Return the resource a name in a space is."""
    match space.family:
        case "topic":
            return Resource(ResourceKind.TOPIC, name)
        case "key":
            return Resource(
                ResourceKind.BINDING if action is Action.SUBSCRIBE else ResourceKind.KEY, name, within=space.within
            )
        case "queue":
            return Resource(ResourceKind.QUEUE, name)
        case _:
            return Resource(ResourceKind.EXCHANGE, name)


def right_words(action: Action, space: Space, name: str) -> str:
    """Return `publish to plant/x`."""
    return Right(action, resource_in(space, name, action)).words


def grant_evidence(origin: Origin) -> dict[str, Scalar]:
    """Return which grant it is and where it stands."""
    evidence: dict[str, Scalar] = {"grant": origin.text, "where_file": origin.source}
    if origin.line is not None:
        evidence["where_line"] = origin.line
    if origin.holder:
        evidence["holder"] = origin.holder
    return evidence


def class_evidence(principal: Principal) -> dict[str, Scalar]:
    """Return who else it is about, and in which roles."""
    evidence = alike_evidence(principal.alike)
    if principal.roles:
        evidence["roles"] = ", ".join(principal.roles)
    return evidence


def alike_evidence(others: Sequence[Client]) -> dict[str, Scalar]:
    """Return who else it is about than the client that is named."""
    if not others:
        return {}
    return {"alike": len(others), "alike_names": ", ".join(sorted(map(name_of, others))[:NAMED])}


def name_of(client: Client) -> str:
    """Return a client's user name, as messages have it."""
    return client.user if client.user is not None else "(anonymous)"


def origin_scope(origin: Origin) -> tuple[str, ...]:
    """Return what tells one grant from others in fingerprints: not its line, which moves as the file is edited."""
    return (origin.text, origin.holder)
