"""Runs the catalogue's rules about hosts: events of hosts in, in time order, what they add up to out.

Pure: no I/O, and no time but that of the events. What is found does not depend on how events are handed over; every
table is bounded, and what was let go is counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from topicwarden.engine.host_rules_groups import Groups, Reached, Rhythm, Scope
from topicwarden.engine.host_rules_query import ANY, MAYBE, NO, Query, RuleError, RuleList, Term
from topicwarden.engine.host_rules_sequences import Sequences
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Catalogue, Detection, Scalar
from topicwarden.hosts.ecs import EcsEvent

MAX_TEXT: Final = 1024
"""Characters of one piece of evidence."""
_ACTION: Final = ("event", "action")
_MAX_ACTIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Match:
    """Something a rule has found: `count` occurrences of one cause with one witness."""

    code: str
    scope: Scope
    """The group: what tells this cause from others of the same code; a field that is not known is ''."""
    evidence: Mapping[str, Scalar]
    """By the rule's `evidence`, as far as known; with `regular` also `interval` (seconds) and `deviation` (a share)."""
    witness: str | None
    first_ns: int
    last_ns: int
    count: int
    events: tuple[EcsEvent, ...]
    """Events behind it, the newest last: a sequence whole, of many events the first and the last few."""

    @property
    def host(self) -> str:
        """The host it is about."""
        return str(self.events[-1].get("host.name") or "")


@dataclass(frozen=True, slots=True)
class _Step:
    """A term of a rule, at its place among the rule's terms; None: what ends its sequences."""

    rule: _Rule
    term: Term
    position: int | None


class HostRules:
    """The rules about hosts of a catalogue, and what they remember."""

    def __init__(
        self,
        catalogue: Catalogue,
        lists: Mapping[str, RuleList],
        *,
        without: Collection[str] = (),
        prefilter: bool = True,
    ) -> None:
        """`lists`: what `${name}` stands for. `without`: which of a detection's `needs` are not there."""
        detections = [(t, t.detection) for t in catalogue.values() if t.detection is not None]
        missing = {t.code for t, detection in detections if set(detection.needs) & set(without)}
        self.not_asked = sorted(missing)
        """Codes of the rules that cannot be asked, for what they need is not there."""
        self._detections = [(t, detection) for t, detection in detections if t.code not in missing]
        self._lists = lists
        self._prefilter = prefilter
        self._rules: list[_Rule] | None = None
        self._steps: dict[tuple[str, str], tuple[_Step, ...]] = {}

    def compile(self) -> Sequence[_Rule]:
        """Compile the rules, once; the first event does so, too.

        Raises ConfigurationError naming every rule whose EQL cannot be run.
        """
        if self._rules is not None:
            return self._rules
        # Here, for the package behind it takes long to load, and most never watch a host.
        from topicwarden.engine.host_rules_eql import compile_query

        rules = []
        problems = []
        for finding_type, detection in self._detections:
            try:
                query = compile_query(detection.eql, self._lists)
            except RuleError as error:
                hint = "lists are in rules/hosts/lists.yaml" if "no list" in error.reason else None
                problems.append(Problem(f"{finding_type.code} ({finding_type.name}): {error}", hint=hint))
            else:
                rules.append(_Rule(finding_type.code, detection, query))
        if problems:
            raise ConfigurationError(*problems)
        self._rules = rules
        return rules

    @property
    def dropped(self) -> Mapping[str, int]:
        """Causes and sequences that were forgotten before their time, by the rule's code."""
        return {rule.code: dropped for rule in self._rules or () if (dropped := rule.dropped)}

    def step(self, event: EcsEvent) -> list[Match]:
        """Ask all rules about one event; events come in time order."""
        document = event.document
        action = document.get("event", {}).get("action", "")
        steps = self._steps.get((event.category, action))
        if steps is None:
            steps = self._steps_for(event.category, action)
        found: dict[int, tuple[_Rule, list[int], bool]] = {}
        for step in steps:
            term = step.term
            verdict = term.needs.verdict(document) if self._prefilter else MAYBE
            if verdict == NO or (verdict == MAYBE and not term.matches(event)):
                continue
            _, positions, _ = found.setdefault(id(step.rule), (step.rule, [], False))
            if step.position is None:
                found[id(step.rule)] = (step.rule, positions, True)
            else:
                positions.append(step.position)
        return [match for rule, positions, until in found.values() for match in rule.take(event, positions, until)]

    def _steps_for(self, category: str, action: object) -> tuple[_Step, ...]:
        """Return the terms that events of this class and action may match; in the order of the catalogue."""
        steps = []
        for rule in self.compile():
            for position, term in rule.terms:
                if term.category not in (ANY, category):
                    continue
                actions = term.needs.values.get(_ACTION) if self._prefilter else None
                if actions is None or not isinstance(action, str) or action.lower() in actions:
                    steps.append(_Step(rule, term, position))
        if isinstance(action, str) and len(self._steps) < _MAX_ACTIONS:
            self._steps[category, action] = tuple(steps)
        return tuple(steps)


