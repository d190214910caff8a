"""How RabbitMQ's versions differ in what a permission means and in what they say of a change.

Read from the tagged sources of rabbitmq-server (`rabbit_auth_backend_internal`, `rabbit_channel`) and release notes;
tried on 3.10.8. Releases 4.0.10 and 4.1.9 and later of those series are not public: what they hold is not known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_ESCAPED: Final = "\\^$.|?*+()[]{}"
_VERSION: Final = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?")
_NOT_PUBLIC: Final = {(4, 0): 10, (4, 1): 9}


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a server of some version does; None stands for "not known"."""

    version: str | None
    escapes: str | None
    """Characters that get a backslash in values put into topic permissions; '': none."""
    checks_copies: bool | None
    """Whether the routing keys of CC and BCC headers are checked against topic permissions."""
    names_topic_deletion: bool | None
    """Whether clearing the topic permission of one exchange is said to be that, and not `permission.deleted`."""


def behaviour_of(version: str | None) -> Behaviour:
    """Return how a server with this `rabbit_version` behaves."""
    found = _VERSION.match(version or "")
    if found is None:
        return Behaviour(None, None, None, None)
    major, minor, patch = (int(number or 0) for number in found.groups())
    hidden = patch >= _NOT_PUBLIC.get((major, minor), 1 << 16)
    number = (major, minor, patch)
    # CVE-2026-44838, pull request 15442, in 4.2.4 and 4.3.0; "-" was forgotten until 4.2.9 and 4.3.3 (CVE-2026-67407).
    escapes: str | None = "" if number < (4, 2, 4) else _ESCAPED
    if number >= (4, 3, 3) or (4, 2, 9) <= number < (4, 3, 0):
        escapes = _ESCAPED + "-"
    return Behaviour(
        version=found[0],
        escapes=None if hidden else escapes,
        # Pull request 12553, in 4.0.3.
        checks_copies=number >= (4, 0, 3),
        # Issue 9937, in 3.11.26 and 3.12.9.
        names_topic_deletion=number >= (3, 12, 9) or (3, 11, 26) <= number < (3, 12, 0),
    )
