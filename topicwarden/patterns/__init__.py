"""Topic names and filters: validity, matching one or many, inclusion with a witness, look-alikes. Pure; no I/O."""

from topicwarden.patterns.filter_index import NO_MATCHES, BoundMatch, Constraint, FilterIndex, Matches
from topicwarden.patterns.inclusion import BUDGET, Answer, Covered, FilterUnion, Undecided, Witness, overlap, uncovered
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
from topicwarden.patterns.names import skeleton, unsafe_characters

__all__ = [
    "BUDGET",
    "MAX_BYTES",
    "NO_MATCHES",
    "Answer",
    "BoundMatch",
    "Constraint",
    "Covered",
    "FilterIndex",
    "FilterUnion",
    "Level",
    "LevelPattern",
    "Matches",
    "Special",
    "Undecided",
    "Witness",
    "bind",
    "filter_problem",
    "matches",
    "overlap",
    "parse",
    "skeleton",
    "strip_share",
    "topic_problem",
    "uncovered",
    "unsafe_characters",
]
