"""Judging events: batches in, findings out, without I/O and without a clock."""

from topicwarden.engine.engine import Engine
from topicwarden.engine.hosts import HostOptions
from topicwarden.engine.inventory import ClientEntry, Inventory

__all__ = ["ClientEntry", "Engine", "HostOptions", "Inventory"]
