"""`scan --witness-check`: every witness tried on a running broker, and what it says written to the finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from topicwarden.cli.progress import Progress
from topicwarden.compare.scan import Question
from topicwarden.compare.told import resource_in
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.grants import Probe, Verdict

MAX_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class WitnessCheck:
    """How witnesses are tried on a running broker."""

    address: str
    credentials: Path | None
    allow_publish: bool


@dataclass(slots=True)
class Tried:
    """What came of it."""

    confirmed: int = 0
    refuted: int = 0
    not_tried: int = 0


def read_credentials(path: Path | None) -> dict[str, str]:
    """Read a line `USER:PASSWORD` for each user; raises ConfigurationError, which never shows a password."""
    if path is None:
        return {}
    try:
        data = path.read_bytes()[: MAX_BYTES + 1]
    except OSError as error:
        raise ConfigurationError(
            Problem(f"the credentials cannot be read: {error.strerror}", str(path), hint="name a readable file")
        ) from error
    if len(data) > MAX_BYTES:
        raise ConfigurationError(Problem(f"the credentials are longer than {MAX_BYTES} bytes", str(path)))
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for number, line in enumerate(data.decode("utf-8", "surrogateescape").split("\n"), 1):
        text = line.removesuffix("\r")
        if not text or text.startswith("#"):
            continue
        user, colon, password = text.partition(":")
        if not colon or not user:
            problems.append(
                Problem("a line without a user or a password", str(path), number, hint="write USER:PASSWORD")
            )
        elif user in found:
            problems.append(Problem(f"user {user!r} stands here a second time", str(path), number))
        else:
            found[user] = password
    if problems:
        raise ConfigurationError(*problems)
    return found


def try_witnesses(probe: Probe, questions: Sequence[Question], progress: Progress, *, allow_publish: bool) -> Tried:
    """Ask the broker every question and write its answer to the finding's evidence."""
    tried = Tried()
    for number, question in enumerate(questions, 1):
        progress(f"asking the broker: {number} of {len(questions)}")
        resource = resource_in(question.space, question.name, question.action)
        if question.real_id and not allow_publish:
            verdict, why = Verdict.NOT_TRIED, "it would cut off the client that has this id (--allow-publish)"
        else:
            verdict, why = probe.ask(question.client, question.action, resource)
        evidence = question.finding.evidence
        if verdict is Verdict.NOT_TRIED:
            tried.not_tried += 1
            said = f"not tried on the running broker: {why}"
        elif (verdict is Verdict.ALLOWED) == question.expected:
            tried.confirmed += 1
            said = "confirmed by the running broker"
        else:
            tried.refuted += 1
            said = f"refuted by the running broker: {why}"
        before = evidence.get("broker_says")
        # What contradicts us is not to be overlooked among several answers.
        if before is None or said.startswith("refuted") or str(before).startswith("not tried"):
            evidence["broker_says"] = said
    return tried
