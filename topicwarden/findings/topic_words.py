"""What the words of topics say by themselves: the list of `rules/hosts/topic_words.yaml`, and which words are none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings.catalogue import data_dir
from topicwarden.patterns import skeleton

LETTERS: Final = 8
"""Letters a word must have for its pairs of letters to be judged."""
PAIRS: Final = 3
"""Pairs that hardly occur in any language, and which share of all pairs they must be, for letters to be random."""
PAIRS_SHARE: Final = 1 / 3
MIXED: Final = 8
"""Characters a word of letters and digits must have to be judged."""
MIXED_RUNS: Final = 4
"""Runs of letters and of digits that a random one has at least; `zigbee2mqtt` has three."""
MIXED_SHARE: Final = 0.4
"""Runs for each character that it has at least; `plant1line2cell3` has 0.375, hexadecimal 0.5 on average."""
CASES: Final = 12
"""Characters a word of both cases must have to be judged, and the share of neighbours that differ in kind."""
CASES_SHARE: Final = 3 / 8
SHORTEST: Final = min(LETTERS, MIXED, CASES)
"""Characters below which nothing is random."""
MAX_LEVEL: Final = 256
"""Characters of a level that are looked at."""

_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_]+")
_PARTS: Final = re.compile(r"[^\W_]+")
_NUMBERED: Final = re.compile(r"[A-Za-z]+[0-9]+(?![0-9])")
_LETTER: Final = re.compile(r"[^\W\d_]")
_RUNS: Final = re.compile(r"[0-9]+|[^\W\d_]+")
_KIND: Final = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", "A" * 26 + "a" * 26 + "9" * 10
)


class _Word(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    word: str = Field(pattern=r"^[a-z0-9]{2,32}$")
    weight: float = Field(gt=0, lt=1)
    reason: str = Field(min_length=4)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    words: list[_Word]
    plain: list[Annotated[str, Field(pattern=r"^[a-z]{2,16}$")]]
    follow: dict[Annotated[str, Field(pattern=r"^[a-z]$")], str]


class TopicWords:
    """Words that speak for command and control, and letters that no word has in a row."""

    def __init__(
        self, weights: Mapping[str, float], plain: frozenset[str], follow: Mapping[str, frozenset[str]]
    ) -> None:
        self.weights = {skeleton(word): (word, weight) for word, weight in weights.items()}
        """By what the word looks like: the word as listed and its weight, 0 to 1."""
        ordered = sorted(plain, key=lambda word: (-len(word), word))
        self._plain = re.compile("|".join(ordered) or r"(?!)")
        self._follow = follow
        self._hint = re.compile("|".join(map(re.escape, self.weights)) or r"(?!)")

    def hints(self, name: str) -> bool:
        """Whether a name may hold a listed word; cheap, and wrong only by saying yes."""
        return self._hint.search(skeleton(name)) is not None

    def suspicious(self, level: str) -> dict[str, float]:
        """Return the listed words among a level's words, with their weights."""
        level = level[:MAX_LEVEL]
        if not self.hints(level):
            return {}
        # `c2`, `keyLog` and `keylog` are words, and so are the parts of `c2Beacon`.
        parts = _PARTS.findall(level)
        candidates = {*parts, *_WORDS.findall(level)}
        candidates.update(piece for part in parts for piece in _NUMBERED.findall(part))
        found = (self.weights.get(skeleton(candidate)) for candidate in candidates)
        return dict(sorted(hit for hit in found if hit is not None))

    def random(self, level: str) -> bool:
        """Whether most of a level's characters stand in words that nobody would write."""
        if len(level) < SHORTEST:
            return False
        level = level[:MAX_LEVEL]
        parts = _PARTS.findall(level)
        hidden = sum(len(part) for part in parts if self._is_random(part))
        joined = level.replace("-", "")
        if len(joined) >= 32 and re.fullmatch(r"[0-9a-fA-F]+", joined) and not joined.isdigit():
            return True  # a UUID or digest, whatever its groups look like
        return 2 * hidden > len(level)

    def readable(self, level: str) -> bool:
        """Whether a level holds a word: letters that are not random."""
        return _LETTER.search(level, 0, MAX_LEVEL) is not None and not self.random(level)

    def _is_random(self, part: str) -> bool:
        """Judge letters and digits in a row."""
        if len(part) < SHORTEST or not part.isascii():
            return False
        runs = _RUNS.findall(part)
        if len(part) >= MIXED and len(runs) >= MIXED_RUNS and len(runs) >= MIXED_SHARE * len(part):
            return True
        if len(part) >= CASES and not part.islower() and not part.isupper():
            kinds = part.translate(_KIND)
            changes = sum(a != b for a, b in pairwise(kinds))
            if changes >= CASES_SHARE * len(part):
                return True
        rest = self._plain.sub(" ", part.lower())
        return any(self._letters_random(run) for run in re.findall("[a-z]+", rest))

    def _letters_random(self, letters: str) -> bool:
        if len(letters) < LETTERS:
            return False
        strange = sum(b not in self._follow.get(a, ()) for a, b in pairwise(letters))
        return strange >= PAIRS and strange >= PAIRS_SHARE * (len(letters) - 1)


@cache
def load_topic_words(folder: Path | None = None) -> TopicWords:
    """Read the list; raises ConfigurationError naming the file when it is wrong or missing."""
    path = (folder or data_dir("rules")) / "hosts" / "topic_words.yaml"
    try:
        read = _File.model_validate(yaml.load(path.read_text("utf-8"), Loader=_LOADER))  # noqa: S506 - a safe loader
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigurationError(
            Problem(f"no list of words: {error}", str(path), hint="reinstall topicwarden: its rules are missing")
        ) from error
    return TopicWords(
        {entry.word: entry.weight for entry in read.words},
        frozenset(read.plain),
        {letter: frozenset(others) for letter, others in read.follow.items()},
    )


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
