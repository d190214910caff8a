"""Which names mean a secret, and which options do so only to some programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

_ANYWHERE: Final = re.compile(
    r"passw(?:or)?d|passwort|passphrase|passcode|secret|token|api[-_.]?key|access[-_.]?key|private[-_.]?key"
    r"|(?:key|auth|user|cert)[-_.]?pass|credential|bearer|kpass"
)
_WORDS: Final = frozenset({"pass", "pw", "pwd", "psk", "authkey", "pin"})
_NOT: Final = re.compile(r"^-*no-|(?:file|files|path|stdin|prompt|env|fd|dir|type|alg|url|uri|endpoint|expiry|ttl)$")
"""A name like this says where the secret is, or something about it."""


@lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Whether an option or variable of this name holds a secret."""
    if len(name) > 256:
        return True
    lower = name.lower()
    if _NOT.search(lower) is not None:
        return False
    return _ANYWHERE.search(lower) is not None or not _WORDS.isdisjoint(re.split(r"[-_.]+", lower))


@dataclass(frozen=True, slots=True)
class Program:
    """What a program's words mean."""

    options: Mapping[str, bool] = field(default_factory=dict)
    """Options whose value is a secret; True: it is `name:secret`."""
    positional: Mapping[str, int] = field(default_factory=dict)
    """Words, and how many words after them a secret stands."""


_MOSQUITTO: Final = Program({"-P": False, "--pw": False, "--psk": False})
_PASSWORD: Final = Program({"-p": False})
_USER: Final = {"-u": True, "--user": True, "-U": True, "--proxy-user": True, "-E": True, "--cert": True}

PROGRAMS: Final[Mapping[str, Program]] = {
    **dict.fromkeys(("mosquitto_pub", "mosquitto_sub", "mosquitto_rr", "mqttx"), _MOSQUITTO),
    "mosquitto_ctrl": Program({"-P": False, "-p": False}, {"setClientPassword": 2}),
    "mosquitto_passwd": Program({}, {"-b": 3}),
    **dict.fromkeys(("rabbitmqadmin", "sendxmpp", "go-sendxmpp", "sshpass", "mysql"), _PASSWORD),
    "rabbitmqctl": Program({}, {"add_user": 2, "change_password": 2, "authenticate_user": 2}),
    "stomp": Program({"-W": False}),
    "mqtt": Program({"-P": False}),
    "redis-cli": Program({"-a": False}),
    **dict.fromkeys(("curl", "http", "https"), Program({**_USER, "-a": True, "--auth": True})),
}
"""By the last part of a program's path. Long options whose name says what they hold need no entry."""
