"""Findings' documents as they are read back: they may be damaged, of another version, or made up by somebody."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from operator import itemgetter
from typing import Any, Final

from topicwarden.report.findings import SEVERITIES

_SHAPES: Final = 4096
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{32}")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9}Z")
_HALF: Final = re.compile(r"\\u[dD][89a-fA-F]")
_SCALAR: Final = (str, int, float, type(None))
_TEXT_OR_NOT: Final = (str, type(None))
_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "fingerprint": str,
    "event": str,
    "code": str,
    "name": str,
    "severity": str,
    "title": str,
    "broker": str,
    "host": _TEXT_OR_NOT,
    "client": (dict, type(None)),
    "scope": list,
    "count": int,
    "certainty": str,
    "first_seen": str,
    "last_seen": str,
    "witnesses": list,
    "more_witnesses": int,
    "evidence": dict,
    "behind": list,
    "more_behind": int,
    "accepted": _TEXT_OR_NOT,
}
"""What a document must have to be shown; what is stored may be damaged, or of another version."""
_CLIENT_KEYS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "protocol": str,
    "client_id": str,
    "user": _TEXT_OR_NOT,
    "identity": str,
    "address": _TEXT_OR_NOT,
    "vhost": _TEXT_OR_NOT,
}


def read_document(text: str) -> dict[str, Any] | None:
    """Return a finding's document; None: it cannot be shown."""
    try:
        document = json.loads(text)
        if _HALF.search(text):
            # Half a character, which no document of ours has and no output could write.
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return document if is_sound(document) else None


def is_sound(document: Any) -> bool:
    """Whether a JSON value is a finding's document that can be shown."""
    return (
        _DOCUMENT.fits(document)
        and _FINGERPRINT.fullmatch(document["fingerprint"]) is not None
        and document["severity"] in SEVERITIES
        and all(_TIME.fullmatch(document[key]) for key in ("first_seen", "last_seen"))
        and (document["client"] is None or _CLIENT.fits(document["client"]))
        and all(map(_WITNESS.fits, document["witnesses"]))
        and all(map(_BEHIND.fits, document["behind"]))
        and all(isinstance(part, str) for part in document["scope"])
        and all(isinstance(value, _SCALAR) for value in document["evidence"].values())
        and isinstance(document["evidence"].get("alike", 0), int)
    )


class _Shape:
    """The keys a mapping must have, and what may stand under each. Documents are alike, so answers are kept."""

    def __init__(self, keys: Mapping[str, type | tuple[type, ...]]) -> None:
        self._kinds = [kind if isinstance(kind, tuple) else (kind,) for kind in keys.values()]
        self._values = itemgetter(*keys)
        self._known: dict[tuple[type, ...], bool] = {}

    def fits(self, row: Any) -> bool:
        """Whether it is such a mapping."""
        if not isinstance(row, dict):
            return False
        try:
            found = tuple(map(type, self._values(row)))
        except KeyError:
            return False
        known = self._known.get(found)
        if known is None:
            known = all(kind in allowed for kind, allowed in zip(found, self._kinds, strict=True))
            if len(self._known) < _SHAPES:
                self._known[found] = known
        return known


_DOCUMENT: Final = _Shape(_KEYS)
_CLIENT: Final = _Shape(_CLIENT_KEYS)
_WITNESS: Final = _Shape({"name": str, "count": int})
_BEHIND: Final = _Shape({"host": str, "executable": _TEXT_OR_NOT, "arguments": list, "user": _TEXT_OR_NOT})
