"""Topic names and filters: validity, matching one or many, inclusion with a witness, look-alikes. Pure; no I/O.

MQTT's are in `mqtt`, `filter_index` and `inclusion`; the routing and binding keys of AMQP 0-9-1 topic exchanges in
`dotted`, `dotted_index` and `dotted_inclusion`, in the same three steps. Regular expressions over names (PCRE's, as
RabbitMQ has them) are taken apart by `regex_syntax` and matched by `regex`; `languages` compares sets of names whatever
they are written in, by automata (`nfa`, `lookahead`, `pattern_automata`, `subsets`, `automata`) where it must.
"""

from topicwarden.patterns.dotted import (
    KEY_MAX_BYTES,
    KeyPattern,
    KeyWord,
    SpecialWord,
    bind_key,
    binding_problem,
    key_matches,
    key_problem,
    literal_key,
    parse_binding,
)
from topicwarden.patterns.dotted_inclusion import KeyUnion, key_overlap
from topicwarden.patterns.dotted_index import DottedIndex
from topicwarden.patterns.filter_index import NO_MATCHES, BoundMatch, Constraint, FilterIndex, Matches
from topicwarden.patterns.inclusion import BUDGET, Answer, Covered, FilterUnion, Undecided, Witness, overlap, uncovered
from topicwarden.patterns.languages import (
    Anything,
    Names,
    NameUnion,
    dollar_newline,
    is_literal,
    names_match,
    names_overlap,
    unanchored,
)
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
from topicwarden.patterns.regex import Regex, regex_problem
from topicwarden.patterns.sorted_names import SortedNames
from topicwarden.patterns.syntax import KEYS, TOPICS, Pattern, Syntax

__all__ = [
    "BUDGET",
    "KEYS",
    "KEY_MAX_BYTES",
    "MAX_BYTES",
    "NO_MATCHES",
    "TOPICS",
    "Answer",
    "Anything",
    "BoundMatch",
    "Constraint",
    "Covered",
    "DottedIndex",
    "FilterIndex",
    "FilterUnion",
    "KeyPattern",
    "KeyUnion",
    "KeyWord",
    "Level",
    "LevelPattern",
    "Matches",
    "NameUnion",
    "Names",
    "Pattern",
    "Regex",
    "SortedNames",
    "Special",
    "SpecialWord",
    "Syntax",
    "Undecided",
    "Witness",
    "bind",
    "bind_key",
    "binding_problem",
    "dollar_newline",
    "filter_problem",
    "is_literal",
    "key_matches",
    "key_overlap",
    "key_problem",
    "literal_key",
    "matches",
    "names_match",
    "names_overlap",
    "overlap",
    "parse",
    "parse_binding",
    "regex_problem",
    "skeleton",
    "strip_share",
    "topic_problem",
    "unanchored",
    "uncovered",
    "unsafe_characters",
]
