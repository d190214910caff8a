"""The assessment as an OSCAL assessment-results document (NIST, OSCAL 1.1), for governance tools.

One result has the whole period: an observation for each finding and each control that could not be assessed, a risk for
each finding that is open or accepted, and an OSCAL finding for each control that was assessed. OSCAL knows satisfied
and not-satisfied only: a control that was not assessed has no OSCAL finding, is in `exclude-controls`, and an
observation says why. Text is Markdown in OSCAL, so what may hold names is escaped.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid5

from topicwarden.output import wording
from topicwarden.output.attack import technique
from topicwarden.output.escape import visible
from topicwarden.report.controls import ControlResult, Framework
from topicwarden.report.coverage import Coverage, gap_words
from topicwarden.report.model import Integrity, ReportFinding

OSCAL_VERSION: Final = "1.1.3"
NAMESPACE: Final = "urn:topicwarden:oscal"
"""Of our own properties."""
ATTACK: Final = "https://attack.mitre.org"
_ROOT: Final = UUID("6a2c0b6e-6b9c-5a34-9a3e-0f7b5a1d2c41")
_MARKDOWN: Final = re.compile(r"[\\`*_{}\[\]<>()!|~^$&]|^[-+=#]|(?<=^\d)[.)]")
_TOKEN: Final = re.compile(r"[^A-Za-z0-9._-]")
_UNTIL: Final = re.compile(r"\(until (\d{4}-\d{2}-\d{2})\)$")
_MAX_TEXT: Final = 4000
_LIFECYCLE: Final = "recommendation"

Json = dict[str, Any]


def oscal_document(
    results: Sequence[ControlResult],
    findings: Sequence[ReportFinding],
    coverage: Coverage,
    frameworks: Sequence[Framework],
    *,
    system: str,
    generated_ns: int,
    version: str,
    integrity: Integrity | None = None,
    findings_total: int | None = None,
    import_ap: str | None = None,
) -> Json:
    """Return the document as JSON values.

    `system`: what names the evidence, such as the store's id; `findings_total`: how many there are, where `findings` is
    cut; `import_ap`: address of an assessment plan; without one, a resource of the document says what was assessed and
    how. UUIDs are version 5: the same content has the same ones, and the same finding in every document.
    """
    writer = _Writer(results, findings, coverage, frameworks, system, version, integrity)
    plan = writer.uuid("plan")
    body: Json = {
        "metadata": {
            "title": "Assessment of publish/subscribe brokers by topicwarden",
            "last-modified": wording.timestamp(generated_ns, 3),
            "version": wording.timestamp(coverage.to_ns, 3),
            "oscal-version": OSCAL_VERSION,
            "props": [_prop("tool-version", version)],
        },
        "import-ap": {"href": import_ap or f"#{plan}"},
        "results": [writer.result(findings_total)],
        "back-matter": {"resources": writer.resources(plan)},
    }
    content = {**body, "metadata": {**body["metadata"], "last-modified": ""}}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return {"assessment-results": {"uuid": str(uuid5(_ROOT, digest)), **body}}


def control_token(framework: str, control: str) -> str:
    """Return a control's id as OSCAL takes one: NIST's own (`ac-6.1` for AC-6(1)), of others with their framework."""
    if framework == "nist-800-53r5":
        return re.sub(r"\((\d+)\)", r".\1", control.lower())
    return f"{framework}_{_TOKEN.sub('_', control)}"


class _Writer:
    """Builds the parts of one document, which refer to each other by UUID."""

    def __init__(
        self,
        results: Sequence[ControlResult],
        findings: Sequence[ReportFinding],
        coverage: Coverage,
        frameworks: Sequence[Framework],
        system: str,
        version: str,
        integrity: Integrity | None,
    ) -> None:
        self._results = results
        self._findings = findings
        self._coverage = coverage
        self._frameworks = frameworks
        self._system = system
        self._version = version
        self._integrity = integrity
        self._known = {finding.fingerprint for finding in findings}
        self._tool = self.uuid("tool")
        self._evidence = self.uuid("evidence")
        places = [*(f"broker {broker}" for broker in coverage.events), *(f"host {host}" for host in coverage.hosts)]
        places += [_place(finding) for finding in findings]
        self._places = dict.fromkeys(sorted(set(places)))

    def uuid(self, *what: str) -> str:
        """Return the UUID of a part, by what it is; lengths keep one name from imitating two."""
        text = "".join(f"{len(part)}:{part}" for part in (self._system, *what))
        return str(uuid5(_ROOT, text.encode("utf-8", "surrogatepass").hex()))

    def result(self, findings_total: int | None) -> Json:
        """Return the one result."""
        coverage = self._coverage
        observations = [self._observed(finding) for finding in self._findings]
        observations += [self._not_assessed(one) for one in self._results if one.status == "not assessed"]
        observations.append(self._covered())
        risks = [self._risk(finding) for finding in self._findings if _is_risk(finding)]
        assessed = [self._finding(one) for one in self._results if one.status != "not assessed"]
        found: Json = {
            "uuid": self.uuid("result", str(coverage.from_ns), str(coverage.to_ns)),
            "title": "What was observed, granted and intended",
            "description": "Brokers' grants, what clients and hosts were observed to do, and the policy, compared. "
            "Each control is assessed in one aspect, which its finding names; satisfied is said as far as observed.",
            "start": wording.timestamp(coverage.from_ns, 9),
            "end": wording.timestamp(coverage.to_ns, 9),
            "props": [_prop("findings", str(len(self._findings) if findings_total is None else findings_total))],
            "local-definitions": {
                **_filled("components", [self._component(place) for place in self._places]),
                "assessment-assets": {
                    "components": [
                        {
                            "uuid": self._tool,
                            "type": "software",
                            "title": "topicwarden",
                            "description": "Audits publish/subscribe brokers.",
                            "props": [_prop("version", self._version, ours=False)],
                            "status": {"state": "operational"},
                        }
                    ],
                    "assessment-platforms": [
                        {"uuid": self.uuid("platform"), "uses-components": [{"component-uuid": self._tool}]}
                    ],
                },
            },
            "reviewed-controls": {
                "description": "Of each control one aspect; what was not assessed is excluded.",
                "control-selections": [self._selection(framework) for framework in self._frameworks],
            },
            "observations": observations,
            **_filled("risks", risks),
            **_filled("findings", assessed),
        }
        if findings_total is not None and findings_total > len(self._findings):
            found["remarks"] = (
                f"Only {len(self._findings)} of {findings_total} findings of the evidence are listed, the gravest; the "
                "controls were assessed by all of them."
            )
        return found

    def resources(self, plan: str) -> list[Json]:
        """Return what the document refers to."""
        policy = "a policy" if self._coverage.policy else "no policy"
        evidence: Json = {
            "uuid": self._evidence,
            "title": "The evidence",
            "description": f"A store of events and findings, {_markdown(self._system)}. `topicwarden findings DIR show "
            "FINGERPRINT` shows one finding of it, `topicwarden verify DIR` that it is what was written.",
        }
        integrity = self._integrity
        if integrity is not None:
            evidence["props"] = [
                _prop("log-origin", integrity.origin),
                _prop("log-key", integrity.key),
                _prop("log-size", str(integrity.size)),
                _prop("verified", "true" if integrity.holds else "false", remarks=_markdown(integrity.verdict)),
            ]
            if integrity.checkpoint:
                value = base64.b64encode(integrity.checkpoint.encode()).decode()
                evidence["base64"] = {"filename": "checkpoint", "media-type": "text/plain", "value": value}
        found = [
            {
                "uuid": plan,
                "title": "What was assessed and how",
                "description": f"There is no assessment plan in OSCAL. Compared were {policy}, grants of "
                f"{wording.counted(len(self._coverage.grants), 'broker')}, and what was observed of "
                f"{wording.counted(len(self._coverage.events), 'broker')} and "
                f"{wording.counted(len(self._coverage.hosts), 'host')}.",
            },
            evidence,
        ]
        for framework in self._frameworks:
            resource: Json = {
                "uuid": self.uuid("framework", framework.framework),
                "title": framework.title,
                "description": framework.wording.strip(),
            }
            if framework.catalogue:
                resource["rlinks"] = [{"href": framework.catalogue, "media-type": "application/oscal.catalog+json"}]
            found.append(resource)
        return found

    def _selection(self, framework: Framework) -> Json:
        mine = [one for one in self._results if one.framework == framework.framework]
        tokens = {control.id: control_token(framework.framework, control.id) for control in framework.controls}
        out = [{"control-id": tokens[one.control]} for one in mine if one.status == "not assessed"]
        return {
            "description": framework.title,
            "props": [_prop("framework", framework.framework)],
            "links": [{"href": f"#{self.uuid('framework', framework.framework)}", "rel": "reference"}],
            "include-controls": [{"control-id": token} for token in tokens.values()],
            **_filled("exclude-controls", out),
        }

    def _component(self, place: str) -> Json:
        kind, _, name = place.partition(" ")
        return {
            "uuid": self.uuid("place", place),
            "type": "service" if kind == "broker" else "hardware",
            "title": _line(f"{kind} {name or '(no name)'}"),
            "description": f"A {kind} that was observed or is named by findings.",
            "status": {"state": "operational"},
        }

    def _origins(self) -> list[Json]:
        return [{"actors": [{"type": "tool", "actor-uuid": self._tool}]}]

    def _observed(self, finding: ReportFinding) -> Json:
        """Return a finding of ours as an observation."""
        props = [
            _prop("fingerprint", finding.fingerprint),
            _prop("code", finding.code),
            _prop("name", finding.name),
            _prop("severity", finding.severity),
            _prop("certainty", finding.certainty),
            _prop("count", str(finding.count)),
            _prop("first-seen", wording.timestamp(finding.first_ns, 9)),
            _prop("last-seen", wording.timestamp(finding.last_ns, 9)),
            _prop("compares", finding.difference),
            _prop("state", "open" if finding.accepted is None else "accepted"),
        ]
        evidence: Json = {
            "href": f"#{self._evidence}",
            "description": f"{wording.counted(finding.count, 'occurrence')}; for all that is known: `topicwarden "
            f"findings DIR show {_TOKEN.sub('', finding.fingerprint)}`",
            **_filled(
                "props",
                [_prop("witness", name, remarks=f"seen {wording.times(count)}") for name, count in finding.witnesses],
            ),
        }
        return {
            "uuid": self.uuid("observation", finding.fingerprint),
            "title": _line(f"{finding.code} {finding.name}"),
            "description": f"{_line(finding.title)}\n\n{_markdown(finding.meaning)}",
            "props": props,
            "methods": ["EXAMINE"],
            "types": ["finding"],
            "origins": self._origins(),
            "subjects": [{"subject-uuid": self.uuid("place", _place(finding)), "type": "component"}],
            "relevant-evidence": [evidence],
            "collected": wording.timestamp(finding.last_ns, 9),
            **({"remarks": _bulleted("What it cannot see:", finding.limits)} if finding.limits else {}),
        }

    def _not_assessed(self, one: ControlResult) -> Json:
        return {
            "uuid": self.uuid("not assessed", one.framework, one.control, str(self._coverage.to_ns)),
            "title": _line(f"{one.framework_title} {one.control} was not assessed"),
            "description": f"Not assessed: {_markdown(one.reason)}.",
            "props": [
                _prop("framework", one.framework),
                _prop("control", one.control),
                _prop("control-id", control_token(one.framework, one.control)),
                _prop("status", "not-assessed"),
            ],
            "methods": ["EXAMINE"],
            "types": ["control-objective"],
            "origins": self._origins(),
            "collected": wording.timestamp(self._coverage.to_ns, 9),
            "remarks": _bulleted(f"What would be assessed: {_markdown(one.assesses)}", one.evidence),
        }

    def _covered(self) -> Json:
        """Return what was observed and what not: what all else rests on."""
        coverage = self._coverage
        seen = [f"{wording.counted(count, 'event')} of broker {broker}" for broker, count in coverage.events.items()]
        seen += [f"grants of broker {broker}" for broker in sorted(coverage.grants)]
        seen += [f"telemetry of host {host}" for host in sorted(coverage.hosts)]
        unseen = [gap_words(gap) for gap in coverage.gaps]
        unseen += [f"{spot.source}: {spot.what}" for spot in coverage.blind_spots]
        return {
            "uuid": self.uuid("coverage", str(coverage.from_ns), str(coverage.to_ns)),
            "title": "What was observed, and what could not be",
            "description": _bulleted("Observed:", seen or ["nothing"]),
            "props": [
                _prop("gaps", str(len(coverage.gaps))),
                *self._gap_props(),
                _prop("blind-spots", str(len(coverage.blind_spots))),
                _prop("policy", "given" if coverage.policy else "none"),
            ],
            "methods": ["EXAMINE"],
            "types": ["control-objective"],
            "origins": self._origins(),
            **_filled("subjects", [{"subject-uuid": self.uuid("place", p), "type": "component"} for p in self._places]),
            "relevant-evidence": [{"href": f"#{self._evidence}", "description": "The evidence."}],
            "collected": wording.timestamp(coverage.to_ns, 9),
            "remarks": _bulleted("Not seen:", unseen or ["no gap and no blind spot is known"]),
        }

    def _gap_props(self) -> list[Json]:
        """Return how much of the period was not seen, and how much of that is allowed; none: all was seen."""
        coverage = self._coverage
        if not coverage.gaps:
            return []
        return [
            _prop("seconds-not-seen", _seconds(coverage.missing_ns), remarks="Evidence is missing so long."),
            _prop("seconds-allowed", _seconds(coverage.allowed_gap_ns), remarks="So long it may be for satisfied."),
        ]

    def _risk(self, finding: ReportFinding) -> Json:
        facets = [{"name": "severity", "system": NAMESPACE, "value": finding.severity}]
        facets.append({"name": "certainty", "system": NAMESPACE, "value": finding.certainty})
        risk: Json = {
            "uuid": self.uuid("risk", finding.fingerprint),
            "title": _line(finding.title),
            "description": _markdown(finding.meaning) or "See its observation.",
            "statement": _markdown(finding.why) or "See its observation.",
            "props": [_prop("fingerprint", finding.fingerprint), _prop("code", finding.code)],
            "status": "open" if finding.accepted is None else "deviation-approved",
            "origins": self._origins(),
            **_filled("threat-ids", [_threat(number) for number in finding.attack]),
            "characterizations": [{"origin": self._origins()[0], "facets": facets}],
            "related-observations": [{"observation-uuid": self.uuid("observation", finding.fingerprint)}],
        }
        if finding.accepted is not None:
            risk["mitigating-factors"] = [
                {
                    "uuid": self.uuid("accepted", finding.fingerprint),
                    "description": f"Accepted by an exception of the policy: {_markdown(finding.accepted)}",
                }
            ]
            until = _UNTIL.search(finding.accepted)
            if until is not None:
                risk["deadline"] = f"{until[1]}T23:59:59Z"
        elif finding.fix:
            risk["remediations"] = [
                {
                    "uuid": self.uuid("fix", finding.fingerprint),
                    "lifecycle": _LIFECYCLE,
                    "title": _line(f"What helps against {finding.code}"),
                    "description": _markdown(finding.fix),
                }
            ]
        return risk

    def _finding(self, one: ControlResult) -> Json:
        """Return an assessed control as an OSCAL finding."""
        token = control_token(one.framework, one.control)
        linked = [fingerprint for fingerprint in one.findings if fingerprint in self._known]
        state, reason = ("satisfied", "pass") if one.status == "satisfied" else ("not-satisfied", "fail")
        related = [self.uuid("coverage", str(self._coverage.from_ns), str(self._coverage.to_ns))]
        related += [self.uuid("observation", fingerprint) for fingerprint in linked]
        risky = {finding.fingerprint for finding in self._findings if _is_risk(finding)}
        return {
            "uuid": self.uuid("finding", one.framework, one.control, str(self._coverage.to_ns)),
            "title": _line(f"{one.framework_title} {one.control} {one.title}: {one.status}"),
            "description": _markdown(one.reason),
            "props": [
                _prop("framework", one.framework),
                _prop("control", one.control),
                _prop("aspect", one.assesses, remarks="Only this aspect of the control was assessed."),
                *self._gap_props(),
            ],
            "origins": self._origins(),
            "target": {
                "type": "statement-id",
                "target-id": f"{token}_smt",
                "title": _line(f"{one.control} {one.title}"),
                "status": {"state": state, "reason": reason},
            },
            "related-observations": [{"observation-uuid": uuid} for uuid in related],
            **_filled("related-risks", [{"risk-uuid": self.uuid("risk", f)} for f in linked if f in risky]),
            **({"remarks": _bulleted("Evidence:", one.evidence)} if one.evidence else {}),
        }


def _is_risk(finding: ReportFinding) -> bool:
    return finding.accepted is not None or finding.severity != "info"


def _seconds(length_ns: int) -> str:
    return f"{length_ns / 1e9:.3f}"


def _place(finding: ReportFinding) -> str:
    return f"broker {finding.broker}" if finding.host is None else f"host {finding.host}"


def _threat(number: str) -> Json:
    name = technique(number)
    return {"system": ATTACK, "id": name.url, "href": name.url}


def _prop(name: str, value: str, *, remarks: str | None = None, ours: bool = True) -> Json:
    """Return a property; its value is no Markdown, but one line without spaces at its ends."""
    shown = " ".join(visible(value).split())[:_MAX_TEXT].strip() or "(empty)"
    space = {"ns": NAMESPACE} if ours else {}
    return {"name": name, **space, "value": shown, **({"remarks": remarks} if remarks else {})}


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is, on one line: no link, image, insertion or HTML comes of a name."""
    # What was made fit for people already is not escaped once more.
    shown = text if text.isprintable() else visible(text)
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(shown.split())[:_MAX_TEXT])


def _line(text: str) -> str:
    return _markdown(text) or "\\(empty\\)"


def _bulleted(head: str, lines: Iterable[str]) -> str:
    return "\n".join([head, "", *(f"- {_markdown(line)}" for line in lines)])


def _filled(key: str, items: list[Json]) -> Mapping[str, list[Json]]:
    """Return the key only where there is something: OSCAL has no empty arrays."""
    return {key: items} if items else {}
