"""What verifying a store found, for people and for programs."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from topicwarden import __version__
from topicwarden.output import wording
from topicwarden.output.escape import visible
from topicwarden.output.jsonl import encode
from topicwarden.store.proof import Proof
from topicwarden.store.verify_model import Found, Verification

OWN_KEY = (
    "the key was taken from the store itself: this shows only that the store agrees with itself. Whoever could write "
    "here and had a key of his own could have made all of it. Give the key, and a checkpoint, that you kept elsewhere: "
    "--public-key, --checkpoint"
)
OWN_CHECKPOINT = (
    "no checkpoint from elsewhere was given: that the store was not rolled back to an earlier state, or written anew "
    "by the key's owner, is not shown. Keep copies of log/checkpoint elsewhere, and give one: --checkpoint"
)


def text_lines(report: Verification) -> Iterator[str]:
    """Yield what is printed; hostile text in it is escaped."""
    yield f"store {visible(report.store)}"
    yield f"key   {visible(str(report.verifier))}{' (the store says)' if report.own_key else ' (given)'}"
    signed = f"{wording.counted(report.checkpoints, 'checkpoint')} {'fits' if report.checkpoints == 1 else 'fit'}"
    if report.newest is not None:
        when = report.newest.time_ns
        signed += f", the newest over {report.newest.size}" + (f" at {wording.timestamp(when)}" if when else "")
    yield f"log   {_entries(report.entries)}, {wording.counted(report.segments, 'segment')}; {signed}"
    if report.outside:
        yield f"      continues {wording.counted(report.outside, 'checkpoint')} from elsewhere"
    if report.timestamps:
        yield f"      {wording.counted(report.timestamps, 'timestamp')} by an authority that was given"
    if report.untrusted_timestamps:
        count = wording.counted(report.untrusted_timestamps, "timestamp")
        yield f"      {count} fit; whose they are was not verified: --timestamp-root"
    until = "" if report.sealed_ns is None else f", sealed until {wording.timestamp(report.sealed_ns)}"
    yield f"rows  {wording.number(report.rows)} verified in {wording.counted(report.files, 'file')}{until}"
    if report.retired:
        yield f"      {wording.counted(report.retired, 'part')} deleted by retention, as the log says"
    if report.gaps:
        lost = f", {wording.number(report.lost)} rows known to be missing" if report.lost else ""
        yield f"      the log itself names {wording.counted(report.gaps, 'gap')}{lost}"
    if report.unsigned > 0:
        yield f"note: no checkpoint signs the newest {_entries(report.unsigned)} yet"
    for remark in report.remarks:
        yield f"note: {visible(remark)}"
    if report.own_key:
        yield f"note: {OWN_KEY}"
    elif not report.outside:
        yield f"note: {OWN_CHECKPOINT}"
    for found in report.found:
        yield f"{found.what.upper():<10}  {visible(found.place)}: {visible(found.message)}"
    if report.unnamed:
        yield f"and {wording.number(report.unnamed)} more"
    yield "intact" if report.intact else f"NOT intact: {wording.number(len(report.found) + report.unnamed)} found"


def _entries(count: int) -> str:
    return f"{wording.number(count)} {'entry' if count == 1 else 'entries'}"


def document(report: Verification) -> dict[str, Any]:
    """Return the same as a document."""
    newest = report.newest
    return {
        "type": "verification",
        "topicwarden": __version__,
        "store": report.store,
        "intact": report.intact,
        "public_key": str(report.verifier),
        "public_key_from": "store" if report.own_key else "given",
        "shows": _shows(report),
        "log": {
            "entries": report.entries,
            "segments": report.segments,
            "unsigned_entries": max(0, report.unsigned),
            "checkpoints": report.checkpoints,
            "checkpoints_from_elsewhere": report.outside,
            "timestamps": report.timestamps,
            "timestamps_of_whom_is_not_verified": report.untrusted_timestamps,
            "newest_checkpoint": None
            if newest is None
            else {"size": newest.size, "root_sha256": newest.root.hex(), "time": _time(newest.time_ns)},
        },
        "rows": report.rows,
        "files": report.files,
        "bytes": report.bytes,
        "newest_segment": report.sealed,
        "newest_segment_sealed": _time(report.sealed_ns),
        "retired_parts": report.retired,
        "gaps": report.gaps,
        "rows_lost": report.lost,
        "found": [_found(one) for one in report.found],
        "more_found": report.unnamed,
        "notes": report.remarks,
    }


def _shows(report: Verification) -> str:
    if report.own_key:
        return OWN_KEY
    return "" if report.outside else OWN_CHECKPOINT


def _time(time_ns: int | None) -> str | None:
    return None if time_ns is None else wording.timestamp(time_ns, 9)


def _found(one: Found) -> dict[str, Any]:
    fields = {
        "what": one.what.value,
        "place": one.place,
        "message": one.message,
        "segment": one.segment,
        "last_segment": one.last_segment,
        "first_row": one.first_row,
        "last_row": one.last_row,
        "log_entry": one.entry,
    }
    return {name: value for name, value in fields.items() if value is not None}


def proof_lines(proof: Proof) -> Iterator[str]:
    """Yield a proof in words, and all that is needed to try it with other tools."""
    yield f"segment {proof.entry.segment} is entry {proof.entry.index} of the log:"
    yield f"  {visible(proof.line.decode(errors='backslashreplace'))}"
    for part in proof.parts:
        what = f"{part.part.kind.value}{' of ' + visible(part.part.broker) if part.part.broker else ''}"
        where = visible(part.file) or "no file has them"
        fits = "their SHA-256 is the entry's" if part.holds else f"NOT THE ENTRY'S ROWS: {part.digest or 'unreadable'}"
        yield f"  {wording.counted(part.part.rows, 'row')} of {what}: {where}: {fits}"
    if proof.row is not None:
        yield f"event: {encode(proof.row)}"
    yield f"leaf hash: {proof.leaf.hex()}"
    yield f"inclusion proof (RFC 9162, 2.1.3) in the tree of {proof.checkpoint.size}:"
    yield from (f"  {node.hex()}" for node in proof.proof)
    yield f"root: {proof.checkpoint.root.hex()}"
    yield f"signed by {visible(str(proof.verifier))}{' (the store says)' if proof.own_key else ' (given)'}:"
    yield from (f"  {visible(line)}" for line in proof.note.decode(errors="backslashreplace").splitlines())
    if proof.own_key:
        yield f"note: {OWN_KEY}"
    if not proof.included:
        yield "the proof DOES NOT lead to this root: the log was changed"
    yield "proved" if proof.holds else "NOT proved"


def proof_document(proof: Proof) -> dict[str, Any]:
    """Return a proof as a document."""
    return {
        "type": "inclusion",
        "topicwarden": __version__,
        "proved": proof.holds,
        "segment": proof.entry.segment,
        "log_entry": proof.entry.index,
        "line": proof.line.decode(errors="backslashreplace"),
        "leaf_sha256": proof.leaf.hex(),
        "inclusion_proof": [base64.b64encode(node).decode() for node in proof.proof],
        "tree_size": proof.checkpoint.size,
        "root": base64.b64encode(proof.checkpoint.root).decode(),
        "included": proof.included,
        "checkpoint": proof.note.decode(errors="backslashreplace"),
        "public_key": str(proof.verifier),
        "public_key_from": "store" if proof.own_key else "given",
        "parts": [
            {
                "kind": part.part.kind.value,
                "broker": part.part.broker,
                "rows": part.part.rows,
                "file": part.file,
                "sha256": part.digest,
                "expected_sha256": part.part.digest,
            }
            for part in proof.parts
        ],
        "event": None if proof.row is None else dict(proof.row),
    }
