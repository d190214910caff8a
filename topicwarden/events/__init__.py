"""Normalised events: columns of numbers (`EventBatch`) over bounded tables of interned clients and resources."""

from topicwarden.events.batch import (
    COLUMNS,
    ENTROPY_UNKNOWN,
    QOS_UNKNOWN,
    RETAIN_UNKNOWN,
    SIZE_UNKNOWN,
    Action,
    Certainty,
    EventBatch,
    EventBuilder,
    Notice,
    Outcome,
    Shape,
    finish_batch,
)
from topicwarden.events.tables import NO_RESOURCE, Client, Identity, Resource, ResourceKind, Table, Tables

__all__ = [
    "COLUMNS",
    "ENTROPY_UNKNOWN",
    "NO_RESOURCE",
    "QOS_UNKNOWN",
    "RETAIN_UNKNOWN",
    "SIZE_UNKNOWN",
    "Action",
    "Certainty",
    "Client",
    "EventBatch",
    "EventBuilder",
    "Identity",
    "Notice",
    "Outcome",
    "Resource",
    "ResourceKind",
    "Shape",
    "Table",
    "Tables",
    "finish_batch",
]
