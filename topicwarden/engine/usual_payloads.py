"""How unusual payloads are for where they go: size, entropy and shape against the baseline, or what they say alone.

One row of the tables stands for each usual topic of the baseline, from 1; row 0 for all other names, with what is usual
anywhere. A payload is never seen here, only its size, the entropy of its first 1024 bytes, and its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from topicwarden.engine.grouping import Int64
from topicwarden.engine.names import Flag
from topicwarden.engine.payload import entropy_threshold
from topicwarden.events import Shape
from topicwarden.policy import Baseline, Payload, UsualTopic

Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]

FORBIDDEN: Final = 0.95
"""Sign of a payload that the policy says is suspicious where it goes."""
ENCODED_FOR_JSON: Final = {Shape.BASE64: 0.95, Shape.HEX: 0.85, Shape.BINARY: 0.6, Shape.TEXT: 0.25}
"""Signs of shapes where only JSON is usual. Binary that is random besides has `RANDOM`, too."""
ENCODED_FOR_TEXT: Final = {Shape.BASE64: 0.8, Shape.HEX: 0.6, Shape.BINARY: 0.6, Shape.JSON: 0.15}
"""The same where text is usual: a token is text, and now and then looks like base64."""
ENCODED_FOR_BINARY: Final = {Shape.BASE64: 0.5, Shape.HEX: 0.4, Shape.TEXT: 0.2, Shape.JSON: 0.15}
"""The same where other encodings or binary are usual."""
ANYWHERE: Final = {Shape.BASE64: 0.7, Shape.HEX: 0.6}
"""What shapes say where nothing is known; random binary has `RANDOM`."""
RANDOM: Final = 0.7
"""Sign of entropy as of encrypted or compressed data, where it is not usual."""
RANDOM_BITS: Final = 7.2
"""Bits per byte that are random where the policy does not say; lower for short payloads (`entropy_threshold`)."""
SMALLEST: Final = 16
"""Bytes. Sizes below are all the same, and their entropy says nothing."""
TOO_LARGE: Final = 2
"""How many times the largest usual size begins to be a sign; 16 times that is all of it."""
LARGE: Final = 0.9
LARGE_ELSEWHERE: Final = 0.45
"""The same against the largest size usual anywhere, for names that the baseline does not know."""
TOO_SMALL: Final = 4
"""How many times smaller than the smallest usual size begins to be a sign; 64 times that is all of it."""
SMALL: Final = 0.3
MORE_BITS: Final = 0.5
"""Bits per byte above the highest usual entropy that begin to be a sign; 1.5 more are all of it."""
BITS: Final = 0.8
_SPAN_BITS: Final = 1.5
_NO_LIMIT: Final = 1 << 60


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of the payloads of some publishes."""

    usual: npt.NDArray[np.int32]
    size: Int64
    entropy: npt.NDArray[np.float32]
    shape: UInt8
    flags: UInt8
    """Bits of `names.Flag`."""


