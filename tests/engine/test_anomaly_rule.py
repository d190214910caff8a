"""TW420's cases run through the engine, in one batch and event by event."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.engine.scenario import run
from topicwarden.findings import Finding, load_catalogue

CATALOGUE = load_catalogue()
CASES = CATALOGUE["TW420"].cases


def cases(kind: str) -> Iterator[Any]:
    for case in CASES[kind]:
        yield pytest.param(case, id=case["name"])


def found(case: Mapping[str, Any], size: int = 1 << 30) -> list[Finding]:
    assert set(case) <= {"name", "policy", "baseline", "scoring", "events", "expect"}
    all_of_them = run(
        CATALOGUE,
        case.get("policy"),
        case["events"],
        size,
        baseline=case.get("baseline"),
        scoring=case.get("scoring", False),
    )
    return [finding for finding in all_of_them if finding.type.code == "TW420"]


@pytest.mark.parametrize("size", [1 << 30, 1], ids=["one batch", "event by event"])
@pytest.mark.parametrize("case", [*cases("fires")])
def test_fires(case: Mapping[str, Any], size: int) -> None:
    findings = found(case, size)
    assert len(findings) == len(case["expect"])
    for finding, wanted in zip(findings, case["expect"], strict=True):
        assert finding.client is not None
        assert finding.client.user == wanted["client"]
        assert finding.count == wanted.get("count", finding.count)
        assert list(finding.witnesses) == wanted.get("witnesses", list(finding.witnesses))


@pytest.mark.parametrize("size", [1 << 30, 1], ids=["one batch", "event by event"])
@pytest.mark.parametrize("case", [*cases("quiet")])
def test_stays_quiet(case: Mapping[str, Any], size: int) -> None:
    assert "expect" not in case
    assert [(finding.evidence, finding.witnesses) for finding in found(case, size)] == []


def test_the_titles_placeholders_are_in_the_evidence() -> None:
    fields = {field for _, field, _, _ in string.Formatter().parse(CATALOGUE["TW420"].title) if field}
    for case in CASES["fires"]:
        for finding in found(case):
            assert fields <= {"client", "witness"} | set(finding.evidence)
