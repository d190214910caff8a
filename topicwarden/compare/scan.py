"""One broker's grants against a policy and against what was observed: everything that is found, into a ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.compare.acceptance import Acceptance
from topicwarden.compare.grants import Excess, Missing, excess, indirect, missing
from topicwarden.compare.intent import Intent, Intentions, Unions
from topicwarden.compare.principals import Principal, principals
from topicwarden.compare.recorder import Recorder
from topicwarden.compare.redundancy import useless
from topicwarden.compare.replacement import Replacements
from topicwarden.compare.told import right_words
from topicwarden.compare.usage import Usage, usage
from topicwarden.compare.without_policy import report_dangers, report_faults, report_unused, report_useless
from topicwarden.events import Action, Certainty, Client
from topicwarden.events.observed import Observed
from topicwarden.findings import Finding, Ledger, Scalar
from topicwarden.grants import Grants, Origin, Path
from topicwarden.patterns import Undecided, Witness
from topicwarden.policy import Policy, Space

MOST_WITNESSES: Final = 8
"""Permissions of a role that are named when a client lacks them; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Question:
    """A witness that a running broker can be asked about."""

    finding: Finding
    client: Client
    action: Action
    space: Space
    name: str
    expected: bool
    """Whether the finding says that the broker allows it."""
    real_id: bool = False
    """Whether to ask as this client would cut off the one that has its client id."""


@dataclass(slots=True)
class Scanned:
    """What was looked at, for the summary."""

    title: str
    broker: str
    grants: int = 0
    accounts: int = 0
    classes: int = 0
    """Classes of clients that were judged one by one."""
    undecided: int = 0
    """Questions that could not be answered."""
    usage: Usage | None = None


