"""Scans of small configurations, as the rules' cases write them.

A case has `acl` (an acl_file), `dynsec` (a dynamic-security.json, as YAML) or `definitions` (RabbitMQ's, as YAML; what
is left out is empty), perhaps a `policy`, and perhaps `observed`: events as in `tests/engine/scenario.py`, at broker b.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.engine.scenario import START_NS, batches
from topicwarden.compare.scan import Scan, Scanned
from topicwarden.events.observed import Observed
from topicwarden.findings import Catalogue, Finding, Ledger
from topicwarden.grants import Grants
from topicwarden.policy import parse_policy
from topicwarden.sources import SourceOptions, load_brokers

KINDS = {"acl": ("mosquitto", "acl"), "dynsec": ("mosquitto", "dynamic-security.json")}
EMPTY: Mapping[str, Any] = {
    "rabbit_version": "3.10.8",
    "rabbitmq_version": "3.10.8",
    "users": [],
    "vhosts": [{"name": "/"}],
    "permissions": [],
    "topic_permissions": [],
    "parameters": [],
    "policies": [],
    "queues": [],
    "exchanges": [],
    "bindings": [],
}


def is_scan(case: Mapping[str, Any]) -> bool:
    """Whether a case is about a configuration."""
    return bool({"acl", "dynsec", "definitions"} & set(case))


def grants_of(case: Mapping[str, Any], folder: Path) -> Sequence[Grants]:
    """Read a case's configuration as the broker's package does."""
    brokers, options = load_brokers(), SourceOptions(broker="b")
    if "definitions" in case:
        given = {key: [dict(row) for row in rows] for key, rows in case["definitions"].items()}
        for row in given.get("exchanges", []):
            row.update({"durable": True, "auto_delete": False, "internal": row.get("internal", False), "arguments": {}})
        for row in given.get("bindings", []):
            row.setdefault("arguments", {})
        path = folder / "definitions.json"
        path.write_text(json.dumps({**EMPTY, **given}))
        return brokers["rabbitmq"].grants(str(path), options)
    key = "acl" if "acl" in case else "dynsec"
    path = folder / KINDS[key][1]
    path.write_text(case[key] if key == "acl" else json.dumps(case[key]))
    return brokers["mosquitto"].grants(str(path), options)


def scan(
    catalogue: Catalogue, case: Mapping[str, Any], place: Path | None = None
) -> tuple[list[Finding], list[Scanned]]:
    """Scan a case's configuration; returns its findings and what was looked at.

    `place`: the folder that it is written to, for tests to which it matters where a grant stands.
    """
    codes = [*catalogue, *(entry.name for entry in catalogue.values())]
    policy = None if case.get("policy") is None else parse_policy(case["policy"], "policy.yaml", codes)
    observed = None
    if "observed" in case:
        observed = Observed()
        for batch in batches(case["observed"]):
            observed.add(batch)
    ledger = Ledger(catalogue)
    with TemporaryDirectory() as folder:
        found = grants_of(case, place or Path(folder))
        runs = [Scan(ledger, policy, START_NS).run(one, observed) for one in found]
    return ledger.findings(), runs
