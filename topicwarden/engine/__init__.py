"""Judging events: batches in, findings out, without I/O and without a clock."""

from topicwarden.engine.engine import Engine

__all__ = ["Engine"]
