"""Programs that speak to brokers, told by their names and command lines: what standard fields have of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from topicwarden.hosts.commands_model import Does
from topicwarden.hosts.tools import RAW, TOOLS
from topicwarden.hosts.tools_grammar import Means
from topicwarden.output.rule_conditions import Condition, OneOf, every, some

SHELLS: Final = ("bash",)
"""Those that connect by themselves, through /dev/tcp."""
INTERPRETERS: Final = ("python", "python2*", "python3*")
LIBRARIES: Final = ("paho", "pika", "kombu", "stomp", "slixmpp", "sleekxmpp", "aiomqtt", "gmqtt", "hbmqtt", "amqtt")
SCHEMES: Final = ("mqtt", "mqtts", "amqp", "amqps", "stomp", "xmpp")
RAW_NAMES: Final = tuple(sorted(name for name, tool in TOOLS.items() if tool.name in RAW))
_GENERAL: Final = ("curl", *RAW_NAMES)
"""Programs for everything: only their arguments tell that a broker is meant."""
DEDICATED: Final = tuple(sorted(set(TOOLS) - set(_GENERAL)))


def speaks_to_brokers(category: str, ports: Sequence[int]) -> Condition:
    """Return what tells a program that speaks to a broker; in `network` events only by its name."""
    if category == "network":
        return OneOf("process.name", (*DEDICATED, *_GENERAL))
    general = every([OneOf("process.name", _GENERAL), some([has_port(ports), _line(f"*{s}://*" for s in SCHEMES)])])
    return some([OneOf("process.name", DEDICATED), general, imports_library(), _through_device(ports)])


def pipes_bytes(category: str, ports: Sequence[int]) -> Condition:
    """Return what tells a program that pipes bytes into a connection."""
    names = OneOf("process.name", RAW_NAMES)
    return names if category == "network" else some([names, _through_device(ports)])


def imports_library() -> Condition:
    """Return what tells an interpreter that is given a program with a library for brokers on its command line."""
    named = OneOf("process.name", INTERPRETERS, wildcards=True)
    return every([named, _line(f"*{library}*" for library in LIBRARIES)])


def named_as(tools: Sequence[str]) -> Condition:
    """Return what tells the programs of these common names."""
    return OneOf("process.name", tuple(name for name, tool in TOOLS.items() if tool.name in tools) or tuple(tools))


def that_do(what: Sequence[Does]) -> Condition | None:
    """Return what tells the programs that do this at a broker; None: there are none."""
    names = tuple(sorted(name for name, tool in TOOLS.items() if tool.does in what))
    return OneOf("process.name", names) if names else None


def has_secret() -> Condition:
    """Return what tells a password among the arguments of a program for brokers."""
    by_options: dict[tuple[str, ...], list[str]] = {}
    for name in DEDICATED:
        options = tuple(sorted(option for option, means in TOOLS[name].options.items() if means is Means.SECRET))
        if options:
            by_options.setdefault(options, []).append(name)
    terms: list[Condition] = []
    for options, names in sorted(by_options.items()):
        attached = tuple(f"{option}=*" for option in options if option.startswith("--"))
        given = some(
            [
                OneOf("process.args", options, exact=True),
                *([OneOf("process.args", attached, wildcards=True, exact=True)] if attached else []),
            ]
        )
        terms.append(every([OneOf("process.name", tuple(names)), given]))
    with_url = tuple(name for name in DEDICATED if Means.URL in TOOLS[name].options.values())
    terms.append(every([OneOf("process.name", with_url), _line(["*://*:*@*"])]))
    return some(terms)


def has_port(ports: Sequence[int]) -> Condition:
    """Return what tells one of these ports among the arguments: alone, behind a colon, or in a path of /dev/tcp."""
    spelled = [form for port in ports for form in (str(port), f"*:{port}", f"*/dev/tcp/*/{port}*")]
    return OneOf("process.args", tuple(spelled), wildcards=True)


def _through_device(ports: Sequence[int]) -> Condition:
    device = _line(f"*/dev/tcp/*/{port}*" for port in ports) if ports else _line(["*/dev/tcp/*"])
    return every([OneOf("process.name", SHELLS), device])


def _line(patterns: Iterable[str]) -> Condition:
    return OneOf("process.command_line", tuple(patterns), wildcards=True)