class Scan:
    """Scans grants into a ledger. No clock: `now_ns` is when."""

    def __init__(self, ledger: Ledger, policy: Policy | None, now_ns: int) -> None:
        self._ledger = ledger
        self._policy = policy
        self._now = now_ns
        self._known_undecided: set[Origin] = set()
        self._written: frozenset[Origin] = frozenset()
        self._families: frozenset[str] = frozenset()
        """Kinds of names that the broker has; none: not known."""
        self._accused: set[Origin] = set()
        """Grants that TW101 has told of."""
        self.questions: list[Question] = []
        """Witnesses for `--witness-check`, in the order found."""

    def run(
        self, grants: Grants, observed: Observed | None = None, progress: Callable[[str], None] = lambda _: None
    ) -> Scanned:
        """Scan one broker's grants; `progress` is told in words what is being done."""
        unions = Unions()
        progress("working out who may do what")
        classes = list(principals(grants, self._policy))
        scanned = Scanned(
            grants.title, grants.broker, len(grants.origins), sum(1 + len(one.alike) for one in classes), len(classes)
        )
        self._accused = set()
        # What the reader says of a grant is said once.
        self._known_undecided = {fault.origin for fault in grants.faults if fault.code == "TW114"}
        self._written = frozenset(grants.origins)
        self._intentions = Intentions(self._policy, grants)
        self._replacements = Replacements(grants, classes, self._intent_of)
        self._families = _families(classes)
        acceptance = Acceptance(self._policy, self._now, grants, self._ledger.catalogue)
        recorder = Recorder(self._ledger, grants, acceptance, self._now)
        for number, principal in enumerate(classes, 1):
            progress(f"comparing {number} of {len(classes)} classes of clients")
            self._compare(grants, principal, recorder, unions, scanned)
        report_faults(recorder, grants, classes, self._accused)
        if self._policy is not None:
            self._nobody(grants, self._policy, recorder.acceptance)
        else:
            progress("looking for dangerous grants")
            report_dangers(recorder, grants, classes, unions)
        progress("looking for grants that decide nothing")
        for one in useless(classes, unions):
            if one.origin in self._written:  # what the broker itself refuses is nobody's grant
                report_useless(recorder, one)
        if observed is not None:
            progress("comparing with what was observed")
            scanned.usage = usage(grants, observed, [one.rights for one in classes])
            report_unused(recorder, grants, scanned.usage, observed)
        recorder.acceptance.report_expired(self._ledger)
        return scanned

    # Granted and intended -----------------------------------------------------------------------------------------

    def _compare(
        self, grants: Grants, principal: Principal, recorder: Recorder, unions: Unions, scanned: Scanned
    ) -> None:
        client = principal.client
        intent = self._intent_of(principal)
        paths = grants.paths(client)
        if self._policy is None:
            for path, answer in indirect(principal, paths, intent, unions):
                if isinstance(answer, Witness):
                    reason = f"it reaches {right_words(path.action, path.space, answer.topic)} by way of {path.how}"
                    recorder.of_class(
                        "TW112", principal, path.origin, {"reason": reason}, accepted=None, certainty=path.certainty
                    )
            return
        acceptance = recorder.acceptance
        found: dict[Origin, list[Excess]] = {}
        for one in excess(principal, intent, unions):
            found.setdefault(one.rule.origin, []).append(one)
        ways: dict[Origin, list[tuple[Path, str]]] = {}
        for path, answer in indirect(principal, paths, intent, unions):
            if isinstance(answer, Undecided):
                self._undecided(recorder, principal, path.origin, answer.reason, scanned)
            else:
                ways.setdefault(path.origin, []).append((path, answer.topic))
        for origin, ones in found.items():
            self._excess(recorder, principal, intent, origin, ones, unions, scanned, ways.get(origin, ()))
        for origin, listed in ways.items():
            if origin in self._accused:
                continue  # to narrow the grant closes the way: TW101 says so
            for path, name in listed:
                recorder.of_class(
                    "TW104",
                    principal,
                    path.origin,
                    {"how": path.how},
                    witnesses=[right_words(path.action, path.space, name)],
                    certainty=path.certainty,
                    accepted=acceptance.of_names("TW104", principal, path.origin, path.space, path.names, unions),
                    more_scope=(path.how,),
                )
        gaps: dict[str, list[Missing]] = {}
        for gap in missing(principal, intent, unions, self._written):
            if self._families and gap.intended.carried.space.family not in self._families:
                continue  # this broker has no such names: the permission is for another one
            gaps.setdefault(gap.intended.role, []).append(gap)
        for role, lacking in gaps.items():
            self._missing(grants, principal, role, lacking, recorder, scanned)

    def _intent_of(self, principal: Principal) -> Intent:
        return self._intentions.of(principal.roles, principal.client.user, principal.client.client_id)

    def _excess(
        self,
        recorder: Recorder,
        principal: Principal,
        intent: Intent,
        origin: Origin,
        ones: Sequence[Excess],
        unions: Unions,
        scanned: Scanned,
        ways: Sequence[tuple[Path, str]],
    ) -> None:
        """Report a grant's excess once, with a witness for each action; `ways`: what it lets a client reach besides."""
        certain: list[tuple[Excess, str]] = []
        for one in ones:
            if isinstance(one.answer, Undecided):
                self._undecided(recorder, principal, origin, one.answer.reason, scanned)
            else:
                certain.append((one, one.answer.topic))
        apart = [(one, name) for one, name in certain if one.inseparable]
        if apart:
            recorder.of_class(
                "TW109",
                principal,
                origin,
                {},
                witnesses=[right_words(one.action, one.space, name) for one, name in apart],
                certainty=min(one.rule.certainty for one, _ in apart),
                accepted=recorder.acceptance.of_class("TW109", principal, origin),
            )
        certain = [(one, name) for one, name in certain if not one.inseparable]
        if not certain:
            return
        accepted = None
        reasons = [
            recorder.acceptance.of_names(
                "TW101", principal, origin, one.space, one.rule.names, unions, intent, one.action
            )
            for one, _ in certain
        ]
        if all(reason is not None for reason in reasons):
            accepted = reasons[0]
        evidence: dict[str, Scalar] = {"instead": self._replacements.of(principal, intent, origin)}
        if ways:
            path, name = ways[0]
            evidence["indirect"] = f"{right_words(path.action, path.space, name)} by way of {path.how}"
            evidence["indirect_ways"] = len(ways)
        if accepted is None:
            self._accused.add(origin)
        finding = recorder.of_class(
            "TW101",
            principal,
            origin,
            evidence,
            witnesses=[right_words(one.action, one.space, name) for one, name in certain],
            certainty=min(one.rule.certainty for one, _ in certain),
            accepted=accepted,
        )
        if finding is not None:
            # Of several rules of one grant, the first says what a client can ask for in so many words.
            first: dict[tuple[Action, Space], str] = {}
            for one, name in certain:
                first.setdefault((one.action, one.space), name)
            self.questions += [
                Question(finding, principal.client, action, space, name, True, principal.real_id)
                for (action, space), name in first.items()
            ]

    def _missing(
        self,
        grants: Grants,
        principal: Principal,
        role: str,
        gaps: Sequence[Missing],
        recorder: Recorder,
        scanned: Scanned,
    ) -> None:
        """Report once what a client lacks of a role, with a witness for each of the first permissions."""
        certain: list[tuple[Missing, str]] = []
        for gap in gaps:
            if not isinstance(gap.answer, Undecided):
                certain.append((gap, gap.answer.topic))
                continue
            scanned.undecided += 1
            if gap.rule is not None:
                self._undecided(recorder, principal, gap.rule.origin, gap.answer.reason, scanned)
        if not certain:
            return
        rules = [gap.rule for gap, _ in certain if gap.rule is not None]
        source = grants.origins[0].source if grants.origins else grants.title
        origin = rules[0].origin if rules else Origin(source, None, "(no grant allows it)")
        finding = recorder.of_class(
            "TW103",
            principal,
            origin,
            {
                "role": role,
                "permissions": len(certain),
                "permission": "; ".join(gap.intended.place.label for gap, _ in certain[:MOST_WITNESSES]),
            },
            witnesses=[right_words(gap.intended.action, gap.space, name) for gap, name in certain[:MOST_WITNESSES]],
            certainty=min((rule.certainty for rule in rules), default=Certainty.EXACT),
            accepted=recorder.acceptance.of_class("TW103", principal, origin),
            more_scope=(role,),
        )
        if finding is not None:
            self.questions += [
                Question(finding, principal.client, gap.intended.action, gap.space, name, False, principal.real_id)
                for gap, name in certain[:MOST_WITNESSES]
            ]

    def _nobody(self, grants: Grants, policy: Policy, acceptance: Acceptance) -> None:
        """Report users that roles name and the broker does not know."""
        if not grants.closed:
            return
        users = {account.user for account in grants.accounts}
        vhosts = {account.vhost for account in grants.accounts if account.vhost is not None}
        source = grants.origins[0].source if grants.origins else grants.title
        for name, role in policy.roles.items():
            places = [
                grants.carried(place)
                for action in (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)
                for place in role.places(action)
            ]
            if not any(place.space.family in self._families for place in places):
                continue  # nothing for this broker
            for member in role.members:
                if member.vhost is not None and not any(map(member.vhost.matches, vhosts)):
                    continue
                user = None if member.user is None else str(member.user)
                if user is None or {"*", "?"} & set(user) or user in users:
                    continue
                if member.broker is not None and not member.broker.matches(grants.broker):
                    continue
                client = Client(grants.broker, grants.accounts[0].protocol if grants.accounts else "mqtt", "", user)
                self._ledger.record(
                    "TW103",
                    broker=grants.broker,
                    client=client,
                    scope=(name, "no account"),
                    first_ns=self._now,
                    last_ns=self._now,
                    witnesses={"connect: the broker has no such account": 1},
                    evidence={"role": name, "where_file": source},
                    accepted=acceptance.of_user("TW103", client),
                )

    def _undecided(
        self, recorder: Recorder, principal: Principal, origin: Origin, reason: str, scanned: Scanned
    ) -> None:
        scanned.undecided += 1
        if origin not in self._known_undecided:
            recorder.of_class(
                "TW114",
                principal,
                origin,
                {"reason": reason},
                accepted=recorder.acceptance.of_grant("TW114", origin, [principal.client]),
                certainty=Certainty.UNKNOWN,
            )


def _families(classes: Sequence[Principal]) -> frozenset[str]:
    """Return which kinds of names a broker decides about; a policy may be for several brokers of different kinds."""
    found = {space.family for principal in classes for _, space in principal.rights.by}
    return frozenset(found if found <= {"topic"} else {"key", "queue", "exchange"})
