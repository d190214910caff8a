"""Tells quickly which command lines may be about a broker at all: most are not, and need no reading."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from topicwarden.hosts.code import LIBRARIES
from topicwarden.hosts.tools import TOOLS, program_name

_LOOKED_AT: Final = 1 << 14
"""Characters of a word that are looked at."""
_MOST: Final = 1 << 17
"""Characters of all words that are looked at."""
_QUOTES: Final = str.maketrans("", "", "'\"\\")
_MENTIONED: Final = re.compile(
    r"/dev/tcp/|(?<![\w.-])(?:"
    + "|".join(sorted((re.escape(name) for name in TOOLS.keys() | LIBRARIES.keys()), key=len, reverse=True))
    + r"|socket|python[\d.]*)(?![a-z])|(?i:mqtt|amqp|stomp|xmpp|jabber)|mosquitto_|--will-topic|\b[18]883\b",
)
_NEEDLES: Final = (
    *("mqtt", "amqp", "stomp", "xmpp", "jabber", "mosquitto", "will-topic", "1883", "8883", "/dev/tcp/", "socket"),
    *("python", "netcat", "ncat", "socat", "telnet", "openssl", "curl", "profanity", "rabbit"),
    *("paho", "aws", "pika", "aiormq", "kombu", "puka", "bunny", "proton", "rhea", "blather"),
)
"""One of them, or `nc`, is in whatever the pattern finds: looking for them first is ten times as fast."""
_NC: Final = re.compile(r"nc(?<![\w.-]nc)(?![a-z])")
"""Begins with its letters, for which the engine looks first: many a word has them within."""


def mentions(words: Iterable[str]) -> bool:
    """Whether words name a tool, a library, a protocol or a port of MQTT's, quotes within a word notwithstanding."""
    text = "\n".join([word[:_LOOKED_AT] for word in words])[:_MOST]
    if "$'" in text:
        # It may spell anything.
        return True
    text = text.translate(_QUOTES)
    lower = text.lower()
    if not any(needle in lower for needle in _NEEDLES):
        return _NC.search(text) is not None
    return _MENTIONED.search(text) is not None


def may_matter(words: Iterable[str], executable: str) -> bool:
    """Whether a command line, or the program by its path, may be about a broker."""
    return (executable != "" and program_name(executable) in TOOLS) or mentions(words)
