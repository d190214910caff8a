"""Asks a running broker what an acl_file lets clients do, topic by topic; and asks a reader's rules in a plain way."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.brokers import Mosquitto, mosquitto
from tests.mosquitto.plugin_mqtt import Client as Wire
from topicwarden.events import Action, Client
from topicwarden.grants import Rights, Rules
from topicwarden.patterns import Anything, LevelPattern, Regex, Special
from topicwarden.policy import Space

WRITER = "the writer"
"""Publishes everything; so called that no pattern's names meet it."""
TOPICS = Space("topic")
CONFIG = (
    "user root",
    "persistence false",
    "sys_interval 0",
    "log_type error",
    # 0 would have 2.0.11 drop every client whose publish it denies.
    "max_queued_messages 100000",
)


@dataclass(frozen=True)
class Asker:
    """A client that asks."""

    user: str | None
    client_id: str

    def at(self, broker: str = "mosquitto") -> Client:
        return Client(broker, "mqtt", self.client_id, self.user)


def with_writer(acl: str, topics: Sequence[str]) -> str:
    """Let one more user write everything; the others' lines mean what they meant."""
    dollars = sorted({topic.split("/")[0] for topic in topics if topic.startswith("$")})
    lines = ["", f"user {WRITER}", "topic write #", *(f"topic write {first}/#" for first in dollars), ""]
    return acl + "\n".join(lines)


def may_publish(broker: Mosquitto, asker: Asker, topics: Sequence[str]) -> dict[str, bool]:
    """Return what the broker says to a publish (its PUBACK does)."""
    said = {}
    with Wire(broker.port, asker.client_id, asker.user, version=5) as client:
        assert client.code == 0, asker
        for topic in topics:
            code = client.publish(topic, qos=1)
            assert code in (0x00, 0x10, 0x87), (asker, topic, code)
            said[topic] = code != 0x87
    return said


def may_read(broker: Mosquitto, asker: Asker, topics: Sequence[str]) -> dict[str, bool]:
    """Return which messages reach a client that subscribed to everything; of topics that can be published at all."""
    topics = [topic for topic in topics if can_be_read(topic)]
    firsts = sorted({topic.split("/")[0] for topic in topics if topic.startswith("$")})
    with (
        Wire(broker.port, asker.client_id, asker.user, version=5) as client,
        Wire(broker.port, "writer", WRITER, version=5) as writer,
    ):
        for wanted in ["#", *(f"{first}/#" for first in firsts)]:
            assert client.subscribe(wanted) == 0
        for topic in topics:
            writer.publish(topic)
        assert writer.ping()
        assert client.ping()
        received = {topic for topic, _, _ in client.received}
    return {topic: topic in received for topic in topics}


def can_be_read(topic: str) -> bool:
    """Whether somebody can publish it, and it is no command to the broker."""
    return not broker_refuses(topic) and not topic.startswith("$CONTROL/")


def broker_refuses(topic: str) -> bool:
    """Whether 2.0.11 refuses a publish whatever the acl_file says."""
    state = re.fullmatch(r"\$SYS/broker/connection/[^/]*/state", topic)
    return (topic.startswith("$SYS") and not state) or topic.startswith("$share")


def asked(
    folder: Path, acl: str, askers: Sequence[Asker], topics: Sequence[str]
) -> Iterator[tuple[Asker, Action, str, bool]]:
    """Yield what a broker with this acl_file says to each asker about each topic."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "asked.acl"
    path.write_text(with_writer(acl, topics))
    with mosquitto(folder, [*CONFIG, f"acl_file {path}"]) as broker:
        for asker in askers:
            for topic, allowed in may_publish(broker, asker, topics).items():
                yield asker, Action.PUBLISH, topic, allowed
            for topic, allowed in may_read(broker, asker, topics).items():
                yield asker, Action.SUBSCRIBE, topic, allowed


def allows(rights: Rights | None, action: Action, topic: str) -> bool:
    """Return what rules say, by a matcher that shares nothing with the package's."""
    return rights is not None and _decide(rights.rules(action, TOPICS), topic)


