"""Controls of compliance frameworks, judged by findings and by what was observed.

No control is claimed as a whole: each says which aspect of it evidence of ours speaks to. `satisfied` is said of a
period, as far as was observed, and only where everything was that the aspect rests on; what is not known is `not
assessed`, never `satisfied`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, Protocol

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Severity, data_dir
from topicwarden.output import wording
from topicwarden.output.escape import quoted, visible
from topicwarden.report.coverage import Aspect, Coverage, Need, Unseen, gap_words

FRAMEWORKS: Final = ("nist-800-53r5", "iso-27001-2022", "iec-62443-3-3", "pci-dss-4.0", "soc2")
"""In the order of a report."""
MAX_LISTED: Final = 50
"""Fingerprints of a control; the rest are counted."""
MAX_SAID: Final = 10
"""Gaps, brokers and exceptions that are said one by one."""
MAX_SPOTS: Final = 3
"""Blind spots, and gaps that are allowed, that are said at each control; the report has all of them once."""
_NAME: Final = 200
_FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Status = Literal["satisfied", "not satisfied", "not assessed"]
Code = Annotated[str, Field(pattern=r"^TW\d{3}$")]


class Control(BaseModel):
    """One control, and what of our evidence speaks to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^[A-Z0-9][A-Za-z0-9.() -]*$")
    title: str = Field(min_length=3)
    """The standard's own where it may be copied, else our own short words."""
    assesses: str = Field(min_length=10)
    """The aspect that we assess, as a statement that holds or not."""
    against: tuple[Code, ...] = ()
    """Findings that count against it."""
    shows: tuple[Code, ...] = ()
    """Findings that show it at work, and never count against it."""
    needs: tuple[Need, ...] = Field(min_length=1)
    sees: tuple[Aspect, ...] = Field(min_length=1)
    """What the statement rests on: wholly hidden, it cannot be assessed."""
    not_satisfied_from: Annotated[Severity, BeforeValidator(lambda value: Severity[str(value).upper()])]


class Framework(BaseModel):
    """A framework's controls, as one file of `rules/controls/`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    framework: str
    """Key: `nist-800-53r5`."""
    title: str
    catalogue: str | None = None
    """Address of the framework's OSCAL catalogue, where one is published."""
    wording: str
    """Whose words the titles are."""
    controls: tuple[Control, ...] = Field(min_length=1)


class AssessedFinding(Protocol):
    """What must be known of a finding."""

    @property
    def fingerprint(self) -> str: ...  # noqa: D102
    @property
    def code(self) -> str: ...  # noqa: D102
    @property
    def severity(self) -> str: ...  # noqa: D102
    @property
    def certainty(self) -> str: ...  # noqa: D102
    @property
    def accepted(self) -> str | None: ...  # noqa: D102
    @property
    def gap_ns(self) -> tuple[int, int] | None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class ControlResult:
    """What is said of one control."""

    framework: str
    framework_title: str
    control: str
    title: str
    status: Status
    reason: str
    findings: tuple[str, ...]
    """Fingerprints of what counts against it, else of what is accepted or tells of gaps; at most `MAX_LISTED`."""
    evidence: tuple[str, ...]
    """Sentences: what was observed, what not, exceptions; names in them are fit for people."""
    assesses: str = ""
    """The aspect that was assessed."""


def load_frameworks(folder: Path | None = None) -> tuple[Framework, ...]:
    """Read `rules/controls/`; raises ConfigurationError naming each file that is wrong."""
    folder = folder or data_dir("rules") / "controls"
    found: dict[str, Framework] = {}
    problems = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            read = Framework.model_validate(yaml.load(path.read_text("utf-8"), Loader=_FAST_LOADER))  # noqa: S506 - a safe loader
        except (OSError, yaml.YAMLError, ValidationError) as error:
            problems.append(Problem(f"not a framework's controls: {error}", str(path)))
            continue
        twice = [name for name, count in Counter(control.id for control in read.controls).items() if count > 1]
        if read.framework != path.stem or twice:
            problems.append(Problem(f"holds {read.framework}, and twice: {', '.join(twice) or 'nothing'}", str(path)))
        found[read.framework] = read
    if not found and not problems:
        problems.append(Problem("no controls found", str(folder), hint="reinstall topicwarden: its rules are missing"))
    if problems:
        raise ConfigurationError(*problems)
    order = {key: number for number, key in enumerate(FRAMEWORKS)}
    return tuple(sorted(found.values(), key=lambda one: (order.get(one.framework, len(order)), one.framework)))


def assess(
    frameworks: Sequence[Framework], findings: Sequence[AssessedFinding], coverage: Coverage
) -> list[ControlResult]:
    """Judge every control; `findings` are those of the period, accepted ones too."""
    return [
        _Assessment(framework, control, findings, coverage).result()
        for framework in frameworks
        for control in framework.controls
    ]


