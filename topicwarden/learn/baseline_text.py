"""The baseline as the text of its file: sorted, with what speaks for each entry, safe whatever the names hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from topicwarden.learn.baseline import BaselineDraft, BrokerDraft, HostItem, LevelDraft, ToolDraft, TopicDraft
from topicwarden.learn.review import Reason, timestamp
from topicwarden.learn.yaml_text import Provenance, comment, counted, number, quoted
from topicwarden.policy import Place

LATEST_NS: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) * 1_000_000_000


def baseline_text(draft: BaselineDraft, provenance: Provenance) -> str:
    """Return the baseline file. The same draft and provenance give the same text."""
    since, until = (min(ns, LATEST_NS) for ns in (draft.first_ns, draft.last_ns))
    lines = [
        *_header(draft, provenance),
        "topicwarden_baseline: 1",
        "learnt:",
        f"  since: {timestamp(since)}",
        f"  until: {timestamp(until)}",
        f"  events: {draft.events}",
        f"  covered: {draft.covered:g} # share of the publishes whose names are among topics",
    ]
    for key, entries in (
        ("brokers", map(_broker, draft.brokers)),
        ("tools", map(_tool, draft.tools)),
        ("topics", (_topic(topic, draft) for topic in draft.topics)),
        ("rates", (_rate(topic) for topic in draft.topics if topic.peak > 0)),
    ):
        rows = list(entries)
        if rows:
            lines += ["", f"{key}:", *rows]
    return "\n".join(lines) + "\n"


def host_document(item: HostItem) -> dict[str, Any]:
    """Return a broker or tool that is left out as the object of one line of the review list."""
    return {
        "reason": "few-days",
        "why": item.why,
        item.kind: item.label,
        "hosts": item.hosts,
        "examples": list(item.examples),
        "events": item.span.count,
        "days": len(item.span.days),
        "first_seen": timestamp(item.span.first_ns),
        "last_seen": timestamp(item.span.last_ns),
    }


def _header(draft: BaselineDraft, provenance: Provenance) -> Iterator[str]:
    left = sum(item.events for item in draft.review if item.reason is not Reason.UNVERIFIED)
    entries = len(draft.review) + len(draft.left_out)
    yield f"# What is usual, learnt by topicwarden {provenance.version}: read it before use, see docs/baseline.md"
    yield f"# command:  {comment(provenance.command)}"
    for source in provenance.sources:
        yield f"# source:   {comment(source)}"
    hosts = f"; {counted(draft.host_events, 'event')} of hosts" if draft.host_events else ""
    yield f"# events:   {number(draft.events)} publishes by {counted(draft.accounts, 'account')}{hosts}"
    yield f"# usual is: what {counted(draft.support, 'user')} did, or fewer on {counted(draft.min_days, 'day')}"
    yield f"# left out: {number(left)} publishes in {number(entries)} entries of {comment(provenance.review)}"
    if draft.overflow:
        yield f"# NOT READ: {number(draft.overflow)} events, for which there was no room"


def _flow(parts: Mapping[str, str | None]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in parts.items() if value is not None) + "}"


def _names(names: Sequence[str]) -> str | None:
    return "[" + ", ".join(map(quoted, names)) + "]" if names else None


def _broker(broker: BrokerDraft) -> str:
    told = f"{counted(broker.all_hosts, 'host')}, {counted(broker.connections, 'connection')}"
    told += f", {counted(broker.days, 'day')}"
    ports = "[" + ", ".join(map(str, broker.ports)) + "]"
    return f"  - {_flow({'address': quoted(broker.address), 'ports': ports, 'hosts': _names(broker.hosts)})} # {told}"


def _tool(tool: ToolDraft) -> str:
    parts = {
        "host": quoted(tool.host),
        "process": quoted(tool.process),
        "users": _names(tool.users),
        "parents": _names(tool.parents),
        "does": _names(tool.does),
    }
    return f"  - {_flow(parts)} # {counted(tool.runs, 'time')} on {counted(tool.days, 'day')}"


def _where(place: Place) -> dict[str, str | None]:
    if place.space.family == "topic":
        return {"topic": quoted(place.pattern)}
    return {"exchange": quoted(place.space.within), "key": quoted(place.pattern)}


def _topic(topic: TopicDraft, draft: BaselineDraft) -> str:
    entropy = topic.entropy
    parts = {
        **_where(topic.place),
        "levels": "[" + ", ".join(map(_level, topic.levels)) + "]" if topic.levels else None,
        "size": None if topic.size is None else f"{{low: {topic.size[0]}, high: {topic.size[1]}}}",
        "shapes": _names(topic.shapes),
        "entropy": None if entropy is None else f"{{low: {entropy[0]:g}, high: {entropy[1]:g}}}",
    }
    told = f"{counted(topic.users, 'user')}, {counted(topic.events, 'event')}, {counted(topic.days, 'day')}"
    told += f", last {timestamp(min(topic.last_ns, LATEST_NS))[:10]}"
    if topic.size is not None and topic.largest > topic.size[1]:
        told += f"; few sent up to {number(topic.largest)} bytes"
    if topic.users < draft.support:
        told += "; FEW USERS, here for the days"
    return f"  - {_flow(parts)} # {told}"


def _level(level: LevelDraft) -> str:
    length = f"{{low: {level.shortest}, high: {level.longest}}}"
    return _flow({"shapes": _names(level.shapes), "length": length})


def _rate(topic: TopicDraft) -> str:
    typical = f"{max(topic.typical, 0.001):.3g}"
    told = f"; few had up to {topic.fastest:g}" if topic.fastest > topic.peak else ""
    parts = {**_where(topic.place), "typical": typical, "peak": f"{topic.peak:.10g}"}
    return f"  - {_flow(parts)} # per client, a second{told}"
