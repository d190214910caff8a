"""Attacks that were played, for people: what each was caught by, with the process behind it, and a table of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.text import Text

from topicwarden.findings import Finding
from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.output.layout import columns, wrap
from topicwarden.output.text import brief

_STYLES: Final = {
    "caught": "green",
    "MISSED": "bold red",
    "not played": "yellow",
    "quiet": "green",
    "ACCUSED": "bold red",
}
_FAILED: Final = "FAILED"


@dataclass
class Round:
    """One attack, or what is no attack, and what was found meanwhile."""

    label: str
    """`T1071.005-3`; `automation` for what is no attack."""
    name: str
    expected: Sequence[str] = ()
    """Codes of which at least one must be found; none: nothing may be found."""
    findings: Sequence[Finding] = ()
    """What was found that has to do with it, gravest first."""
    skipped: Sequence[str] = ()
    """Why it was not played; none: it was."""
    failures: list[str] = field(default_factory=list)
    """What went wrong in playing or watching it."""
    interrupted: bool = False

    @property
    def caught_by(self) -> list[str]:
        """The expected codes that were found."""
        return [code for code in self.codes if code in self.expected]

    @property
    def codes(self) -> list[str]:
        """All codes that were found."""
        return sorted({finding.type.code for finding in self.findings})

    @property
    def verdict(self) -> str:
        """How it came out, in a word or two."""
        if self.skipped:
            return "not played"
        if self.failures:
            return _FAILED
        if not self.expected:
            return "ACCUSED" if self.findings else "quiet"
        return "caught" if self.caught_by else "MISSED"

    @property
    def as_it_should(self) -> bool:
        """Whether an attack was caught, what is none was not accused, and nothing went wrong."""
        return self.verdict in ("caught", "quiet")


def round_lines(played: Round, width: int | None) -> list[Text]:
    """Return how a round came out, each finding with the process behind it."""
    heading = Text.assemble(_verdict(played), f"  {visible(played.label)}  ", (visible(played.name), "bold"))
    lines = [Text(), *wrap(heading, width, rest="  ")]
    for reason in played.skipped:
        lines += wrap(Text(visible(reason)), width, "  ", "  ")
    for failure in played.failures:
        lines += wrap(Text(visible(failure)), width, "  ", "  ")
    if played.verdict == "MISSED":
        lines += wrap(Text(f"expected {' or '.join(played.expected)}"), width, "  ", "  ")
    by_code: dict[str, list[Finding]] = {}
    for finding in played.findings:
        by_code.setdefault(finding.type.code, []).append(finding)
    for code, findings in by_code.items():
        shown = max(findings, key=lambda finding: bool(finding.behind))
        lines += [Text.assemble("  ", line) for line in brief(shown, None if width is None else width - 2)]
        if len(findings) > 1:
            lines += wrap(Text(f"and {len(findings) - 1} more of {code}", "dim"), width, "  ", "  ")
    return lines


def verdict_lines(rounds: Sequence[Round], width: int | None) -> list[Text]:
    """Return the closing table: each attack with the rules that caught it, expected ones in bold."""
    lines = [Text(), Text("Which rule caught which", "bold")]
    rows = []
    for played in rounds:
        codes = [Text(code, "bold" if code in played.expected else "dim") for code in played.codes]
        found = Text(" ").join(codes) if codes else Text("nothing" if not played.skipped else "")
        rows.append([_verdict(played), Text(visible(played.label)), found, Text(visible(played.name))])
    for row in columns(rows, indent="  "):
        lines += wrap(row, width, rest="    ")
    attacks = [played for played in rounds if played.expected]
    caught = sum(played.verdict == "caught" for played in attacks)
    skipped = sum(bool(played.skipped) for played in attacks)
    told = []
    if attacks:
        told.append(f"{caught} of {wording.counted(len(attacks) - skipped, 'attack')} caught")
    if skipped:
        told[-1] += f", {skipped} not played"
    harmless = [played for played in rounds if not played.expected]
    if harmless:
        accused = any(played.verdict != "quiet" for played in harmless)
        told.append("sanctioned automation " + ("was ACCUSED WRONGLY, or failed" if accused else "was not accused"))
    return [*lines, *wrap(Text("; ".join(told) or "nothing was played", "bold"), width)]


def _verdict(played: Round) -> Text:
    return Text(played.verdict, _STYLES.get(played.verdict, "bold red"))
