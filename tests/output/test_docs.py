"""docs/output.md lists every key that is written, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from topicwarden.findings import Change
from topicwarden.output import FORMATS, Metrics
from topicwarden.sources import Counters

from .samples import finding
from .test_documents import MACHINE, documents, flatten

DOCUMENT = (Path(__file__).parents[2] / "docs" / "output.md").read_text()
TITLES = {"jsonl": "JSON lines", "ecs": "ECS", "ocsf": "OCSF"}
SUMMARY_UNDER = {"jsonl": "", "ecs": "topicwarden.summary.", "ocsf": "unmapped.summary."}
# Objects whose keys depend on the finding's code or on the source.
OPEN = re.compile(
    r"(labels|evidence|controls|measured|sources\[\]\.decode_errors|sources\[\]\.counts)\.[^.]+$|(labels|measured)$"
)


def section(heading: str) -> set[str]:
    """Return the keys in the table below a heading."""
    body = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([^`]+)` \|", body, re.MULTILINE))


def documented(format_name: str, kind: str) -> set[str]:
    keys = section(f"{TITLES[format_name]}: {kind}")
    if kind == "summary" and format_name != "jsonl":
        prefix = SUMMARY_UNDER[format_name]
        inherited = {prefix + key for key in section("JSON lines: summary") if not key.startswith("observer.")}
        if format_name == "ecs":
            inherited = {key for key in inherited if not key.endswith(("decode_errors.*", "counts.*"))}
        keys |= inherited
    for key in [key for key in keys if key.endswith("behind[].*")]:
        # The same objects as in JSON lines, which are written down there.
        own = [own for own in section("JSON lines: finding") if own.startswith("behind[].")]
        keys = keys - {key} | {key.removesuffix("behind[].*") + one for one in own}
    return keys


def written(format_name: str, kind: str) -> set[str]:
    found = documents(format_name)
    chosen = found[:-1] if kind == "finding" else found[-1:]
    keys = {key for document in chosen for key in flatten(document)}
    return {OPEN.sub(lambda match: f"{match[1] or match[2]}.*", key) for key in keys}


@pytest.mark.parametrize("kind", ["finding", "summary"])
@pytest.mark.parametrize("format_name", MACHINE)
def test_the_keys_that_are_written_are_the_ones_that_are_documented(format_name: str, kind: str) -> None:
    assert written(format_name, kind) - documented(format_name, kind) == set(), "not documented"
    assert documented(format_name, kind) - written(format_name, kind) == set(), "documented, but not written"


class Store:
    sealed, dropped, error = 1, 0, None


def test_every_metric_is_documented_with_its_labels() -> None:
    metrics = Metrics()
    metrics.add_source("plant-a", Counters(decode_errors={"record": 1}, source={"evicted": 1}))
    metrics.finding(Change.OPENED, finding())
    metrics.set_store(Store())
    found = {
        (sample.name, ", ".join(sorted(sample.labels)))
        for family in metrics.registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    rows = re.findall(r"^\| `(topicwarden_\w+)` \| ([\w, ]*)\|", DOCUMENT, re.MULTILINE)
    assert {(name, ", ".join(sorted(filter(None, labels.strip().split(", "))))) for name, labels in rows} == found


def test_every_format_is_documented() -> None:
    for name in FORMATS:
        assert f"| `{name}` |" in DOCUMENT
