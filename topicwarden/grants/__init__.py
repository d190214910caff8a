"""What a broker would allow, in one plain form whatever the broker; each broker's reader expands its own into it."""

from topicwarden.grants.model import (
    Decision,
    Export,
    Fault,
    Grants,
    Kept,
    Origin,
    Path,
    Probe,
    Rights,
    Rule,
    Rules,
    Unsaid,
    Verdict,
)
from topicwarden.grants.unsaid import unsaid_limits, unsaid_of, unsaid_sections

__all__ = [
    "Decision",
    "Export",
    "Fault",
    "Grants",
    "Kept",
    "Origin",
    "Path",
    "Probe",
    "Rights",
    "Rule",
    "Rules",
    "Unsaid",
    "Verdict",
    "unsaid_limits",
    "unsaid_of",
    "unsaid_sections",
]
