"""Topic names and filters: validity, matching one or many, inclusion with a witness, look-alikes. Pure; no I/O."""

from topicwarden.patterns.filter_index import NO_MATCHES, BoundMatch, Constraint, FilterIndex, Matches
from topicwarden.patterns.mqtt import (
    MAX_BYTES,
    Level,
    LevelPattern,
    Special,
    bind,
    filter_problem,
    matches,
    parse,
    strip_share,
    topic_problem,
)

__all__ = [
    "MAX_BYTES",
    "NO_MATCHES",
    "BoundMatch",
    "Constraint",
    "FilterIndex",
    "Level",
    "LevelPattern",
    "Matches",
    "Special",
    "bind",
    "filter_problem",
    "matches",
    "parse",
    "strip_share",
    "topic_problem",
]