class _Rule:
    """One rule, and what it remembers."""

    def __init__(self, code: str, detection: Detection, query: Query) -> None:
        self.code = code
        self.terms: list[tuple[int | None, Term]] = list(enumerate(query.terms))
        if query.until is not None:
            self.terms.append((None, query.until))
        self._detection = detection
        self._sequences = None if query.max_span_ns is None else Sequences(query)
        self._groups = Groups(detection)

    @property
    def dropped(self) -> int:
        return self._groups.dropped + (self._sequences.dropped if self._sequences else 0)

    def take(self, event: EcsEvent, positions: list[int], until: bool) -> Iterable[Match]:
        """Return what an event that matches these terms adds up to."""
        if self._sequences is None:
            return self._add(event, (event,))
        completed = self._sequences.step(event, positions, until=until)
        return [match for sequence in completed for match in self._add(event, sequence)]

    def _add(self, event: EcsEvent, behind: Iterable[EcsEvent]) -> list[Match]:
        detection = self._detection
        scope = tuple(_text(event.get(path)) or "" for path in detection.group)
        witness = None if detection.witness is None else _witness(event.get(detection.witness))
        reached = self._groups.add(scope, event, witness)
        if reached is None:
            return []
        # One event of a sequence is its last: all of them are behind it.
        events = tuple(behind) if len(reached.events) == 1 else reached.events
        return list(self._matches(scope, reached, events, event))

    def _matches(
        self, scope: Scope, reached: Reached, events: tuple[EcsEvent, ...], event: EcsEvent
    ) -> Iterable[Match]:
        evidence = _evidence(self._detection, event, reached.rhythm)
        by_witness: dict[str | None, list[int]] = {}
        for seen in reached.seen:
            by_witness.setdefault(seen.witness, []).append(seen.time_ns)
        for witness, times in by_witness.items():
            yield Match(self.code, scope, evidence, witness, min(times), max(times), len(times), events)


def _evidence(detection: Detection, event: EcsEvent, rhythm: Rhythm | None) -> Mapping[str, Scalar]:
    evidence: dict[str, Scalar] = {}
    for key, path in detection.evidence.items():
        value = event.get(path)
        if isinstance(value, int | float) and not isinstance(value, bool):
            evidence[key] = value
        elif (text := _text(value)) is not None:
            evidence[key] = text
    if rhythm is not None:
        evidence |= {"interval": round(rhythm.interval, 3), "deviation": round(rhythm.deviation, 3)}
    return evidence


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, dict):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text[:MAX_TEXT]


def _witness(value: Any) -> str | None:
    """Return a field as an example; of a list the first."""
    return _text(value[0] if isinstance(value, list) and value else value)
