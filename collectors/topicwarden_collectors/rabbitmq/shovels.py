"""Shovels, as the definitions have them: from where they take messages, and where they put them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_DEFAULT_VHOST: Final = "/"


@dataclass(frozen=True, slots=True)
class Shovel:
    """A shovel's two ends; None: it does not say."""

    inside: bool
    """Whether both ends are this broker's for sure: their URIs name no host. They hold passwords and are not kept."""
    from_vhost: str | None = None
    from_queue: str | None = None
    from_exchange: str | None = None
    from_key: str | None = None
    to_vhost: str | None = None
    to_queue: str | None = None
    to_exchange: str | None = None
    to_key: str | None = None


def read_shovel(value: Mapping[str, Any]) -> Shovel:
    """Read a shovel's value; raises nothing."""

    def text(key: str) -> str | None:
        found = value.get(key)
        return found if isinstance(found, str) else None

    ends = [_vhost_of(value.get(key)) for key in ("src-uri", "dest-uri")]
    return Shovel(
        None not in ends,
        ends[0],
        text("src-queue"),
        text("src-exchange"),
        text("src-exchange-key"),
        ends[1],
        text("dest-queue"),
        text("dest-exchange"),
        text("dest-exchange-key"),
    )


def _vhost_of(uris: object) -> str | None:
    """Return the virtual host of a URI that names no host, and so means this broker; None for any other.

    Without a path it is the default one, not the shovel's own (seen with 3.10.8).
    """
    uri = uris[0] if isinstance(uris, list) and len(uris) == 1 else uris
    try:
        parts = urlsplit(uri) if isinstance(uri, str) else None
        if parts is None or parts.scheme not in ("amqp", "amqps") or parts.netloc.rpartition("@")[2]:
            return None
    except ValueError:
        return None
    return unquote(parts.path[1:]) if len(parts.path) > 1 else _DEFAULT_VHOST