class _Assessment:
    """One control at a time."""

    def __init__(
        self, framework: Framework, control: Control, findings: Sequence[AssessedFinding], coverage: Coverage
    ) -> None:
        self._framework = framework
        self._control = control
        self._coverage = coverage
        about = [finding for finding in findings if finding.code in control.against]
        self._accepted = [finding for finding in about if finding.accepted is not None]
        still = [finding for finding in about if finding.accepted is None]
        self._of_gaps = [finding for finding in still if _is_allowed(finding, coverage)]
        """What only tells once more of gaps that are allowed."""
        still = [finding for finding in still if finding not in self._of_gaps]
        self._adverse = [f for f in still if _rank(f.severity) >= control.not_satisfied_from and _sure(f)]
        self._unsure = [f for f in still if _rank(f.severity) >= control.not_satisfied_from and not _sure(f)]
        self._lesser = [finding for finding in still if _rank(finding.severity) < control.not_satisfied_from]
        self._shown = Counter(finding.code for finding in findings if finding.code in control.shows)
        self._unlisted = Counter[str]()
        """Findings that there are and the list does not have, by code."""
        self._count(findings)

    def _count(self, findings: Sequence[AssessedFinding]) -> None:
        if self._coverage.totals is None:
            return
        listed = Counter(
            (finding.code, finding.severity)
            for finding in findings
            if finding.code in self._control.against and finding.accepted is None
        )
        for total in self._coverage.totals:
            if total.code in self._control.shows:
                self._shown[total.code] = max(self._shown[total.code], total.findings)
            if total.code not in self._control.against or total.accepted:
                continue
            more = total.findings - listed[total.code, total.severity]
            if more > 0 and _rank(total.severity) >= self._control.not_satisfied_from:
                self._unlisted[total.code] += more

    def result(self) -> ControlResult:
        """Return what is said of the control."""
        missing = list(self._missing())
        if self._adverse or self._unlisted:
            status: Status = "not satisfied"
            counted = Counter(finding.code for finding in self._adverse) + self._unlisted
            reason = f"{_counted(counted)} against it, open and {self._from} or above"
            if missing:
                reason += f". Besides: {'; '.join(missing)}"
            listed = self._adverse
        elif missing:
            status, reason, listed = "not assessed", "; ".join(missing), self._unsure or self._accepted
        else:
            status, listed = "satisfied", [*self._accepted, *self._of_gaps]
            reason = f"In this period, as far as observed: {self._control.assesses.strip()}"
            if self._coverage.gaps:
                reason = f"{_not_seen(self._coverage)}. {reason}"
            if self._accepted:
                reason = f"With exceptions, {_counted(Counter(f.code for f in self._accepted))} accepted. {reason}"
            if self._lesser:
                reason += f" {_counted(Counter(f.code for f in self._lesser))} below {self._from} do not count."
        return ControlResult(
            self._framework.framework,
            self._framework.title,
            self._control.id,
            self._control.title,
            status,
            reason,
            tuple(finding.fingerprint for finding in listed[:MAX_LISTED]),
            tuple(self._evidence(len(listed))),
            self._control.assesses.strip(),
        )

    @property
    def _from(self) -> str:
        return self._control.not_satisfied_from.name.lower()

    def _missing(self) -> Iterator[str]:
        """Yield what is not known, and would have to be for the control to be satisfied."""
        coverage, needs = self._coverage, self._control.needs
        if coverage.integrity is False:
            yield "the stored evidence is not what was written"
        elif Need.INTEGRITY in needs and coverage.integrity is None:
            yield "nobody verified that the stored evidence is what was written"
        if Need.EVENTS in needs:
            silent = [broker for broker, count in coverage.events.items() if not count]
            if not coverage.events:
                yield "no broker was observed"
            elif silent:
                yield f"nothing was observed of {_names('broker', silent)}"
        if Need.POLICY in needs and not coverage.policy:
            yield "there is no policy to say what is intended"
        for need, brokers, said in (
            (Need.GRANTS, coverage.grants, "grants were not read of"),
            (Need.CHANGES, coverage.changes, "changes of grants were not watched of"),
        ):
            if need in needs:
                without = sorted(coverage.events.keys() - brokers)
                if without or not brokers:
                    yield f"{said} {_names('broker', without)}" if without else f"{said} any broker"
        if Need.GRANTS in needs and Need.POLICY in needs and coverage.grants_unjudged:
            yield f"another policy, or none, judged the grants of {_names('broker', sorted(coverage.grants_unjudged))}"
        if Need.HOSTS in needs and not coverage.hosts:
            yield "no host was observed"
        if coverage.gaps and not coverage.gaps_allowed:
            first = gap_words(coverage.gaps[0])
            more = len(coverage.gaps) - 1
            allowed = wording.duration(coverage.allowed_gap_ns)
            yield (
                f"evidence is missing for {wording.duration(coverage.missing_ns)}"
                + (f", and {allowed} are allowed" if coverage.allowed_gap_ns else "")
                + f": {first}"
                + (f", and {wording.counted(more, 'more gap')}" if more else "")
            )
        hidden = sorted({aspect for spot in self._spots(wholly=True) for aspect in spot.hides} & {*self._control.sees})
        if hidden:
            spots = list(self._spots(wholly=True))
            yield f"not seen well enough: {', '.join(hidden)} ({_spot(spots[0])}{_more(len(spots) - 1)})"
        if coverage.unreadable:
            yield f"{wording.counted(coverage.unreadable, 'stored finding')} could not be read"
        if self._unsure:
            yield f"{_counted(Counter(f.code for f in self._unsure))} of which nothing is certain"
        if not self._control.against and not self._shown:
            yield f"none of {', '.join(self._control.shows)} was recorded, which would show it at work"

    def _spots(self, *, wholly: bool) -> Iterator[Unseen]:
        sees = set(self._control.sees)
        return (spot for spot in self._coverage.blind_spots if spot.wholly is wholly and spot.hides & sees)

    def _evidence(self, listed: int) -> Iterator[str]:
        coverage, needs = self._coverage, self._control.needs
        yield f"From {wording.timestamp(coverage.from_ns)} to {wording.timestamp(coverage.to_ns)}"
        if Need.EVENTS in needs and coverage.events:
            told = ", ".join(
                f"{wording.counted(count, 'event')} of broker {quoted(broker, _NAME)}"
                for broker, count in list(coverage.events.items())[:MAX_SAID]
            )
            yield told + _more(len(coverage.events) - MAX_SAID)
        if Need.GRANTS in needs and coverage.grants:
            yield f"Grants were read of {_names('broker', sorted(coverage.grants))}"
        if Need.HOSTS in needs and coverage.hosts:
            yield f"Telemetry was read of {_names('host', sorted(coverage.hosts))}"
        if Need.CHANGES in needs and coverage.changes:
            yield f"Changes of grants were watched of {_names('broker', sorted(coverage.changes))}"
        if coverage.integrity:
            yield "The stored evidence was verified"
        if self._shown:
            yield f"{_counted(self._shown)} show it at work"
        if coverage.gaps_allowed:
            for gap in coverage.gaps[:MAX_SPOTS]:
                yield f"Not seen, and allowed: {gap_words(gap)}"
            if len(coverage.gaps) > MAX_SPOTS:
                more = wording.counted(len(coverage.gaps) - MAX_SPOTS, "more gap")
                yield f"And {more}, told under what could not be seen"
            if self._of_gaps:
                yield f"{_counted(Counter(f.code for f in self._of_gaps))} only because of these gaps"
        for finding in self._accepted[:MAX_SAID]:
            yield f"Exception: {finding.code} {finding.fingerprint[:12]}, {quoted(finding.accepted or '', _NAME)}"
        if len(self._accepted) > MAX_SAID:
            yield f"And {wording.counted(len(self._accepted) - MAX_SAID, 'more exception')}"
        if listed > MAX_LISTED:
            yield f"Only the first {MAX_LISTED} of {wording.number(listed)} findings are named"
        partly = list(self._spots(wholly=False))
        for spot in partly[:MAX_SPOTS]:
            yield f"Not seen in part: {_spot(spot)}"
        if len(partly) > MAX_SPOTS:
            more = wording.counted(len(partly) - MAX_SPOTS, "more blind spot")
            yield f"And {more}, told under what could not be seen"


