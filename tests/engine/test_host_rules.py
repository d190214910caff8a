"""The runner of rules about hosts: EQL as the `eql` package means it, bounded, and quick where nothing matches."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import eql  # type: ignore[import-untyped]
import pytest
from eql.engine import Event, PythonEngine  # type: ignore[import-untyped]
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.hosts.scenario import SECOND, matches, seen_events
from topicwarden.engine.host_context import Approval
from topicwarden.engine.host_rules import HostRules, Match
from topicwarden.engine.host_rules_eql import compile_query, expand
from topicwarden.engine.host_rules_groups import MAX_EVENTS, Groups, regularity
from topicwarden.engine.host_rules_needs import needs_of
from topicwarden.engine.host_rules_query import MAYBE, NO, YES, RuleError
from topicwarden.engine.host_rules_sequences import Sequences
from topicwarden.errors import ConfigurationError
from topicwarden.findings import Catalogue, Detection, FindingType, Regular, load_catalogue
from topicwarden.findings.rule_lists import load_rule_lists
from topicwarden.hosts.addresses import Scope, scope
from topicwarden.hosts.ecs import EcsEvent, ip_of

CATALOGUE = load_catalogue()
LISTS = Approval(None, None, {}).lists()
HOST_TYPES = [finding_type for finding_type in CATALOGUE.values() if finding_type.detection is not None]


def catalogue_of(*queries: str, **settings: Any) -> Catalogue:
    """Return a catalogue of rules that say nothing but these queries."""
    types = {}
    for number, text in enumerate(queries):
        code = f"TW{800 + number}"
        about = {"tuning": ["-"], "false_positives": ["-"], "group": ["host.name"], "eql": text}
        types[code] = FindingType.model_validate(
            {
                "code": code,
                "name": "host.test",
                "severity": "low",
                "title": "t",
                "meaning": "m",
                "why": "w",
                "fix": "f",
                "limits": ["l"],
                "difference": "d",
                "needs_policy": False,
                "detection": about | settings,
            }
        )
    return Catalogue(types)


def event(time: float = 0, category: str = "process", /, **fields: Any) -> EcsEvent:
    document: dict[str, Any] = {"event": {"action": "exec"}, "host": {"name": "h"}}
    return EcsEvent(category, round(time * SECOND), document | fields)


# Queries


def test_the_eql_package_is_not_loaded_before_a_host_is_watched() -> None:
    code = "import sys, topicwarden.engine; sys.exit('eql' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def failure(text: str, lists: Mapping[str, Sequence[str | int]] | None = None) -> RuleError:
    with pytest.raises(RuleError) as caught:
        compile_query(text, lists or {})
    return caught.value


def test_both_spellings_of_cidrmatch_are_the_same_and_text_is_left_alone() -> None:
    for spelt in ("cidrmatch", "cidrMatch", "CIDRMATCH"):
        query = compile_query(
            f'network where {spelt}(a.ip, "10.0.0.0/8", "fc00::/7") and a.b != "cidrmatch ${{x}}"', {}
        )
        (term,) = query.terms
        assert term.matches(event(0, "network", a={"ip": "10.1.2.3", "b": "z"}))
        assert term.matches(event(0, "network", a={"ip": "fd00::1", "b": "z"}))
        assert not term.matches(event(0, "network", a={"ip": "11.1.2.3", "b": "z"}))
        assert not term.matches(event(0, "network", a={"ip": "no address", "b": "z"}))
        assert not term.matches(event(0, "network", a={"ip": "10.1.2.3", "b": "cidrmatch ${x}"}))


def test_what_is_no_address_or_missing_is_neither_inside_a_network_nor_outside() -> None:
    for condition in ('cidrmatch(ip, "10.0.0.0/8")', 'not cidrmatch(ip, "10.0.0.0/8")'):
        (term,) = compile_query(f"any where {condition}", {}).terms
        for document in ({}, {"ip": "no address"}, {"ip": 7}, {"ip": ["11.0.0.1"]}):
            assert not term.matches(EcsEvent("process", 0, document))


def test_insensitive_operators_wildcards_and_patterns_work() -> None:
    query = compile_query(
        'process where p.name in~ ("NC", "Socat") and p.line : "* -Z *"'
        ' and p.line regex~ """.*\\d+""" and ?p.x == null',
        {},
    )
    assert query.terms[0].matches(event(p={"name": "nc", "line": "nc -z host 1883"}))
    assert not query.terms[0].matches(event(p={"name": "nc", "line": "nc host 1883"}))


def test_lists_stand_where_they_are_named_and_an_empty_one_matches_nothing() -> None:
    lists: dict[str, list[str | int]] = {
        "ports": [1883, 8883],
        "nets": ["10.0.0.0/8"],
        "names": ['a"b', "c\\d"],
        "none": [],
    }
    query = compile_query("any where a in (${ports}) and cidrmatch(b, ${nets}) and c in (${names}, ${none})", lists)
    assert query.terms[0].matches(event(a=8883, b="10.0.0.1", c='a"b'))
    assert query.terms[0].matches(event(a=8883, b="10.0.0.1", c="c\\d"))
    assert not query.terms[0].matches(event(a=1, b="10.0.0.1", c="c\\d"))
    empty = compile_query("any where cidrmatch(b, ${none}) or a in (${none})", lists)
    assert not empty.terms[0].matches(event(a=0, b="0.0.0.0"))


def test_an_error_is_where_it_stands_in_the_rule_however_long_the_lists_before_it_are() -> None:
    lists = {"ports": list(range(1000, 1200))}
    text = "any where a in (${ports})\n  and b in (${ports}) and oops(c)"
    error = failure(text, lists)
    assert (error.line, error.column) == (2, text.split("\n")[1].index("oops") + 1)
    assert "oops" in error.reason
    error = failure("any where a in (${ports}, ${prots})", lists)
    assert (error.line, error.column) == (1, 27)
    assert "no list 'prots'" in str(error)


@given(st.text(alphabet="ab${}\"\n ,\\'/*", max_size=40), st.integers(0, 30))
def test_a_place_after_all_lists_is_led_back_to_where_it_was(text: str, column: int) -> None:
    lists = {name: [1, 2, 3] for name in ("a", "b", "ab", "", "ba", "aa", "bb", " ", "a ", "b ")}
    try:
        expanded, original = expand(text, lists)
    except RuleError:
        return
    ends = len(expanded.rpartition("\n")[2]), len(text.rpartition("\n")[2])
    line = text.count("\n")
    assert expanded.count("\n") == line
    assert original(line, ends[0] + column) == (line, ends[1] + column)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("process where", "Invalid syntax"),
        ("process where a == 1 | count", "pipes are not run"),
        ("sequence by a [any where true] [any where true]", "must say with maxspan"),
        ("sequence by a with maxspan=1s [any where true] fork=true [any where true]", "Fork is not allowed"),
        ("join by a [any where true] [any where true]", "join is not run"),
        ("sequence by length(a) with maxspan=1s [any where true] [any where true]", "joined by fields"),
        ('any where cidrmatch(a, "x/y")', "cidrMatch"),
        ("any where a == b", "omparison"),
        ("sequence by a with maxspan=1m " + "[any where true] " * 17, "at most 16 terms"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_reason(text: str, reason: str) -> None:
    assert reason in failure(text).reason


def test_all_rules_that_cannot_be_run_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        HostRules(catalogue_of("any where (", "any where true", "any where a in (${x})"), {}).compile()
    first, second = caught.value.problems
    assert first.message.startswith("TW800 (host.test): ")
    assert "line 1, column" in first.message
    assert second.message.startswith("TW802 (host.test): there is no list 'x'")
    assert second.hint is not None


def test_a_rule_whose_needs_are_not_there_is_not_asked_and_is_named() -> None:
    catalogue = catalogue_of("any where true", needs=["baseline"])
    rules = HostRules(catalogue, {}, without={"baseline", "tools"})
    assert rules.not_asked == ["TW800"]
    assert rules.step(event()) == []
    assert len(HostRules(catalogue, {}, without={"tools"}).step(event())) == 1


# The pre-filter

NAMES = ["a", "b", "c.d", "c.e"]
LITERALS = ["1", "2", '"x"', '"X*"', "true", "false", '"10.0.0.1"']
TESTS = st.one_of(
    st.builds(
        lambda n, op, v: f"{n} {op} {v}",
        st.sampled_from(NAMES),
        st.sampled_from(["==", "!=", ":", ">="]),
        st.sampled_from(LITERALS),
    ),
    st.builds(
        lambda n, v: f"{n} in ({', '.join(v)})",
        st.sampled_from(NAMES),
        st.lists(st.sampled_from(LITERALS), min_size=1, max_size=3),
    ),
    st.sampled_from([f"{n} {op} null" for n in NAMES for op in ("==", "!=")]),
    st.sampled_from([f'cidrmatch({n}, "10.0.0.0/8")' for n in NAMES]),
    st.just("true"),
)
CONDITIONS = st.recursive(
    TESTS,
    lambda inner: st.one_of(
        st.builds(
            lambda parts, op: "(" + f" {op} ".join(parts) + ")",
            st.lists(inner, min_size=2, max_size=3),
            st.sampled_from(["and", "or"]),
        ),
        st.builds(lambda part: f"not ({part})", inner),
    ),
    max_leaves=6,
)
VALUES = st.sampled_from([None, 1, 2, 1.0, True, False, "x", "X", "xy", "10.0.0.1", "11.0.0.1", ["x"], {"z": 1}])
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "a": VALUES,
        "b": VALUES,
        "c": st.one_of(VALUES, st.fixed_dictionaries({}, optional={"d": VALUES, "e": VALUES})),
    },
)


@settings(max_examples=300, deadline=None)
@given(CONDITIONS, st.lists(DOCUMENTS, min_size=1, max_size=8))
@example("(a == 1 or a == 2) and not (c.d == null)", [{"a": 1, "c": {"d": "x"}}])
@example("c.d == true", [{"c": "d"}])
@example('(cidrmatch(b, "10.0.0.0/8") or a == null)', [{"b": "x"}, {"b": ["x"]}])
@example("(b in (1, 2) or a == null)", [{"b": ["x"]}])
def test_what_the_prefilter_says_is_what_eql_says(condition: str, documents: list[dict[str, Any]]) -> None:
    try:
        query = compile_query(f"any where {condition}", {})
    except RuleError:
        return  # types that do not go together
    (term,) = query.terms
    for document in documents:
        seen = EcsEvent("process", 0, document)
        verdict = term.needs.verdict(document)
        assert verdict == MAYBE or term.matches(seen) is (verdict == YES)
        actions = term.needs.values.get(("a",))
        a = document.get("a")
        assert not term.matches(seen) or actions is None or (a.lower() if isinstance(a, str) else a) in actions


def test_what_a_query_needs_is_read_off_it() -> None:
    with eql.parser.elasticsearch_syntax:
        parsed = eql.parse_query('any where (a.p in (1, 2) or a.p == 3) and b == "X" and c != 4 and (d == 1 or e == 1)')
    needs = needs_of(parsed.first.query)
    assert needs.values == {("a", "p"): {1, 2, 3}, ("b",): {"x"}, ("c",): None}
    assert needs.verdict({"a": {"p": 3}, "b": "x", "d": 1}) == NO
    assert needs.verdict({"a": {"p": 3}, "b": "x", "c": 5, "d": 1}) == MAYBE


def test_a_query_of_plain_comparisons_needs_no_eql() -> None:
    (term, *_) = compile_query('any where a == "x" and b in (1, 2) and (c == null or c == false)', {}).terms
    assert term.needs.verdict({"a": "X", "b": 2}) == YES
    assert term.needs.verdict({"a": "X", "b": 2, "c": False}) == YES
    assert term.needs.verdict({"a": "X", "b": 2, "c": True}) == NO
    assert term.needs.verdict({"a": "X", "b": 3}) == NO


CASES = [case for finding_type in HOST_TYPES for kind in ("fires", "quiet") for case in finding_type.cases[kind]]


def told(found: list[Match]) -> list[tuple[object, ...]]:
    return [
        (m.code, m.scope, m.witness, m.count, m.first_ns, m.last_ns, dict(m.evidence), len(m.events)) for m in found
    ]


def test_in_all_cases_the_same_is_found_with_and_without_the_prefilter() -> None:
    found = 0
    for case in CASES:
        quick = matches(CATALOGUE, case)
        assert told(quick) == told(matches(CATALOGUE, case, prefilter=False)), case["name"]
        found += len(quick)
    assert found > 40


def test_every_event_of_the_cases_is_a_document_that_json_can_hold() -> None:
    for case in CASES:
        for seen in seen_events(case):
            json.dumps(seen.document, allow_nan=False)


# Sequences


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[tuple[int, str, int, int]]]:
    conditions = st.sampled_from(["a == 1", "a == 2", "a in (1, 2)", "a == 3", "true"])
    terms = draw(st.lists(conditions, min_size=2, max_size=4))
    text = f"sequence by k with maxspan={draw(st.integers(1, 6))}s " + " ".join(
        f"[{draw(st.sampled_from(['any', 'process', 'network']))} where {term}]" for term in terms
    )
    if draw(st.booleans()):
        text += " until [any where a == 4]"
    steps = st.tuples(st.integers(0, 2), st.sampled_from(["process", "network"]), st.integers(1, 4), st.integers(1, 2))
    return text, draw(st.lists(steps, max_size=40))


@settings(max_examples=200, deadline=None)
@given(streams())
def test_sequences_are_those_of_the_eql_package(stream: tuple[str, list[tuple[int, str, int, int]]]) -> None:
    text, steps = stream
    with eql.parser.elasticsearch_syntax:
        parsed = eql.parse_query(text)
        engine = PythonEngine({"time_unit": SECOND})
        expected: list[Any] = []
        engine.add_output_hook(expected.append)
        engine.add_query(parsed)
    rules = HostRules(catalogue_of(text, group=["k"]), {})
    found = []
    now = 0
    for number, (wait, category, a, k) in enumerate(steps):
        now += wait
        document = {"a": a, "k": k, "n": number, "event": {"action": "exec"}}
        engine.stream_event(Event(category, now * SECOND, document))
        seen = rules.step(EcsEvent(category, now * SECOND, document))
        found += [[behind.document["n"] for behind in match.events] for match in seen]
    assert found == [[seen.data["n"] for seen in output.events] for output in expected]


def test_nothing_is_joined_on_a_field_that_is_missing() -> None:
    rules = HostRules(catalogue_of("sequence by k, l with maxspan=1s [any where a == 1] [any where a == 2]"), {})
    fields: dict[str, Any]
    for fields in ({}, {"k": 1}, {"l": 1}):
        assert rules.step(event(a=1, **fields)) == []
        assert rules.step(event(a=2, **fields)) == []
    rules.step(event(0, a=1, k="X", l=1))
    (match,) = rules.step(event(0, a=2, k="x", l=1))
    assert len(match.events) == 2


def test_sequences_that_wait_are_bounded_by_time_and_number_and_the_dropped_counted() -> None:
    query = compile_query("sequence by k with maxspan=10s [any where a == 1] [any where a == 2]", {})
    sequences = Sequences(query, capacity=100)
    for number in range(250):
        sequences.step(event(0, a=1, k=number), [0], until=False)
    assert len(sequences) == 100
    assert sequences.dropped == 150
    # The newest are kept.
    assert sequences.step(event(1, a=2, k=249), [1], until=False)
    assert not sequences.step(event(1, a=2, k=0), [1], until=False)
    # What is too old to be completed gives way without being counted.
    sequences.step(event(20, a=1, k=0), [0], until=False)
    assert len(sequences) == 1
    assert sequences.dropped == 150


# Groups


def detection(**settings: Any) -> Detection:
    return Detection.model_validate(
        {"eql": "any where true", "group": ["k"], "tuning": ["-"], "false_positives": ["-"], **settings}
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from("xy")), max_size=40), st.integers(1, 5), st.integers(1, 9))
def test_an_event_counts_once_if_any_window_around_it_has_enough(
    steps: list[tuple[int, str]], at_least: int, within: int
) -> None:
    groups = Groups(detection(at_least=at_least, within=within))
    times: dict[str, list[int]] = {"x": [], "y": []}
    counted: dict[str, list[int]] = {"x": [], "y": []}
    now = 0
    for wait, name in steps:
        now += wait
        times[name].append(now)
        reached = groups.add((name,), event(now), None)
        if reached is not None:
            counted[name] += [seen.time_ns // SECOND for seen in reached.seen]
            assert len(reached.events) <= max(MAX_EVENTS, 1)
            assert reached.events[-1].time_ns == now * SECOND
    for name, all_times in times.items():
        runs = [
            set(range(first, first + at_least))
            for first in range(len(all_times) - at_least + 1)
            if all_times[first + at_least - 1] - all_times[first] <= within
        ]
        expected = set().union(*runs)
        assert counted[name] == [time for number, time in enumerate(all_times) if number in expected]


def test_groups_are_bounded_and_the_forgotten_counted() -> None:
    groups = Groups(detection(at_least=2, within=10), capacity=50)
    for number in range(80):
        groups.add((str(number),), event(0), None)
    assert len(groups) == 50
    assert groups.dropped == 30
    assert groups.add(("79",), event(1), None)
    groups.add(("new",), event(60), None)
    assert len(groups) == 1
    assert groups.dropped == 30


def test_what_is_dropped_is_told_by_code() -> None:
    rules = HostRules(catalogue_of("any where true", at_least=2, group=["k"]), {})
    for number in range(5000):
        rules.step(event(0, k=number))
    assert rules.dropped == {"TW800": 5000 - 4096}


@pytest.mark.parametrize(
    ("times", "regular"),
    [
        ([0, 60, 120, 180, 240, 300], True),
        ([0, 61, 119, 181, 240, 299], True),
        ([0, 60, 120, 240, 300, 360], True),  # one was missed
        ([0, 60, 120, 180, 290, 350], True),  # one was late
        ([0, 60, 130, 170, 260, 300], False),
        ([0, 0, 0, 0, 0, 0], False),
        ([0, 0.5, 1, 1.5, 2, 2.5], False),  # a burst
        ([0, 1, 60, 61, 120, 121], False),  # pairs
        ([0, 6, 12, 18, 24, 300], False),
    ],
)
def test_regular_is_what_comes_at_intervals_that_hardly_differ(times: list[float], regular: bool) -> None:
    found = regularity([round(time * SECOND) for time in times], Regular(at_least=6, deviation=0.1))
    assert (found is not None) is regular


def test_the_evidence_says_the_interval_and_how_much_it_varies() -> None:
    rules = HostRules(catalogue_of("any where true", within=3600, regular={"at_least": 6, "deviation": 0.1}), {})
    found = [match for time in (0, 60, 121, 180, 239, 300, 360) for match in rules.step(event(time))]
    assert [match.count for match in found] == [6, 1]
    assert found[0].evidence == {"interval": 60.0, "deviation": 0.017}


# What is handed out


def test_a_match_says_what_it_is_about() -> None:
    catalogue = catalogue_of(
        "any where a == 1",
        group=["host.name", "x.missing", "flag"],
        evidence={"one": "n", "two": "x.missing", "three": "list", "four": "flag"},
        witness="list",
        at_least=2,
    )
    rules = HostRules(catalogue, {})
    rules.step(event(1, a=1, n=3, list=["t1", "t2"], flag=True))
    (match,) = rules.step(event(2, a=1, n=4, list=["t1"], flag=True))
    assert (match.code, match.scope, match.host) == ("TW800", ("h", "", "yes"), "h")
    assert match.evidence == {"one": 4, "three": "t1", "four": "yes"}
    assert (match.witness, match.count, match.first_ns, match.last_ns) == ("t1", 2, SECOND, 2 * SECOND)
    assert [seen.time_ns for seen in match.events] == [SECOND, 2 * SECOND]


def test_different_witnesses_of_one_cause_are_told_apart() -> None:
    rules = HostRules(catalogue_of("any where true", witness="t", at_least=3), {})
    found = [match for name in "aba" for match in rules.step(event(t=name))]
    assert [(match.witness, match.count) for match in found] == [("a", 2), ("b", 1)]


def test_hostile_evidence_is_cut() -> None:
    rules = HostRules(catalogue_of("any where true", evidence={"x": "t"}, witness="t"), {})
    (match,) = rules.step(event(t="x" * 100_000))
    assert len(str(match.evidence["x"])) == 1024
    assert match.witness is not None
    assert len(match.witness) == 1024


# The lists


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
@settings(max_examples=400)
@example(ipaddress.ip_address("100.127.255.255"))
@example(ipaddress.ip_address("::ffff:10.0.0.1"))
@example(ipaddress.ip_address("203.0.113.9"))
def test_local_addresses_are_those_that_do_not_leave_for_the_internet(address: ipaddress.IPv4Address) -> None:
    text = ip_of(str(address))
    assert text is not None
    query = compile_query("any where cidrmatch(ip, ${local_addresses})", LISTS)
    local = {"loopback", "private", "link-local", "cgnat", "ula", "multicast", "unspecified"}
    if scope(text) is Scope.RESERVED:
        return  # of these only some are listed: nobody connects there
    assert query.terms[0].matches(event(ip=text)) is (scope(text).value in local)


@pytest.mark.parametrize("network", [str(item) for item in load_rule_lists()["local_addresses"]])
def test_every_local_network_is_of_a_local_scope(network: str) -> None:
    parsed = ipaddress.ip_network(network)
    for address in (parsed[0], parsed[-1]):
        text = ip_of(str(address))
        assert text is not None
        assert scope(text) not in (Scope.PUBLIC, Scope.DOCUMENTATION)


def test_every_list_is_named_by_a_rule_or_by_code() -> None:
    used = "".join(t.detection.eql for t in HOST_TYPES if t.detection) + "command_line_tools"
    assert [name for name in load_rule_lists() if name not in used] == []