class UsualPayloads:
    """The tables, and the signs they give."""

    def __init__(self, payload: Payload, baseline: Baseline | None) -> None:
        topics: Sequence[UsualTopic] = baseline.topics if baseline else ()
        rows = len(topics) + 1
        self._policy = payload
        self._low = np.zeros(rows, np.int64)
        self._high = np.full(rows, _NO_LIMIT, np.int64)
        self._large = np.full(rows, LARGE)
        self._large[0] = LARGE_ELSEWHERE
        self._bits = np.full(rows, np.inf)
        self._binary = np.zeros(rows, bool)
        self._shape = np.zeros((rows, len(Shape)))
        self.texts: list[tuple[str, str]] = [("", "")] * rows
        """Of each row: the usual shapes and the largest usual size, for people."""
        for number, topic in enumerate(topics, 1):
            self._fill(number, topic.shown_shapes)
            if topic.size is not None:
                self._low[number], self._high[number] = topic.size.low, max(topic.size.high, SMALLEST)
            if topic.entropy is not None:
                self._bits[number] = topic.entropy.high
        everywhere = frozenset[Shape]().union(*(topic.shown_shapes for topic in topics))
        self._fill(0, everywhere)
        if everywhere:
            # Where a fleet never encodes, a name nobody knows may be of another kind: no more than it says itself.
            for shape, sign in ANYWHERE.items():
                self._shape[0, shape] = sign / 2 if shape in everywhere else max(sign, 0.8 * self._shape[0, shape])
            self._shape[0, [Shape.TEXT, Shape.JSON, Shape.BINARY]] = 0.0
        # What one topic does not tell, all together do not tell either.
        if topics and all(topic.size is not None for topic in topics):
            self._high[0] = self._high[1:].max()

    def _fill(self, row: int, usual: frozenset[Shape]) -> None:
        said = usual - {Shape.EMPTY}
        if not said:
            signs = ANYWHERE
        elif said <= {Shape.JSON}:
            signs = ENCODED_FOR_JSON
        elif said <= {Shape.JSON, Shape.TEXT}:
            signs = ENCODED_FOR_TEXT
        else:
            signs = ENCODED_FOR_BINARY
        for shape, sign in signs.items():
            if shape not in said:
                self._shape[row, shape] = sign
        self._binary[row] = Shape.BINARY in said

    def signs(self, columns: Columns) -> Float64:
        """Return how unusual each payload is, 0 to 1."""
        usual, size, entropy, shape = columns.usual, columns.size, columns.entropy, columns.shape
        shaped = self._shape.ravel().take(usual * len(Shape) + shape)
        large = size > TOO_LARGE * self._high.take(usual)
        small = (TOO_SMALL * size < self._low.take(usual)) & (size > 0)
        bits = (entropy > self._bits.take(usual) + MORE_BITS) & (size >= SMALLEST)
        random = self._random(columns)
        forbidden = self._forbidden(columns, random)
        signs = np.zeros(len(size))
        some = np.flatnonzero((shaped > 0) | large | small | bits | random | forbidden)
        if not len(some):
            return signs
        of, sizes = usual[some], size[some]
        none = 1 - np.where(forbidden[some], FORBIDDEN, shaped[some])
        high, low = self._high[of], self._low[of]
        # Sizes not known are -1, and unlike all others below every limit.
        ratio = np.log2(np.maximum(sizes, 1) / (TOO_LARGE * high))
        none *= 1 - self._large[of] * np.clip(ratio / 4, 0, 1)
        ratio = np.log2(np.maximum(low, 1) / (TOO_SMALL * np.maximum(sizes, 1)))
        none *= 1 - np.where(sizes > 0, SMALL * np.clip(ratio / 6, 0, 1), 0)
        more = np.where(bits[some], entropy[some].astype(np.float64) - self._bits[of] - MORE_BITS, 0)
        none *= 1 - BITS * np.clip(more / _SPAN_BITS, 0, 1)
        none *= 1 - np.where(random[some] & ~forbidden[some], RANDOM, 0)
        signs[some] = 1 - none
        return signs

    def _random(self, columns: Columns) -> npt.NDArray[np.bool_]:
        """Return which look encrypted or compressed where that is not usual."""
        shape = columns.shape
        found: npt.NDArray[np.bool_] = (shape == Shape.BINARY) | ((shape == Shape.UNKNOWN) & (columns.entropy > 0))
        found &= ~self._binary.take(columns.usual)
        if found.any():
            chosen = np.flatnonzero(found)
            size = columns.size[chosen]
            most = self._policy.max_entropy if self._policy.max_entropy is not None else RANDOM_BITS
            judged = size >= self._policy.min_size_for_entropy
            found[chosen] = judged & (columns.entropy[chosen] > entropy_threshold(size, most))
        return found

    def _forbidden(self, columns: Columns, random: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which the policy's payload section is against."""
        found = np.zeros(len(random), bool)
        if self._policy.max_entropy is not None:
            found |= random
        shape, flags = columns.shape, columns.flags
        if self._policy.no_encoded:
            found |= ((flags & Flag.NO_ENCODED) != 0) & ((shape == Shape.BASE64) | (shape == Shape.HEX))
        if self._policy.text_only:
            found |= ((flags & Flag.TEXT_ONLY) != 0) & (shape == Shape.BINARY)
        return found

    def words(self, usual: int, size: int, entropy: float, shape: Shape, topic: UsualTopic | None) -> list[str]:
        """Say what is unusual about one payload whose sign is above 0."""
        said = []
        if self._shape[usual, shape] > 0 or shape in (Shape.BASE64, Shape.HEX):
            usually = f" where {' and '.join(topic.shapes)} is usual" if topic is not None and topic.shapes else ""
            said.append(f"{shape.name.lower()}{usually}")
        if size > TOO_LARGE * int(self._high[usual]):
            said.append(f"{size} bytes where {int(self._high[usual])} are usual at most")
        if 0 < TOO_SMALL * size < int(self._low[usual]):
            said.append(f"{size} bytes where {int(self._low[usual])} are usual at least")
        if entropy > self._bits[usual] + MORE_BITS:
            said.append(f"{entropy:.2f} bits per byte where {self._bits[usual]:.2f} are usual at most")
        elif entropy > 0 and not said:
            said.append(f"{entropy:.2f} bits per byte, as of encrypted or compressed data")
        return said
