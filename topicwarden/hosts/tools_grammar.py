"""How programs take their words apart, and what an option can mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Means(StrEnum):
    """What an option, or its value, is."""

    FLAG = "flag"
    VALUE = "value"
    """Something that does not matter here."""
    HOST = "host"
    PORT = "port"
    ADDRESS = "address"
    """`host` or `host:port`."""
    URL = "url"
    NAME = "name"
    """A topic, filter, routing key or queue."""
    ALSO = "also"
    """A second name: of a will, of the answer, of the exchange."""
    PAYLOAD = "payload"
    SECRET = "secret"  # noqa: S105 - the name of a meaning
    TLS = "tls"
    """A flag after which it speaks TLS."""
    TLS_VALUE = "tls_value"
    SCHEME = "scheme"
    """`mqtt`, `mqtts`, `ws`: the port depends on it."""
    CONFIG = "config"
    """A file that may name the broker."""
    SOCKET = "socket"
    """A socket in the file system."""
    SERVICE = "service"
    """A flag: the port is asked of DNS."""
    STOP = "stop"
    """It only says something about itself, and connects to nothing."""
    LISTEN = "listen"
    """A flag: it waits for connections, or uses another transport than TCP."""
    PROPERTY = "property"
    """Two words and a value; a user property has a key, too (mosquitto's `-D`)."""
    JID = "jid"
    OPERAND = "operand"
    UNKNOWN = "unknown"
    """Not in the table: a newer version may have it."""
    STRAY = "stray"
    """A word that is neither an option nor the value of one, given to a program that takes none such."""


_ALONE: Final = frozenset({Means.FLAG, Means.TLS, Means.SERVICE, Means.STOP, Means.LISTEN})


def has_value(means: Means) -> bool:
    """Whether an option of this meaning is followed by a value."""
    return means not in _ALONE


@dataclass(frozen=True, slots=True)
class Grammar:
    """How a program takes its words apart."""

    clusters: bool = True
    """`-abVALUE`: several letters behind one dash, a value attached to the last."""
    attached: bool = True
    """`--long=value`."""
    abbreviations: bool = False
    """`--lo` for `--long`, where that is the only one."""
    whole: bool = False
    """Long names behind a single dash (`-connect`), looked up before letters."""
    equals: bool = False
    """`-u=value` for `-u value`."""
    ends: bool = True
    """`--` ends the options."""
    permutes: bool = True
    """Options may follow operands."""
    operands: bool = True


WORDS: Final = Grammar(clusters=False, attached=False, ends=False, operands=False)
"""mosquitto's: an option is one whole word and its value the next, `--` is an unknown option."""
POPT: Final = Grammar(equals=True)
"""popt's, of amqp-tools: long names in full only, the `=` after a letter is no part of the value."""
GETOPT: Final = Grammar(abbreviations=True)
"""GNU getopt_long's, and Python's optparse and argparse."""
PICOCLI: Final = Grammar(whole=True, equals=True)
"""Of Java's picocli, JavaScript's commander and yargs, Erlang's getopt: near enough to each other."""
ONE_DASH: Final = Grammar(clusters=False, whole=True, equals=True)
"""OpenSSL's: `-name value`, `--name=value`."""