def _decide(rules: Rules, topic: str) -> bool:
    for rule in rules.rules:
        match rule.names:
            case LevelPattern(levels=levels):
                matches = _matches(levels, topic)
            case Regex(text=text):
                matches = re.search(text, topic) is not None
            case Anything():
                matches = True
            case _:
                raise AssertionError(rule)
        if matches:
            return rule.allow
    return False


def _matches(levels: Sequence[object], topic: str) -> bool:
    """As a regular expression: MQTT 5.0, section 4.7."""
    if topic.startswith("$") and not isinstance(levels[0], str):
        return False
    rest = levels[-1] is Special.REST
    parts = ["[^/]*" if level is Special.ONE else re.escape(str(level)) for level in (levels[:-1] if rest else levels)]
    if Special.NOTHING in levels:
        return False
    if rest and not parts:
        return True
    return re.fullmatch("/".join(parts) + ("(/.*)?" if rest else ""), topic, re.DOTALL) is not None


USERS = (None, "", "bob", "bob", "al", "al", "a/b", "a+b", "%c", "%u", "$SYS", "$foo", "ü ö", "b#", "a")
IDS = ("id", "id", "a/b", "+", "x#", "%u", "%c", "bob", "$foo", "a//b", "/", "b", "a")
_LEVELS = ("a", "b", "", "x", "+", "%u", "%c", "a%u", "%c-x", "%%u", "%uc", "bob", "$foo")
_FIRSTS = ("$foo", "$SYS", "$share", "$CONTROL", "$", "$SYSTEM", "$shared")


def random_filter(rng: random.Random) -> str:
    """Return a topic filter for an acl_file."""
    if rng.random() < 0.6:
        # From few levels, so that denials and grants meet.
        levels = [rng.choice(["a", "b", "+", "%u" if rng.random() < 0.3 else "+"]) for _ in range(rng.randint(1, 2))]
        return "/".join([*levels, "#"] if rng.random() < 0.4 else levels)
    levels = [rng.choice(_LEVELS) for _ in range(rng.randint(1, 4))]
    match rng.randrange(12):
        case 0 | 1:
            levels[0] = rng.choice(_FIRSTS)
        case 3 | 4 | 5:
            levels = [rng.choice(["a", "b", "+", "%u", "%c"]) for _ in range(rng.randint(1, 3))]
        case 2:
            levels = [
                "$SYS",
                rng.choice(["broker", "+"]),
                "connection",
                rng.choice(["+", "b"]),
                rng.choice(["state", "+"]),
            ]
    if rng.random() < 0.25:
        levels.append("#")
    return "/".join(levels) if levels != [""] else "a"


def random_acl(rng: random.Random, askers: Sequence[Asker]) -> str:
    """Return an acl_file, most of which is about these clients."""
    lines = []
    users = [asker.user for asker in askers[:4] if asker.user] or ["bob"]
    for _ in range(rng.randint(4, 30)):
        word = rng.choice(["read", "write", "readwrite", "readwrite", "deny"])
        match rng.randrange(6):
            case 0:
                lines.append(f"user {rng.choice(users)}")
            case 1 | 2 | 3:
                lines.append(f"topic {word} {random_filter(rng)}")
            case _:
                lines.append(f"pattern {word} {random_filter(rng)}")
    return "\n".join([*lines, ""])


def random_topics(rng: random.Random, acl: str, askers: Sequence[Asker], count: int) -> list[str]:
    """Return topics, most of which some line of the acl_file is about."""
    filters = [line.split(" ", 2)[2] for line in acl.split("\n") if line.startswith(("topic ", "pattern "))] or ["a"]
    topics: dict[str, None] = {}
    for _ in range(count * 3):
        asker = rng.choice(askers)
        text = rng.choice(filters) if rng.random() < 0.85 else random_filter(rng)
        values = {"%u": asker.user or "", "%c": asker.client_id}
        if rng.random() < 0.95:
            text = "".join(values.get(part, part) for part in re.split("(%[uc])", text))
        levels = text.split("/")
        if levels[-1] == "#":
            levels[-1:] = [rng.choice(["a", "", "x"]) for _ in range(rng.randint(0, 2))]
        levels = [rng.choice(["a", "b", "", "x", "bob"]) if level == "+" else level for level in levels]
        topic = "/".join(levels)
        if topic and "+" not in topic and "#" not in topic:
            topics[topic] = None
    return list(topics)[:count]
