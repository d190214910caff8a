"""SARIF logs, held against the standard's own schema."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topicwarden.errors import ConfigurationError
from topicwarden.findings import Finding, load_catalogue
from topicwarden.output import FORMATS, REPORT_FORMATS, Origin, Summary, make_sink
from topicwarden.output.sarif import LEVEL, SECURITY_SEVERITY, SarifSink
from topicwarden.output.summary import ScannedGrants
from topicwarden.sources import BlindSpot

from .samples import CATALOGUE, HOSTILE, finding, many, summary
from .test_documents import flatten

DOCUMENT = (Path(__file__).parents[2] / "docs" / "output.md").read_text("utf-8")
SCHEMA = json.loads((Path(__file__).parent / "sarif-2.1.0.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
ORIGIN = Origin(version="0.1.0")


def log(findings: list[Finding], folder: Path, **changes: Any) -> dict[str, Any]:
    stream = io.StringIO()
    sink = SarifSink(stream, ORIGIN, folder)
    for one in findings:
        sink.opened(one)
    assert not stream.getvalue()
    sink.finish(summary(findings=findings, **changes))
    assert stream.getvalue().isascii()
    assert stream.getvalue().count("\n") == 1
    document: dict[str, Any] = json.loads(stream.getvalue())
    VALIDATOR.validate(document)
    return document


def results(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = document["runs"][0]["results"]
    return found


def about(file: str, line: int | None = None, **changes: Any) -> Finding:
    evidence: dict[str, Any] = {"where_file": file, "grant": "topic write #"}
    if line is not None:
        evidence["where_line"] = line
    return finding("TW101", evidence=evidence, **changes)


def test_findings_of_all_kinds_make_a_valid_log(tmp_path: Path) -> None:
    document = log(many(), tmp_path)
    assert len(results(document)) == len({one.fingerprint for one in many()})
    driver = document["runs"][0]["tool"]["driver"]
    for result in results(document):
        rule = driver["rules"][result["ruleIndex"]]
        kind = CATALOGUE[result["ruleId"]]
        assert rule["id"] == kind.code
        assert rule["defaultConfiguration"]["level"] == LEVEL[kind.severity]
        assert rule["properties"]["security-severity"] == SECURITY_SEVERITY[kind.severity]
        assert set(kind.attack) <= set(rule["properties"]["tags"])
    (denied,) = (rule for rule in driver["rules"] if rule["id"] == "TW302")
    assert denied["name"] == "LoginRepeatedFailures"
    assert "nist-800-53r5/AC-3" in denied["properties"]["tags"]


def test_every_code_of_the_catalogue_makes_a_valid_rule(tmp_path: Path) -> None:
    catalogue = load_catalogue()
    document = log([finding(code, catalogue=catalogue) for code in catalogue], tmp_path)
    rules = document["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == sorted(catalogue)
    for rule in rules:
        # What code scanning takes.
        assert len(rule["shortDescription"]["text"]) <= 1024
        assert len(rule["fullDescription"]["text"]) <= 1024, rule["id"]
        assert len(rule["properties"]["tags"]) <= 20, rule["id"]
        assert re.fullmatch(r"([A-Z][a-z]+)+", rule["name"])


def test_a_finding_stands_at_its_file_and_line_relative_to_the_folder(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a c#l:%é").write_text("x")
    absolute = str(tmp_path / "conf.d" / "a c#l:%é")
    for written in (absolute, "conf.d/a c#l:%é", "./conf.d/../conf.d/a c#l:%é"):
        (result,) = results(log([about(written, 12)], tmp_path))
        place = result["locations"][0]["physicalLocation"]
        assert place == {
            "artifactLocation": {"uri": "conf.d/a%20c%23l%3A%25%C3%A9"},
            "region": {"startLine": 12},
        }


def test_a_file_elsewhere_has_its_whole_uri(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "..acl").write_text("x")
    (result,) = results(log([about(str(tmp_path / "..acl"))], tmp_path / "here"))
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": f"file://{tmp_path}/..acl"}}
    (result,) = results(log([about("..acl")], tmp_path))
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "..acl"


def test_a_broker_that_was_asked_has_its_address(tmp_path: Path) -> None:
    (result,) = results(log([about("amqp://auditor@b:5672/?management=http://b:15672")], tmp_path))
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri == "amqp://auditor@b:5672/?management=http://b:15672"


def test_what_stands_in_no_file_stands_at_the_policy_and_its_broker(tmp_path: Path) -> None:
    for one in (about("acl_file /etc/mosquitto/acl (listener 8883)", 3), finding()):
        (result,) = results(log([one], tmp_path, policy="policy.yaml"))
        assert result["locations"] == [
            {
                "logicalLocations": [{"fullyQualifiedName": "plant-a", "kind": "resource"}],
                "physicalLocation": {"artifactLocation": {"uri": "policy.yaml"}},
            }
        ]
        (result,) = results(log([one], tmp_path, policy=None))
        assert "physicalLocation" not in result["locations"][0]


def test_an_accepted_finding_is_suppressed_with_its_reason(tmp_path: Path) -> None:
    found = log([finding(accepted="replaced by Q2 (until 2027-06-30)"), finding("TW101")], tmp_path)
    open_one, accepted = results(found)
    assert "suppressions" not in open_one
    assert accepted["level"] == "note"
    assert accepted["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "replaced by Q2 (until 2027-06-30)"}
    ]


def test_a_finding_that_grew_is_written_once_as_it_is_at_the_end(tmp_path: Path) -> None:
    stream = io.StringIO()
    sink = SarifSink(stream, ORIGIN, tmp_path)
    early, late = finding(count=1), finding(count=7)
    assert early.fingerprint == late.fingerprint
    sink.opened(early)
    sink.updated(late)
    sink.finish(summary(findings=[late]))
    (result,) = results(json.loads(stream.getvalue()))
    assert result["occurrenceCount"] == 7
    assert result["partialFingerprints"] == {"topicwarden/v1": late.fingerprint}


def test_what_was_not_seen_or_decided_is_a_notification(tmp_path: Path) -> None:
    scanned = ScannedGrants("acl", "plant-a", [BlindSpot("who can log in")], 3, 2, 1, undecided=4)
    (invocation,) = log([], tmp_path, scanned=[scanned], interrupted=False)["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is True
    told = [(note["descriptor"]["id"], note["level"]) for note in invocation["toolExecutionNotifications"]]
    assert told == [
        ("blind-spot", "note"),
        ("blind-spot", "note"),
        ("blind-spot", "note"),
        ("undecided", "warning"),
        ("lost", "warning"),
        ("lost", "warning"),
        ("lost", "warning"),
        ("overflow", "warning"),
    ]
    (interrupted,) = log([], tmp_path, interrupted=True)["runs"][0]["invocations"]
    assert interrupted["executionSuccessful"] is False


def strings(value: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in strings(item, name)]
    if isinstance(value, list):
        return [found for item in value for found in strings(item, key)]
    return [(key, value)] if isinstance(value, str) else []


@settings(max_examples=40, deadline=None)
@given(name=st.text(st.characters(), max_size=12) | st.sampled_from([HOSTILE, "[x](http://evil)", "{0}", "a\\](b"]))
def test_no_name_breaks_a_log_or_acts_in_a_message(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    hostile = finding("TW101", witnesses={name: 1}, evidence={"where_file": name, "note": name}, accepted=name or None)
    spot = BlindSpot(name)
    scanned = [ScannedGrants(name, name, [spot], 0, 0, 0, 0)]
    document = log([hostile], folder, policy=name, scanned=scanned)
    for key, text in strings(document):
        if key == "text":
            assert "](" not in text
            assert not re.search(r"(?<!\{)(\{\{)*\{(?!\{)", text), text
        if key == "uri":
            urlsplit(text)
            assert text.isascii()
            assert text.isprintable()


@settings(max_examples=40, deadline=None)
@given(name=st.binary(min_size=1, max_size=20).filter(lambda name: not {0, ord("/")} & set(name) and name.strip(b".")))
def test_every_file_name_can_be_read_back(name: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    path = folder / os.fsdecode(name)
    path.write_bytes(b"")
    (result,) = results(log([about(str(path), 1)], folder))
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert not urlsplit(uri).scheme
    assert unquote_to_bytes(uri) == name


def test_sarif_is_for_runs_that_end() -> None:
    assert "sarif" not in FORMATS
    assert set(REPORT_FORMATS) == {*FORMATS, "sarif"}
    assert isinstance(make_sink("sarif", io.StringIO()), SarifSink)
    with pytest.raises(ConfigurationError, match="runs that end") as caught:
        make_sink("sarif", io.StringIO(), live=True)
    assert "sarif" not in (caught.value.problems[0].hint or "")
    with pytest.raises(ConfigurationError, match="not known") as caught:
        make_sink("xml", io.StringIO())
    assert "sarif" in (caught.value.problems[0].hint or "")


def test_the_keys_that_are_written_are_the_ones_that_are_documented(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("x")
    document = log([*many(), about("acl", 1)], tmp_path)
    written = {
        re.sub(r"\.(client|evidence)\.[^.]+$", lambda m: ".client" if m[1] == "client" else ".evidence.*", key)
        for key in flatten(document)
    }
    rows = re.findall(r"^\| `([^`]+)` \|", section("SARIF"), re.MULTILINE)
    documented = {key if key in ("$schema", "version") else f"runs[].{key}" for key in rows}
    assert written == documented


def test_every_format_is_documented() -> None:
    for name in REPORT_FORMATS:
        assert f"| `{name}` |" in DOCUMENT


def section(heading: str) -> str:
    return DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_the_summary_alone_makes_a_log(tmp_path: Path) -> None:
    empty: Summary = summary(findings=[])
    stream = io.StringIO()
    SarifSink(stream, ORIGIN, tmp_path).finish(empty)
    VALIDATOR.validate(json.loads(stream.getvalue()))
