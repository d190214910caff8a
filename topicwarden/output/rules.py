"""Rules of the catalogue for other programs: what one rule came to, and what it lost on the way."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.findings import Detection, FindingType, Severity
from topicwarden.output.rule_conditions import UnsupportedError, read_query
from topicwarden.output.rule_fields import Here, StandardQuery, standard_queries

NAMESPACE: Final = uuid.UUID("a2f3d9f0-5a55-5b43-9f57-3d3f4f0f2f52")
"""Of the identifiers of exported rules: they stay the same over versions."""
REVISED: Final = "2026-11-28"
"""When what rules are exported as changed last."""
AUTHOR: Final = "topicwarden"
IRREGULAR: Final = (
    "whether the times between events are regular cannot be asked: it counts {count} events in a day, however they come"
)


@dataclass(frozen=True, slots=True)
class ExportedRule:
    """What a rule came to in one form."""

    code: str
    name: str
    files: Mapping[str, str]
    """Texts by file name; none: it is not exported."""
    losses: Sequence[str] = ()
    """What the exported rule says less, or more, than ours."""
    why: str | None = None
    """Why it is not exported."""


@dataclass(frozen=True, slots=True)
class PreparedRule:
    """A rule with standard fields only, ready to be written."""

    type: FindingType
    detection: Detection
    queries: Sequence[StandardQuery]

    @property
    def at_least(self) -> int:
        """How many events make a finding."""
        regular = self.detection.regular
        return self.detection.at_least if regular is None else regular.at_least

    @property
    def losses_of_counting(self) -> Sequence[str]:
        """What no form can say of how events add up."""
        return () if self.detection.regular is None else (IRREGULAR.format(count=self.at_least),)


def prepare(finding_type: FindingType, here: Here, lists: Mapping[str, Sequence[str | int]]) -> PreparedRule:
    """Return a rule with standard fields only; raises UnsupportedError with the reason where there is no such."""
    detection = finding_type.detection
    if detection is None:
        raise UnsupportedError("it is no query: topicwarden finds it by its own means")
    if missing := here.missing(detection.needs):
        raise UnsupportedError(missing)
    query = read_query(detection.eql, lists)
    return PreparedRule(finding_type, detection, standard_queries(query, here))


def identifier(code: str, form: str, source: str) -> str:
    """Return the stable identifier of an exported rule."""
    return str(uuid.uuid5(NAMESPACE, f"{code} {form} {source}"))


def title(finding_type: FindingType) -> str:
    """Return a rule's name for people, from its dotted name: `Host: unapproved broker`."""
    subject, _, what = finding_type.name.partition(".")
    return f"{what.replace('-', ' ').capitalize()} ({finding_type.code} {subject}.{what})"


def sentence(text: str) -> str:
    """Return prose in one line."""
    return " ".join(text.split())


def level(severity: Severity) -> str:
    """Return a severity as Elastic and Sigma call it."""
    return {Severity.INFO: "low"}.get(severity, severity.name.lower())
