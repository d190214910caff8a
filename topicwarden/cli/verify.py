"""`verify`: whether a store is what was written, and what was done to it if not."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden.cli import EXIT_CLEAN, EXIT_FINDINGS
from topicwarden.cli.options import one_of
from topicwarden.cli.progress import Progress
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.output.escape import encodable
from topicwarden.output.jsonl import encode
from topicwarden.output.verification import document, proof_document, proof_lines, text_lines
from topicwarden.store.notes import MAX_NOTE, NoteError, Verifier
from topicwarden.store.proof import prove
from topicwarden.store.timestamps import roots_of
from topicwarden.store.verify import verify

FORMATS: Final = ("text", "json")
MAX_KEY: Final = 4096


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """How a store is verified."""

    public_key: str | None = None
    """`NAME+HASH+KEY`, or a file that begins with it."""
    checkpoints: tuple[Path, ...] = ()
    """Checkpoints that were kept elsewhere."""
    segment: int | None = None
    """Prove only this one."""
    row: int | None = None
    """And show this event of it."""
    output_format: str = "text"
    timestamp_root: Path | None = None
    """Certificates of authorities whose timestamps are trusted."""


def run(folder: Path, options: VerifyOptions) -> int:
    """Verify a store and print what was found; returns 0 when it is intact, else 1.

    Raises ConfigurationError for wrong options, ObservationError when the store cannot be read.
    """
    one_of("--format", options.output_format, FORMATS)
    if options.row is not None and options.segment is None:
        raise ConfigurationError(Problem("--row needs --segment", hint="name the event's segment"))
    if options.segment is not None and len(options.checkpoints) > 1:
        raise ConfigurationError(Problem("--segment is proved by one checkpoint", hint="give --checkpoint once"))
    verifier = None if options.public_key is None else public_key(options.public_key)
    notes = {str(path): _read(path, MAX_NOTE) for path in options.checkpoints}
    if options.segment is not None:
        proof = prove(folder, options.segment, options.row, verifier=verifier, note=next(iter(notes.values()), None))
        _print(proof_lines(proof), proof_document(proof), options.output_format)
        return EXIT_CLEAN if proof.holds else EXIT_FINDINGS
    roots = [] if options.timestamp_root is None else roots_of(options.timestamp_root)
    with Progress(sys.stderr) as progress:
        report = verify(folder, verifier=verifier, checkpoints=notes, roots=roots, said=progress)
    _print(text_lines(report), document(report), options.output_format)
    return EXIT_CLEAN if report.intact else EXIT_FINDINGS


def public_key(text: str) -> Verifier:
    """Read a key, or the file that has it; raises ConfigurationError."""
    path = Path(text)
    try:
        given = path.is_file()
    except OSError:  # no path at all
        given = False
    if given:
        text = _read(path, MAX_KEY).decode(errors="replace").strip()
    try:
        return Verifier.parse(text)
    except NoteError as error:
        hint = "the public key as `topicwarden key new` printed it, NAME+HASH+KEY, or a file that has it"
        raise ConfigurationError(Problem(f"--public-key: {error}", str(path) if given else None, hint=hint)) from error


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be read: {error.strerror}", str(path))) from error


def _print(lines: Iterable[str], whole: dict[str, object], output_format: str) -> None:
    if output_format == "json":
        sys.stdout.write(encode(whole) + "\n")
        return
    for line in lines:
        sys.stdout.write(f"{encodable(line, sys.stdout.encoding)}\n")
