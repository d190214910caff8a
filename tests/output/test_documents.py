"""What machines read: JSON lines, ECS, OCSF."""

from __future__ import annotations

import io
import ipaddress
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from py_ocsf_models import OCSF_VERSION  # type: ignore[import-untyped]  # carries no types
from py_ocsf_models.events.findings.detection_finding import (  # type: ignore[import-untyped]  # carries no types
    DetectionFinding,
)

from topicwarden.errors import ConfigurationError
from topicwarden.findings import Finding, load_catalogue
from topicwarden.output import FORMATS, Origin, attack, ecs, jsonl, make_sink, ocsf
from topicwarden.output.jsonl import Event

from .samples import CATALOGUE, GRANTS, client, finding, many, summary

ORIGIN = Origin(version="0.1.0", host="collector-1", kinds={"plant-a": "mosquitto"})
MACHINE = tuple(name for name in FORMATS if name != "text")

# ECS 9.4.0, checked by hand against generated/ecs/ecs_flat.yml of that release: type, and whether it is an array. No
# package that holds the schema is published on PyPI.
ECS_FIELDS = {
    "@timestamp": ("date", False),
    "container.id": ("keyword", False),
    "ecs.version": ("keyword", False),
    "event.action": ("keyword", False),
    "event.category": ("keyword", True),
    "event.code": ("keyword", False),
    "event.dataset": ("keyword", False),
    "event.end": ("date", False),
    "event.id": ("keyword", False),
    "event.kind": ("keyword", False),
    "event.module": ("keyword", False),
    "event.outcome": ("keyword", False),
    "event.provider": ("keyword", False),
    "event.severity": ("long", False),
    "event.start": ("date", False),
    "event.type": ("keyword", True),
    "host.hostname": ("keyword", False),
    "host.name": ("keyword", False),
    "message": ("match_only_text", False),
    "network.protocol": ("keyword", False),
    "network.transport": ("keyword", False),
    "observer.hostname": ("keyword", False),
    "observer.product": ("keyword", False),
    "observer.type": ("keyword", False),
    "observer.vendor": ("keyword", False),
    "observer.version": ("keyword", False),
    "process.args": ("keyword", True),
    "process.args_count": ("long", False),
    "process.command_line": ("wildcard", False),
    "process.executable": ("keyword", False),
    "process.name": ("keyword", False),
    "process.parent.executable": ("keyword", False),
    "process.parent.name": ("keyword", False),
    "process.parent.pid": ("long", False),
    "process.pid": ("long", False),
    "process.user.name": ("keyword", False),
    "related.ip": ("ip", True),
    "related.user": ("keyword", True),
    "rule.category": ("keyword", False),
    "rule.description": ("keyword", False),
    "rule.id": ("keyword", False),
    "rule.name": ("keyword", False),
    "rule.ruleset": ("keyword", False),
    "rule.version": ("keyword", False),
    "service.name": ("keyword", False),
    "service.type": ("keyword", False),
    "source.address": ("keyword", False),
    "source.ip": ("ip", False),
    "source.port": ("long", False),
    "threat.framework": ("keyword", False),
    "threat.tactic.id": ("keyword", True),
    "threat.tactic.name": ("keyword", True),
    "threat.technique.id": ("keyword", True),
    "threat.technique.name": ("keyword", True),
    "threat.technique.reference": ("keyword", True),
    "threat.technique.subtechnique.id": ("keyword", True),
    "threat.technique.subtechnique.name": ("keyword", True),
    "threat.technique.subtechnique.reference": ("keyword", True),
    "tls.client.subject": ("keyword", False),
    "user.name": ("keyword", False),
}
ECS_ALLOWED = {
    "event.kind": {"alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"},
    "event.outcome": {"failure", "success", "unknown"},
}
ECS_EXPECTED_TYPES = {
    "authentication": {"start", "end", "info"},
    "configuration": {"access", "change", "creation", "deletion", "info"},
    "iam": {"admin", "change", "creation", "deletion", "group", "info", "user"},
    "intrusion_detection": {"allowed", "denied", "info"},
    "process": {"access", "change", "end", "info", "start"},
    "network": {"access", "allowed", "connection", "denied", "end", "info", "protocol", "start"},
}
# In OCSF 1.5.0 (objects/evidences.json, events/findings/detection_finding.json), but not in the package's models, which
# drop them unread.
OCSF_NOT_MODELLED = {
    "is_alert",
    "evidences[].actor",
    "evidences[].src_endpoint",
    "evidences[].process",
}


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Return every leaf by its path; a list of objects adds `[]`."""
    if isinstance(value, dict) and value:
        return {k: v for name, item in value.items() for k, v in flatten(item, f"{path}.{name}".lstrip(".")).items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {k: v for item in value for k, v in flatten(item, f"{path}[]").items()}
    return {path: value}


def documents(format_name: str) -> list[dict[str, Any]]:
    """Everything a sink of this format writes about all samples."""
    stream = io.StringIO()
    sink = make_sink(format_name, stream, origin=ORIGIN)
    for item in many():
        sink.opened(item)
    sink.finish(summary(findings=many(), scanned=[GRANTS]))
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ecs_type_is(kind: str, value: Any) -> bool:
    if kind == "date":
        return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", value) is not None
    if kind == "ip":
        return bool(ipaddress.ip_address(value))
    return isinstance(value, int if kind == "long" else str)


@pytest.mark.parametrize("format_name", MACHINE)
def test_each_document_is_one_line_of_ascii_that_strict_parsers_take(format_name: str) -> None:
    stream = io.StringIO()
    sink = make_sink(format_name, stream, origin=ORIGIN)
    for item in many():
        sink.opened(item)
    sink.finish(summary())
    text = stream.getvalue()
    assert text.isascii()
    assert text.replace("\n", "").isprintable()
    for line in text.split("\n")[:-1]:
        # What UTF-8 cannot hold is refused by strict parsers; NaN is no JSON.
        json.dumps(json.loads(line, parse_constant=pytest.fail), ensure_ascii=False).encode()


@pytest.mark.parametrize("format_name", MACHINE)
def test_at_the_end_only_findings_that_changed_are_written_again_with_the_right_count(format_name: str) -> None:
    stream = io.StringIO()
    sink = make_sink(format_name, stream, origin=ORIGIN)
    same, changed, never_shown = finding(count=5), finding("TW203", count=7), finding("TW301")
    sink.opened(same)
    sink.opened(changed)
    changed.count = 70
    sink.updated(changed)
    changed.count = 99
    shown = len(stream.getvalue().splitlines())
    sink.finish(summary(findings=[same, changed, never_shown]))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()][shown:]

    def event(document: dict[str, Any]) -> tuple[str, str, int]:
        if format_name == "jsonl":
            return document["code"], document["event"], document["count"]
        if format_name == "ecs":
            return document["rule"]["id"], document["topicwarden"]["event"], document["topicwarden"]["count"]
        return document["metadata"]["event_code"], document["unmapped"]["event"], document["count"]

    assert [event(line) for line in lines[:-1]] == [("TW203", "final", 99), ("TW301", "opened", 1234)]
    assert len(lines) == 3, "the last line is the summary"


def test_the_jsonl_object_of_a_finding_has_all_facts() -> None:
    document = documents("jsonl")[0]
    assert document["client"] == {
        "protocol": "mqtt",
        "client_id": "s-17",
        "user": "sensor-1",
        "identity": "verified",
        "address": "10.0.0.5",
        "port": 51234,
        "tls_subject": "CN=sensor-1,O=Plant",
        "vhost": "/",
    }
    assert document["witnesses"] == [
        {"name": "plant/a/sensor-1/command", "count": 1000},
        {"name": "plant/b", "count": 234},
    ]
    assert (document["first_seen"], document["count"]) == ("2026-11-23T09:58:00.123456789Z", 1234)
    assert document["evidence"] == {"max_rate": 12.5, "limit": 10, "tool": "mosquitto_pub"}


def test_every_jsonl_finding_has_the_same_keys() -> None:
    found = [set(document) for document in documents("jsonl") if document["type"] == "finding"]
    assert all(keys == found[0] for keys in found)


def test_the_last_jsonl_line_is_the_summary_with_modes_and_blind_spots() -> None:
    last = documents("jsonl")[-1]
    assert last["type"] == "summary"
    assert last["sources"][0]["blind_spots"][0]["what"] == "bridges are not seen: they pass the plugin by"
    assert (last["events"], last["lost"], last["undecodable"]) == (1234567, 12, 4)


@given(st.dictionaries(st.text(), st.one_of(st.text(), st.floats(), st.integers()), max_size=4))
def test_any_evidence_becomes_json(evidence: dict[str, str | int | float]) -> None:
    parsed = json.loads(jsonl.encode({"evidence": evidence}), parse_constant=pytest.fail)
    for value, written in zip(evidence.values(), parsed["evidence"].values(), strict=True):
        assert written == value or not isinstance(value, float) or not math.isfinite(value) or "\\u{" in str(written)


def test_numpy_numbers_become_json_numbers() -> None:
    assert jsonl.encode({"a": np.int64(3), "b": np.float32(0.5), "c": np.nan}) == '{"a":3,"b":0.5,"c":null}'


def test_ecs_documents_use_only_ecs_fields_with_their_types_and_values() -> None:
    for document in documents("ecs"):
        for field, value in flatten(document).items():
            if field.startswith(("topicwarden.", "labels")):
                continue
            kind, is_array = ECS_FIELDS[field]
            assert isinstance(value, list) == is_array, field
            for one in value if is_array else [value]:
                assert ecs_type_is(kind, one), (field, one)
                assert one in ECS_ALLOWED.get(field, {one})
        for category in document["event"].get("category", []):
            assert set(document["event"]["type"]) <= ECS_EXPECTED_TYPES[category]


def test_ecs_labels_are_flat_strings_and_own_fields_have_one_type_each() -> None:
    types: dict[str, set[type]] = {}
    for document in documents("ecs"):
        assert all(isinstance(value, str) for value in document.get("labels", {}).values())
        for field, value in flatten(document["topicwarden"]).items():
            for one in value if isinstance(value, list) else [value]:
                if one is not None:
                    types.setdefault(field, set()).add(type(one))
    assert {field: kinds for field, kinds in types.items() if len(kinds) > 1} == {}


def test_ecs_says_allowed_or_denied_only_where_the_evidence_does() -> None:
    def classified(item: Finding) -> tuple[list[str], list[str], str]:
        event = ecs.finding_document(Event.OPENED, item, ORIGIN)["event"]
        return event["category"], event["type"], event["outcome"]

    both = ["intrusion_detection", "network"]
    assert classified(finding("TW301")) == (both, ["denied"], "failure")
    assert classified(finding("TW201")) == (both, ["info"], "unknown")
    assert classified(finding("TW201", evidence={"outcome": "allowed"})) == (both, ["allowed"], "success")
    assert classified(finding("TW302")) == (["authentication"], ["info"], "failure")
    assert classified(finding("TW101")) == (["iam"], ["info"], "unknown")
    assert classified(finding("TW901", client=None)) == (["configuration"], ["info"], "unknown")


def test_ecs_and_ocsf_name_no_user_the_client_only_claimed_to_be() -> None:
    for item in many():
        claimed = item.client is not None and item.client.identity == "claimed"
        in_ecs = ecs.finding_document(Event.OPENED, item, ORIGIN)
        in_ocsf = ocsf.finding_document(Event.OPENED, item, ORIGIN)
        if claimed:
            assert "user" not in in_ecs
            assert in_ecs["topicwarden"]["client"]["user"] in ("admin", "sensor-1")
            assert "user" not in in_ocsf["evidences"][0]["actor"]
            assert in_ocsf["evidences"][0]["data"]["client"]["identity"] == "claimed"
    assert any(item.client is not None and item.client.identity == "claimed" for item in many())


def test_ecs_gives_the_technique_its_tactic_and_an_unclear_one_none() -> None:
    threat = ecs.finding_document(Event.OPENED, finding(), ORIGIN)["threat"]
    assert threat["technique"]["id"] == ["T1071"]
    assert threat["technique"]["subtechnique"]["name"] == ["Publish/Subscribe Protocols"]
    assert threat["tactic"] == {"id": ["TA0011"], "name": ["Command and Control"]}
    threat = ecs.finding_document(Event.OPENED, finding("TW203"), ORIGIN)["threat"]
    assert threat["technique"]["id"] == ["T1499", "T1078"]
    assert threat["tactic"]["id"] == ["TA0040"]


def test_a_socket_path_is_no_source_ip() -> None:
    item = finding(client=client(address="/run/mosquitto.sock", port=None))
    document = ecs.finding_document(Event.OPENED, item, ORIGIN)
    assert document["source"] == {"address": "/run/mosquitto.sock"}
    assert "ip" not in document["related"]
    assert "src_endpoint" not in ocsf.finding_document(Event.OPENED, item, ORIGIN)["evidences"][0]


def test_the_model_package_is_of_the_ocsf_version_we_write() -> None:
    assert OCSF_VERSION == ocsf.OCSF_VERSION


@pytest.mark.parametrize("event", list(Event))
@pytest.mark.parametrize("item", many(), ids=lambda f: f"{f.type.code}-{f.count}")
def test_every_ocsf_finding_is_a_valid_detection_finding_with_no_key_ocsf_does_not_have(
    item: Finding, event: Event
) -> None:
    document = json.loads(jsonl.encode(ocsf.finding_document(event, item, ORIGIN)))
    model = DetectionFinding.model_validate(document)
    understood = model.model_dump(mode="json", exclude_unset=True)
    ignored = {path for path in flatten(document) if path not in flatten(understood)}
    assert {path for path in ignored if not path.startswith(tuple(OCSF_NOT_MODELLED))} == set()
    assert document["type_uid"] == document["class_uid"] * 100 + document["activity_id"]
    assert document["activity_id"] == (1 if event is Event.OPENED else 2)


def test_the_ocsf_summary_is_a_base_event() -> None:
    last = documents("ocsf")[-1]
    assert (last["class_uid"], last["type_uid"], last["metadata"]["version"]) == (0, 99, "1.5.0")
    assert last["unmapped"]["summary"]["type"] == "summary"


def test_an_accepted_finding_is_suppressed_in_ocsf() -> None:
    document = ocsf.finding_document(Event.OPENED, finding(accepted="until 2027-06-30"), ORIGIN)
    assert (document["status_id"], document["severity_id"], document["is_alert"]) == (3, 1, False)


def test_an_unknown_format_is_refused_with_the_ones_there_are() -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_sink("xml", io.StringIO())
    assert "text, jsonl, ecs, ocsf" in str(caught.value)


def test_every_technique_of_the_catalogue_has_a_name() -> None:
    used = {item for finding_type in [*load_catalogue().values(), *CATALOGUE.values()] for item in finding_type.attack}
    assert {item for item in used if not attack.is_named(item)} == set()


@pytest.mark.parametrize(("format_name", "key"), [("jsonl", "title"), ("ecs", "message"), ("ocsf", "message")])
def test_the_title_for_people_is_escaped_once(format_name: str, key: str) -> None:
    titles = {document[key] for document in documents(format_name) if "owned" in document.get(key, "")}
    assert len(titles) == 2
    assert all(title.startswith('"\\u{1b}[2J\\u{1b}]0;owned\\u{7}') for title in titles)
