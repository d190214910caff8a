"""Reports on the sample store."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.report.samples import CATALOGUE, END, INTENDED, POLICY, START, write_store
from topicwarden.report.build import build_report
from topicwarden.report.controls import load_frameworks
from topicwarden.report.inputs import Inputs
from topicwarden.report.integrity import read_log
from topicwarden.report.model import PolicyFacts, Report
from topicwarden.report.reading import Span
from topicwarden.store.reader import Store

POLICY_FACTS = PolicyFacts("policy.yaml", sha256(POLICY.encode()).hexdigest(), 2, 4, 2)


def sample_inputs(folder: Path, *, span: Span | None = None, **more: Any) -> Inputs:
    """Return what a report on the sample store is made from."""
    store = Store(folder)
    log = read_log(store)
    fields: Mapping[str, Any] = {
        "store": store,
        "runs": log.runs,
        "entries": log.entries,
        "span": span or Span(START, END - 1),
        "now_ns": END,
        "version": "1.0",
        "integrity": log.integrity,
        "directory": "/srv/evidence",
        "intended": INTENDED,
        "policy": POLICY_FACTS,
        "frameworks": load_frameworks(),
        "versions": {"duckdb": "1.2"},
    }
    return Inputs(**{**fields, **more})


def sample_report(folder: Path, names: tuple[str, ...] = (), *, span: Span | None = None, **more: Any) -> Report:
    """Write the sample store into an empty folder, and return the report on it."""
    if not (folder / "store.json").exists():
        write_store(folder, names)
    return build_report(sample_inputs(folder, span=span, **more), CATALOGUE)