def _rank(severity: str) -> int:
    return Severity[severity.upper()]


def _is_allowed(finding: AssessedFinding, coverage: Coverage) -> bool:
    return coverage.gaps_allowed and finding.gap_ns is not None and coverage.has_gap(finding.gap_ns)


def _not_seen(coverage: Coverage) -> str:
    """Return how much of the period is missing under what is called satisfied all the same."""
    lost = sum(gap.lost or 0 for gap in coverage.gaps)
    known = f" with {wording.counted(lost, 'row')} known to be lost" if lost else ""
    return (
        f"Satisfied, but {wording.duration(coverage.missing_ns)} of the period were not seen, in "
        f"{wording.counted(len(coverage.gaps), 'gap')}{known}; {wording.duration(coverage.allowed_gap_ns)} are allowed"
    )


def _sure(finding: AssessedFinding) -> bool:
    return finding.certainty != "unknown"


def _counted(codes: Counter[str]) -> str:
    """Return `3 findings (TW101, TW201 x2)`."""
    told = ", ".join(
        code if count == 1 else f"{code} x{wording.number(count)}" for code, count in sorted(codes.items())
    )
    return f"{wording.counted(codes.total(), 'finding')} ({told})"


def _names(noun: str, names: Sequence[str]) -> str:
    shown = ", ".join(quoted(name, _NAME) for name in names[:MAX_SAID])
    return f"{noun}{'s' if len(names) > 1 else ''} {shown}{_more(len(names) - MAX_SAID)}"


def _spot(spot: Unseen) -> str:
    return f"{visible(spot.what)} ({quoted(spot.source, _NAME)})"


def _more(count: int) -> str:
    return f" and {wording.number(count)} more" if count > 0 else ""
