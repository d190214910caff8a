"""What can be said of grants whatever was intended: what is wrong with them, dangerous, useless or unused."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from topicwarden.compare.dangers import dangers
from topicwarden.compare.intent import Unions
from topicwarden.compare.principals import Principal
from topicwarden.compare.recorder import Recorder
from topicwarden.compare.redundancy import Useless, Uselessness
from topicwarden.compare.told import alike_evidence
from topicwarden.compare.usage import Usage
from topicwarden.events import Certainty, Client
from topicwarden.events.observed import Observed
from topicwarden.findings import Scalar
from topicwarden.grants import Fault, Grants, Origin

DAY_NS: Final = 86_400 * 10**9
_CODES: Final[Mapping[Uselessness, str]] = {
    Uselessness.REDUNDANT: "TW106",
    Uselessness.CONTRADICTED: "TW107",
    Uselessness.IDLE: "TW105",
}


def report_faults(
    recorder: Recorder, grants: Grants, classes: Sequence[Principal], accused: Collection[Origin]
) -> None:
    """Report what the reader found wrong. `accused`: grants of which something graver is told."""
    holders: dict[Origin, list[Principal]] | None = None
    for fault in grants.faults:
        if fault.code == "TW112" and fault.origin in accused:
            continue  # it is accused of all that is too much, with what to write instead
        clients = [] if fault.client is None else [fault.client]
        evidence = fault.evidence
        if fault.code == "TW112" and clients:
            # What is dangerous is so in the hands of everybody who has it; the reader names one of them.
            if holders is None:
                holders = _holders(classes)
            others = _others(fault, holders.get(fault.origin, ()))
            clients += others
            evidence = {**evidence, **alike_evidence(others)}
        recorder.of_grant(
            fault.code,
            fault.origin,
            evidence,
            clients=clients,
            witness=fault.witness,
            certainty=Certainty.UNKNOWN if fault.code == "TW114" else Certainty.EXACT,
            more_scope=(str(fault.evidence.get("reason", "")),),
        )


def _holders(classes: Sequence[Principal]) -> dict[Origin, list[Principal]]:
    """Return which classes have each grant."""
    found: dict[Origin, list[Principal]] = {}
    for principal in classes:
        mine = {rule.origin: None for rules in principal.rights.by.values() for rule in rules.rules}
        for origin in mine:
            found.setdefault(origin, []).append(principal)
    return found


def _others(fault: Fault, holders: Sequence[Principal]) -> list[Client]:
    """Return the accounts but the one that a fault names that have the grant."""
    named = fault.client
    accounts = [one for holder in holders if holder.named for one in (holder.client, *holder.alike)]
    return [one for one in accounts if named is None or (one.user, one.vhost) != (named.user, named.vhost)]


def report_dangers(recorder: Recorder, grants: Grants, classes: Sequence[Principal], unions: Unions) -> None:
    """Report grants that are dangerous whatever was meant. Only without a policy: TW101 tells more."""
    told = {fault.origin for fault in grants.faults if fault.code == "TW112"}
    for danger in dangers(classes, unions):
        if danger.rule.origin in told:
            continue  # the reader, who knows the broker, has said so
        recorder.of_class(
            "TW112",
            danger.principal,
            danger.rule.origin,
            {"reason": danger.reason},
            accepted=None,
            certainty=danger.rule.certainty,
            more_scope=(danger.reason,),
        )


def report_useless(recorder: Recorder, one: Useless) -> None:
    """Report a grant that decides nothing for anybody."""
    evidence: dict[str, Scalar] = {}
    if one.why is Uselessness.IDLE:
        evidence["reason"] = "it denies what nothing allows"
    else:
        evidence["others"] = "; ".join(
            other.text if other.line is None else f"{other.text} (line {other.line})" for other in one.others
        )
    recorder.of_grant(_CODES[one.why], one.origin, evidence)


def report_unused(recorder: Recorder, grants: Grants, used: Usage, observed: Observed) -> None:
    """Report grants that nobody used in the period that was observed, and those of which little was used."""
    if used.first_ns is None or used.last_ns is None:
        return
    days = round((used.last_ns - used.first_ns) / DAY_NS, 2)
    period = _period(used.last_ns - used.first_ns)
    sure = not observed.lost and not observed.overflow and not used.unmatched
    denials = {fault.origin for fault in grants.faults if fault.code in ("TW105", "TW114")}
    for origin, use in used.uses.items():
        if origin in denials or not use.kinds:
            continue  # it allows nothing, or nobody can tell
        evidence: dict[str, Scalar] = {"period": period, "days": days}
        code = "TW102"
        if use.events:
            if use.admitted is None or use.admitted <= use.names:
                continue
            code = "TW108"
            evidence |= {
                "used_names": use.names,
                "admitted_names": use.admitted,
                "share": round(use.names / use.admitted, 4),
                "events": use.events,
                "users": use.users,
            }
        recorder.of_grant(
            code,
            origin,
            evidence,
            certainty=Certainty.EXACT if sure else Certainty.INFERRED,
            period=(used.first_ns, used.last_ns),
        )


def _period(ns: int) -> str:
    """Return how long was observed, in words: `12 days`, `3 hours`, `20 seconds`."""
    for unit, length in (("day", DAY_NS), ("hour", 3600 * 10**9), ("minute", 60 * 10**9), ("second", 10**9)):
        count = ns // length
        if count >= 2 or unit == "second":
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError  # seconds always do
