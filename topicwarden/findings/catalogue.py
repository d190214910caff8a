"""The catalogue: every finding type, defined once as data in `rules/`, with its cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings.detection import Detection


class Severity(IntEnum):
    """How much it matters, as `--fail-on` compares it."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class FindingType(BaseModel):
    """One code of the catalogue; what a detector does not have to know to report."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str = Field(pattern=r"^TW\d{3}$")
    name: str = Field(pattern=r"^[a-z]+(-[a-z]+)*\.[a-z]+(-[a-z]+)*$")
    """Stable dotted name: `publish.outside-policy`."""
    severity: Annotated[Severity, BeforeValidator(lambda value: Severity[str(value).upper()])]
    title: str
    """One line with {client}, {witness} and {evidence keys} filled in by the renderers; no full stop."""
    meaning: str
    why: str
    fix: str
    limits: list[str] = Field(min_length=1)
    """What it cannot see, and when it may be wrong."""
    difference: str
    """Which two sets differ, in the design's words: `observed - intended`."""
    needs_policy: bool
    attack: list[str] = []
    """MITRE ATT&CK technique ids."""
    controls: dict[str, list[str]] = {}
    """Control ids by framework key: `nist-800-53r5`, `iso-27001-2022`, `iec-62443-3-3`, `pci-dss-4.0`, `soc2`."""
    detection: Detection | None = None
    """For findings about hosts: the rule itself. Others are code."""
    cases: dict[str, Any] = {}
    """`fires:` and `quiet:` scenarios, run by the tests; not used when running."""


class Catalogue(Mapping[str, FindingType]):
    """The finding types by code."""

    def __init__(self, types: Mapping[str, FindingType]) -> None:
        self._types = dict(sorted(types.items()))

    def __getitem__(self, code: str) -> FindingType:
        return self._types[code]

    def __iter__(self) -> Iterator[str]:
        return iter(self._types)

    def __len__(self) -> int:
        return len(self._types)

    def find(self, code_or_name: str) -> FindingType | None:
        """Return the type with this code or dotted name, in any case."""
        wanted = code_or_name.lower()
        return next((t for t in self._types.values() if wanted in (t.code.lower(), t.name)), None)


def data_dir(name: str) -> Path:
    """Return the folder `rules` or `brokers`: inside an installed wheel, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "data" / name
    return installed if installed.is_dir() else package.parent / name


def load_catalogue(folder: Path | None = None) -> Catalogue:
    """Read every `TW*.yaml`; raises ConfigurationError naming each file that is wrong."""
    folder = folder or data_dir("rules")
    types: dict[str, FindingType] = {}
    problems: list[Problem] = []
    for path in sorted(folder.glob("TW*.yaml")):
        try:
            finding_type = FindingType.model_validate(yaml.load(path.read_text("utf-8"), Loader=_FAST_LOADER))  # noqa: S506 - a safe loader
        except (yaml.YAMLError, ValidationError) as error:
            problems.append(Problem(f"not a finding type: {error}", str(path)))
            continue
        if not path.name.startswith(f"{finding_type.code}-"):
            problems.append(
                Problem(f"holds {finding_type.code}", str(path), hint="name the file CODE-dotted.name.yaml")
            )
        types[finding_type.code] = finding_type
    if not types and not problems:
        problems.append(
            Problem("no finding types found", str(folder), hint="reinstall topicwarden: its rules are missing")
        )
    if problems:
        raise ConfigurationError(*problems)
    return Catalogue(types)


_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
