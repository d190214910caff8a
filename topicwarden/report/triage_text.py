"""Stored findings as lines for a person: a list to go through, and one with everything that is known of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from topicwarden.findings import Catalogue, Severity
from topicwarden.output import wording
from topicwarden.output.escape import quoted, visible
from topicwarden.output.layout import columns, wrap
from topicwarden.output.text import SEVERITY_STYLE, explain
from topicwarden.report.findings import as_it_was
from topicwarden.report.triage import UNKNOWN, Standing

SHORT: Final = 12
"""Digits of a fingerprint in a list; any beginning that is one finding's names it."""
_INDENT: Final = " " * 10
_LABEL: Final = 11
_LONGEST: Final = 400


def brief_lines(standing: Standing, width: int | None, policy_says: str | None = None) -> list[Text]:
    """Return a finding in a list; `policy_says`: what a policy of today says about it."""
    document = standing.document
    lines = wrap(_heading(standing, document["fingerprint"][:SHORT]), width, rest=_INDENT)
    lines += wrap(Text(shown_title(document)), width, _INDENT, _INDENT)
    facts = [*_who(document), _place(document), wording.times(document["count"])]
    if standing.runs > 1:
        facts[-1] += f" in the newest of {wording.number(standing.runs)} runs"
    facts.append(f"{_seconds(standing.first_seen)} to {_seconds(standing.last_seen)}")
    facts.append(visible(document["certainty"]))
    if standing.gone is not None:
        facts.append(_not_found(standing.gone))
    if document["accepted"] is not None:
        facts.append(f"accepted: {visible(as_it_was(document['accepted']))}")
    if policy_says is not None:
        facts.append(policy_says)
    return lines + wrap(Text(", ".join(facts), "dim"), width, _INDENT, _INDENT)


def full_lines(standing: Standing, catalogue: Catalogue, width: int | None, policy_says: str | None) -> list[Text]:
    """Return everything that is known of a finding, and what its code means."""
    document = standing.document
    lines = [_heading(standing, document["fingerprint"])]
    lines += wrap(Text(shown_title(document)), width, "  ", "  ")
    for label, values in _sections(standing, policy_says):
        for number, value in enumerate(values):
            first = label.ljust(_LABEL) if number == 0 else " " * _LABEL
            lines += wrap(value, width, f"  {first}", "  " + " " * _LABEL)
    known = catalogue.get(document["code"])
    lines.append(Text())
    if known is None:
        code = visible(document["code"])
        lines += wrap(Text(f"This version does not know {code}; it was told by another one."), width)
        return lines
    return lines + explain(known, width)


def shown_title(document: Mapping[str, Any]) -> str:
    """Return a finding's title: it was made fit for people when it was told, unless somebody changed the store."""
    title: str = document["title"]
    return title if title.isprintable() else visible(title)


def _heading(standing: Standing, fingerprint: str) -> Text:
    document = standing.document
    severity = Severity[document["severity"].upper()]
    state = "accepted" if document["accepted"] is not None else "open"
    if standing.gone is not None:
        state = "gone"
    return Text.assemble(
        (severity.name.ljust(len(_INDENT)), SEVERITY_STYLE[severity]),
        (visible(document["code"]), "bold"),
        f" {visible(document['name'])}  ",
        (fingerprint, "bold"),
        f"  {state}",
    )


def _sections(standing: Standing, policy_says: str | None) -> Iterator[tuple[str, list[Text]]]:
    document = standing.document
    if document["accepted"] is not None:
        yield "accepted", [Text(f"by an exception of the policy: {visible(as_it_was(document['accepted']))}")]
    if policy_says is not None:
        yield "policy", [Text(policy_says)]
    yield "where", [Text(", ".join([*_who(document), _place(document)]))]
    rows = [
        [Text(wording.times(witness["count"])), Text(quoted(as_it_was(witness["name"]), _LONGEST), "cyan")]
        for witness in document["witnesses"]
    ]
    if rows:
        values = columns(rows, right=[0])
        if document["more_witnesses"]:
            values.append(Text(f"and {wording.times(document['more_witnesses'])} on other names, which were not kept"))
        yield "what", values
    evidence = [
        Text(f"{visible(as_it_was(key).replace('_', ' '))}: {_fact(value)}")
        for key, value in document["evidence"].items()
    ]
    if evidence:
        yield "evidence", evidence
    behind = [Text(line) for row in document["behind"] for line in _behind(row)]
    if behind:
        if document["more_behind"]:
            behind.append(Text(f"and {wording.counted(document['more_behind'], 'further command')}, not kept"))
        yield "behind", behind
    yield "when", [Text(f"{standing.first_seen} to {standing.last_seen}")]
    often = wording.times(document["count"])
    if standing.gone is not None:
        yield "gone", [Text(_not_found(standing.gone))]
    yield "count", [Text(often if standing.runs < 2 else f"{often} in the newest of {standing.runs} runs")]
    yield "certainty", [Text(visible(document["certainty"]))]


def _not_found(gone: str) -> str:
    """Return that the newest scan did not find it; `UNKNOWN` is no time."""
    return f"not found any more by {'a newer scan' if gone == UNKNOWN else f'the scan of {_seconds(gone)}'}"


def _who(document: Mapping[str, Any]) -> list[str]:
    client = document["client"]
    if client is None:
        return []
    facts = []
    if client["user"] is not None:
        facts.append(f"user {quoted(as_it_was(client['user']), _LONGEST)} ({visible(client['identity'])})")
    if client["client_id"]:
        facts.append(f"client id {quoted(as_it_was(client['client_id']), _LONGEST)}")
    if client["address"] is not None:
        facts.append(f"from {quoted(as_it_was(client['address']), _LONGEST)}")
    if client["vhost"] is not None:
        facts.append(f"virtual host {quoted(as_it_was(client['vhost']), _LONGEST)}")
    return facts


def _place(document: Mapping[str, Any]) -> str:
    if document["host"] is not None:
        return f"host {quoted(as_it_was(document['host']), _LONGEST)}"
    return f"broker {quoted(as_it_was(document['broker']), _LONGEST)}"


def _behind(row: Mapping[str, Any]) -> Iterator[str]:
    words = [as_it_was(str(word)) for word in row["arguments"]] or [as_it_was(row["executable"] or "")]
    yield " ".join(quoted(word, _LONGEST) for word in words if word) or "(command line not known)"
    user = "user not known" if row["user"] is None else f"user {quoted(as_it_was(row['user']), _LONGEST)}"
    facts = [user, f"host {quoted(as_it_was(row['host']), _LONGEST)}"]
    facts += [visible(as_it_was(str(row[key]))) for key in ("sureness", "reason") if row.get(key)]
    yield "  " + ", ".join(facts)


def _fact(value: object) -> str:
    if isinstance(value, str):
        return quoted(as_it_was(value), _LONGEST)
    return wording.scalar(value) if isinstance(value, int | float) else visible(str(value))


def _seconds(timestamp: str) -> str:
    return f"{timestamp[:19]}Z"
