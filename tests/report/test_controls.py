"""Controls: the mapping agrees with the catalogue, and nothing is called satisfied that is not known to be."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.errors import ConfigurationError
from topicwarden.findings import Severity, load_catalogue
from topicwarden.report.controls import FRAMEWORKS, MAX_LISTED, Control, Framework, assess, load_frameworks
from topicwarden.report.coverage import Aspect, Coverage, Gap, Need, Unseen, coverage_of, hidden_by
from topicwarden.store.model import Entry, EntryKind

CATALOGUE = load_catalogue()
LOADED = load_frameworks()
ROOT = Path(__file__).parents[2]
SECOND = 1_000_000_000
START = 1_780_272_000 * SECOND
CONTROLS = [
    pytest.param(one, control, id=f"{one.framework} {control.id}") for one in LOADED for control in one.controls
]


@dataclass(frozen=True)
class One:
    fingerprint: str
    code: str
    severity: str
    certainty: str = "exact"
    accepted: str | None = None
    gap_ns: tuple[int, int] | None = None


@dataclass(frozen=True)
class Total:
    code: str
    severity: str
    accepted: bool
    findings: int


EVERYTHING = Coverage(
    START,
    START + 3600 * SECOND,
    {"plant": 1234},
    policy=True,
    grants=frozenset({"plant"}),
    hosts=frozenset({"ci-1"}),
    changes=frozenset({"plant"}),
    integrity=True,
)


def shown_for(control: Control) -> list[One]:
    return [] if control.against else [One("0" * 32, control.shows[0], "info")]


def status(control: Control, findings: Sequence[One], coverage: Coverage) -> str:
    framework = Framework(framework="f", title="F", wording="w", controls=(control,))
    (result,) = assess([framework], findings, coverage)
    return result.status


# The mapping ----------------------------------------------------------------------------------------------------------


def test_every_control_of_the_catalogue_is_in_its_file_with_the_same_findings() -> None:
    catalogue: dict[tuple[str, str], set[str]] = {}
    for code, finding_type in CATALOGUE.items():
        for framework, ids in finding_type.controls.items():
            assert len(set(ids)) == len(ids)
            for control in ids:
                catalogue.setdefault((framework, control), set()).add(code)
    files = {
        (one.framework, control.id): {*control.against, *control.shows} for one in LOADED for control in one.controls
    }
    assert files == catalogue
    assert tuple(one.framework for one in LOADED) == FRAMEWORKS


@pytest.mark.parametrize(("framework", "control"), CONTROLS)
def test_a_control_says_an_aspect_and_counts_each_finding_once(framework: Framework, control: Control) -> None:
    assert not set(control.against) & set(control.shows)
    assert control.assesses.strip().endswith(".")
    assert len(set(control.needs)) == len(control.needs)
    assert len(set(control.sees)) == len(control.sees)
    # What no finding of this severity is of could never be unsatisfied.
    assert not control.against or any(
        CATALOGUE[code].severity >= control.not_satisfied_from for code in control.against
    )
    if any(CATALOGUE[code].needs_policy for code in control.against):
        assert Need.POLICY in control.needs
    if any(CATALOGUE[code].detection is not None for code in control.against):
        assert Need.HOSTS in control.needs
    if any(CATALOGUE[code].difference.startswith("granted") for code in control.against):
        assert Need.GRANTS in control.needs


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("framework: other\ntitle: T\nwording: w\ncontrols: []\n", "controls"),
        ("framework: x\ntitle: T\nwording: w\nmore: 1\ncontrols: []\n", "more"),
        ("[", "not a framework"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=says):
        load_frameworks(tmp_path)
    with pytest.raises(ConfigurationError, match="no controls found"):
        load_frameworks(tmp_path / "none")


# The judgement --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("framework", "control"), CONTROLS)
def test_with_everything_known_and_nothing_found_it_is_satisfied_as_far_as_observed(
    framework: Framework, control: Control
) -> None:
    (result,) = [one for one in assess([framework], shown_for(control), EVERYTHING) if one.control == control.id]
    assert result.status == "satisfied"
    assert result.reason.startswith("In this period, as far as observed: ")
    assert result.assesses in result.reason
    assert result.findings == ()


@pytest.mark.parametrize(("framework", "control"), CONTROLS)
def test_without_any_one_thing_that_it_needs_it_is_not_assessed(framework: Framework, control: Control) -> None:
    lacking = {
        Need.EVENTS: [replace(EVERYTHING, events={}), replace(EVERYTHING, events={"plant": 1, "other": 0})],
        Need.POLICY: [replace(EVERYTHING, policy=False)],
        Need.GRANTS: [replace(EVERYTHING, grants=frozenset()), replace(EVERYTHING, grants=frozenset({"other"}))],
        Need.HOSTS: [replace(EVERYTHING, hosts=frozenset())],
        Need.CHANGES: [replace(EVERYTHING, changes=frozenset())],
        Need.INTEGRITY: [replace(EVERYTHING, integrity=None)],
    }
    always = [
        replace(EVERYTHING, gaps=(Gap(START, START + 1, "why"),)),
        replace(EVERYTHING, integrity=False),
        replace(EVERYTHING, unreadable=1),
        replace(EVERYTHING, blind_spots=(hidden_by("log", "something that nobody has classified"),)),
        *(replace(EVERYTHING, blind_spots=(Unseen("log", "w", frozenset({aspect}), True),)) for aspect in control.sees),
    ]
    for coverage in [*always, *(one for need in control.needs for one in lacking[need])]:
        assert status(control, shown_for(control), coverage) == "not assessed", coverage
    # And what it does not rest on does not matter.
    for aspect in set(Aspect) - set(control.sees):
        other = replace(EVERYTHING, blind_spots=(Unseen("log", "w", frozenset({aspect}), True),))
        assert status(control, shown_for(control), other) == "satisfied"


@pytest.mark.parametrize(("framework", "control"), CONTROLS)
def test_an_open_finding_counts_against_it_whatever_else_is_unknown(framework: Framework, control: Control) -> None:
    for code in control.against:
        severity = CATALOGUE[code].severity
        finding = One("a" * 32, code, severity.name.lower())
        counts = severity >= control.not_satisfied_from
        for coverage in (EVERYTHING, Coverage(START, START, {})):
            expected = "not satisfied" if counts else "satisfied" if coverage is EVERYTHING else "not assessed"
            assert status(control, [*shown_for(control), finding], coverage) == expected
        # What is accepted, or shows nothing for certain, is another matter.
        accepted = replace(finding, severity="info", accepted="replaced (until 2027-01-01)")
        assert status(control, [accepted], EVERYTHING) == "satisfied"
        if counts:
            assert status(control, [replace(finding, certainty="unknown")], EVERYTHING) == "not assessed"
            cut = replace(EVERYTHING, totals=[Total(code, severity.name.lower(), False, 7)])
            assert status(control, [], cut) == "not satisfied"


def result_of(control: str, findings: Sequence[One], coverage: Coverage) -> Any:
    (result,) = [one for one in assess(LOADED, findings, coverage) if one.control == control]
    return result


def test_exceptions_are_named_and_so_is_what_is_seen_in_part() -> None:
    accepted = One("b" * 32, "TW201", "info", accepted="moves \x1b[31m to Q2 (until 2027-01-01)")
    spot = hidden_by("log:/var/log", "whether a will was accepted is not known: Mosquitto 2.0 does not tell plugins")
    result = result_of("AC-3", [accepted], replace(EVERYTHING, blind_spots=(spot,)))
    assert result.status == "satisfied"
    assert result.reason.startswith("With exceptions, 1 finding (TW201) accepted. In this period, as far as observed")
    assert result.findings == ("b" * 32,)
    told = "\n".join(result.evidence)
    assert "Exception: TW201 bbbbbbbbbbbb" in told
    assert "\x1b" not in told
    assert "Not seen in part: whether a will was accepted" in told


def test_a_million_findings_are_counted_and_the_first_are_named() -> None:
    findings = [One(f"{number:032x}", "TW201", "high") for number in range(MAX_LISTED + 10)]
    coverage = replace(EVERYTHING, totals=[Total("TW201", "high", False, 1_000_000)])
    result = result_of("AC-3", findings, coverage)
    assert "1 000 000 findings (TW201 x1 000 000) against it" in result.reason
    assert len(result.findings) == MAX_LISTED


SEVERITIES = [severity.name.lower() for severity in Severity]
found = st.lists(
    st.builds(
        One,
        st.integers(0, 99).map(lambda number: f"{number:032x}"),
        st.sampled_from(list(CATALOGUE)),
        st.sampled_from(SEVERITIES),
        st.sampled_from(["exact", "inferred", "unknown"]),
        st.sampled_from([None, None, "why (until 2027-01-01)"]),
    ),
    max_size=6,
)
names = st.frozensets(st.sampled_from(["plant", "other"]))
observed = st.builds(
    Coverage,
    st.just(START),
    st.just(START + SECOND),
    st.dictionaries(st.sampled_from(["plant", "other"]), st.integers(0, 2)),
    gaps=st.sampled_from([(), (Gap(START, START, "why"),)]),
    blind_spots=st.lists(
        st.builds(Unseen, st.just("s"), st.just("w"), st.frozensets(st.sampled_from(list(Aspect))), st.booleans()),
        max_size=2,
    ).map(tuple),
    policy=st.booleans(),
    grants=names,
    hosts=st.frozensets(st.just("ci")),
    changes=names,
    integrity=st.sampled_from([None, True, True, False]),
    unreadable=st.integers(0, 1),
    allowed_gap_ns=st.sampled_from([0, 0, 1]),
)


def plainly(control: Control, findings: Sequence[One], coverage: Coverage) -> str:
    """Judge by what the documentation says, without regard to reasons."""
    counting = [
        f
        for f in findings
        if f.code in control.against
        and f.accepted is None
        and SEVERITIES.index(f.severity) >= control.not_satisfied_from
    ]
    if any(f.certainty != "unknown" for f in counting):
        return "not satisfied"
    brokers = set(coverage.events)
    had: Mapping[Need, bool] = {
        Need.EVENTS: bool(brokers) and all(coverage.events.values()),
        Need.POLICY: coverage.policy,
        Need.GRANTS: bool(coverage.grants) and brokers <= coverage.grants,
        Need.HOSTS: bool(coverage.hosts),
        Need.CHANGES: bool(coverage.changes) and brokers <= coverage.changes,
        Need.INTEGRITY: coverage.integrity is not None,
    }
    hidden = any(spot.wholly and spot.hides & set(control.sees) for spot in coverage.blind_spots)
    known = (
        all(had[need] for need in control.needs)
        and coverage.integrity is not False
        and not ((coverage.gaps and not coverage.allowed_gap_ns) or hidden or coverage.unreadable or counting)
        and (control.against or any(f.code in control.shows for f in findings))
    )
    return "satisfied" if known else "not assessed"


@settings(max_examples=150, deadline=None)
@given(found, observed)
def test_every_status_is_what_the_documentation_says(findings: list[One], coverage: Coverage) -> None:
    results = assess(LOADED, findings, coverage)
    controls = [control for framework in LOADED for control in framework.controls]
    for result, control in zip(results, controls, strict=True):
        assert result.status == plainly(control, findings, coverage), (result, coverage)
        assert result.reason


# What was observed ----------------------------------------------------------------------------------------------------


def opened(index: int, at: int, command: str = "watch", **source: Any) -> Entry:
    row = {"title": "ring:/m.ring", "broker": "plant", "kind": "mosquitto", "host": False, "blind_spots": [], **source}
    facts = {"version": "1", "about": {"command": command, "sources": [row]}}
    return Entry(index, EntryKind.OPENED, START + at * SECOND, facts=facts)


def entry(index: int, kind: EntryKind, at: int, **facts: Any) -> Entry:
    return Entry(index, kind, START + at * SECOND, segment=0, facts=facts or None)


def covered(entries: Sequence[Entry], first: int = 0, last: int = 100, **more: Any) -> Coverage:
    return coverage_of(entries, START + first * SECOND, START + last * SECOND, events={"plant": 1}, **more)


def test_a_time_in_which_nobody_watched_is_a_gap() -> None:
    entries = [
        opened(0, 0),
        entry(1, EntryKind.CLOSED, 40),
        opened(2, 60),
        entry(3, EntryKind.SEGMENT, 90),
        entry(4, EntryKind.CLOSED, 100),
    ]
    (gap,) = covered(entries).gaps
    assert ((gap.from_ns - START) // SECOND, (gap.until_ns - START) // SECOND) == (40, 59)
    assert gap.why == "nobody watched"
    assert covered(entries, 60, 100).gaps == ()
    assert [one.why for one in covered(entries[:1]).gaps] == ["nobody watched, or what was seen is not sealed yet"]
    assert covered(entries[:1], at_work=True).gaps == ()


def test_gaps_and_deletions_that_the_log_tells_are_cut_to_the_period() -> None:
    retired = {
        "kind": "events",
        "broker": "plant",
        "hour": START // (3600 * SECOND),
        "first": 0,
        "last": 0,
        "rule": "a",
    }
    entries = [
        opened(0, 0),
        entry(1, EntryKind.GAP, 50, reason="could not keep up", from_ns=START - SECOND, until_ns=START + 5 * SECOND),
        entry(2, EntryKind.RETIRED, 60, retired=[retired]),
        entry(3, EntryKind.CLOSED, 100),
    ]
    gaps = covered(entries).gaps
    assert [gap.why for gap in gaps] == ["could not keep up", "events of plant were deleted by retention"]
    assert gaps[0].from_ns == START
    assert gaps[1].until_ns == START + 100 * SECOND


def test_recordings_that_were_read_into_a_store_are_of_another_time_than_the_reading() -> None:
    entries = [opened(0, 5000, "check"), entry(1, EntryKind.CLOSED, 5001)]
    coverage = covered(entries)
    assert coverage.gaps == ()
    assert coverage.events == {"plant": 1}
    assert covered([]).blind_spots[0].wholly


def test_what_was_watched_and_told_nothing_is_known_and_so_are_hosts_and_audit_streams() -> None:
    entries = [
        opened(0, 0, broker="silent", title="rabbitmq plugin, every attempt and decision (amqp://h)"),
        opened(1, 10, broker="ci-1", host=True, title="auditd:/var/log/audit.log"),
        opened(2, 20, blind_spots=[{"what": "the entropy of payloads is not measured", "fix": None}]),
        entry(3, EntryKind.CLOSED, 100),
    ]
    coverage = covered(entries, grants=["plant"], grants_spots=[("acl", "why")])
    assert coverage.events == {"silent": 0, "plant": 1}
    assert coverage.hosts == {"ci-1"}
    assert coverage.changes == {"silent"}
    assert {spot.what: spot.hides for spot in coverage.blind_spots} == {
        "the entropy of payloads is not measured": {Aspect.PAYLOADS},
        "why": {Aspect.GRANTS},
    }


def sentences() -> Iterator[tuple[str, str]]:
    """Yield every blind spot that is written out in a collector, with `*` for what varies."""
    for path in sorted((ROOT / "collectors").rglob("*.py")):
        if path.name.startswith("doctor"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(node.func, "id", None) if isinstance(node, ast.Call) else None
            if name not in ("BlindSpot", "_unless"):
                continue
            assert isinstance(node, ast.Call)
            text = written(node.args[0 if name == "BlindSpot" else 1]) if node.args else None
            if text is not None:
                yield path.name, text


def written(node: ast.expr) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "this" for part in values)
        case ast.BinOp(left=left, right=right):
            parts = written(left), written(right)
            return "".join(part or "this" for part in parts) if any(parts) else None
        case _:
            return None


@pytest.mark.parametrize(("file", "text"), [pytest.param(*one, id=": ".join(one)[:90]) for one in sentences()])
def test_what_a_blind_spot_hides_is_said_in_rules_blind_spots(file: str, text: str) -> None:
    assert hidden_by(file, text).hides != frozenset(Aspect), "say in rules/blind_spots.yaml what it hides"
