"""Reads Mosquitto's acl_file the way the broker does, keeping each entry's line.

From `security_default.c` (2.0.11) and `plugins/acl-file` (2.1.2), which agree; the tests ask the running broker. What
the broker makes of it:

- `topic` lines above the first `user` line are for clients without a user name only, not for everybody;
- `topic` lines below one are for that user only, in whatever part of the file his name stands again;
- `pattern` lines are for every client wherever they stand; only in them `%u` and `%c` are replaced;
- a user's denials are looked at before his other lines, the first match decides, then the patterns likewise;
- SUBSCRIBE is always granted; `read` decides about each delivery;
- a filter that does not begin with `$` never matches a topic that does: `#` does not cover `$SYS`;
- a client whose user name or client id contains `+` or `#` is denied as soon as the file has a pattern line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag

from topicwarden.errors import Problem
from topicwarden_collectors.mosquitto.conf_files import Disk, Files, lines_of, reason, unfit

MAX_TOPIC_BYTES = 65535
MAX_TOPIC_SLASHES = 200
_BLANKS = " \t\n\v\f\r"


class Access(Flag):
    """What an entry grants; NONE is a denial."""

    NONE = 0
    READ = 1
    WRITE = 2
    READWRITE = 3


ACCESS_WORDS: Mapping[str, Access] = {
    "read": Access.READ,
    "write": Access.WRITE,
    "readwrite": Access.READWRITE,
    "deny": Access.NONE,
}


@dataclass(frozen=True, slots=True)
class AclEntry:
    """One `topic` or `pattern` line."""

    pattern: bool
    """A `pattern` line: for every client, with `%u` and `%c` replaced."""
    access: Access
    topic: str
    """The topic filter as written."""
    user: str | None
    """The user it is for; None in a `topic` line: clients without a user name; always None in a `pattern` line."""
    line: int
    """1-based."""

    @property
    def deny(self) -> bool:
        """Whether the entry takes away."""
        return self.access is Access.NONE

    @property
    def has_variable(self) -> bool:
        """Whether `%u` or `%c` stands in it."""
        return "%u" in self.topic or "%c" in self.topic

    @property
    def text(self) -> str:
        """The line as the broker understands it, its access spelt out."""
        word = next(word for word, access in ACCESS_WORDS.items() if access is self.access)
        return f"{'pattern' if self.pattern else 'topic'} {word} {self.topic}"


@dataclass(slots=True)
class AclFile:
    """An acl_file."""

    path: str
    entries: list[AclEntry] = field(default_factory=list)
    """In file order, up to and beyond what the broker would stop at."""
    users: dict[str, list[int]] = field(default_factory=dict)
    """The lines of each user's `user` lines."""
    refused: list[Problem] = field(default_factory=list)
    """Why the broker does not start with it (or keeps denying everything after a reload)."""
    doubts: list[Problem] = field(default_factory=list)
    """What the broker takes in a way its author may not have meant."""

    def of_user(self, user: str | None) -> Sequence[AclEntry]:
        """Return a user's `topic` entries in the order the broker looks at them: the latest denial first."""
        return _denials_first(entry for entry in self.entries if not entry.pattern and entry.user == user)

    @property
    def patterns(self) -> Sequence[AclEntry]:
        """The `pattern` entries in the order the broker looks at them."""
        return _denials_first(entry for entry in self.entries if entry.pattern)


def _denials_first(entries: Iterable[AclEntry]) -> list[AclEntry]:
    """Order entries as `add__acl` links them: each denial goes to the front, everything else to the end."""
    ordered: list[AclEntry] = []
    for entry in entries:
        if entry.deny:
            ordered.insert(0, entry)
        else:
            ordered.append(entry)
    return ordered


def read_acl_file(path: str, files: Files | None = None) -> AclFile:
    """Read the file at `path`; raises OSError when it cannot be read, everything else is in the result's `refused`."""
    data = (files or Disk()).read(path)
    why = unfit(data)
    if why:
        return AclFile(path, refused=[Problem(f"acl_file {why}", path)])
    return parse_acl_file(path, data)


def why_unreadable(path: str, files: Files | None = None) -> str | None:
    """Return why a file cannot be read, None when it can."""
    try:
        (files or Disk()).read(path)
    except (OSError, ValueError) as error:
        return reason(error)
    return None


def parse_acl_file(path: str, data: bytes) -> AclFile:
    """Return what `data`, the contents of the acl_file at `path`, says."""
    acl = AclFile(path)
    user: str | None = None
    for number, line in enumerate(lines_of(data), 1):
        text = line.rstrip(_BLANKS)
        if text.startswith("#"):
            continue
        word, _, rest = text.lstrip(" ").partition(" ")
        if word == "user":
            name = rest.strip(_BLANKS)
            if not name:
                acl.refused.append(Problem("user line without a name", path, number))
                continue
            if " #" in name:
                acl.doubts.append(
                    Problem(
                        f"the broker takes what follows as part of the user name {name!r}: a comment has its own line",
                        path,
                        number,
                    )
                )
            user = name
            acl.users.setdefault(name, []).append(number)
        elif word in ("topic", "pattern"):
            _entry(acl, word == "pattern", rest, user, number)
        elif word:
            acl.refused.append(
                Problem(
                    f"line begins with {word!r}, not with topic, pattern or user",
                    path,
                    number,
                    "only spaces separate words, and a comment begins with # in the first column",
                )
            )
    return acl


def _entry(acl: AclFile, pattern: bool, rest: str, user: str | None, number: int) -> None:
    access_word, _, topic = rest.lstrip(" ").partition(" ")
    if not access_word:
        acl.refused.append(Problem("line without a topic", acl.path, number))
        return
    topic = topic.strip(_BLANKS)
    if not topic:
        # strtok() leaves nothing: the only word is the topic, and both reading and writing are granted.
        topic, access = access_word, Access.READWRITE
        if topic in ACCESS_WORDS:
            acl.doubts.append(
                Problem(
                    f"the broker takes {topic!r} as a topic and grants reading and writing it: no topic follows",
                    acl.path,
                    number,
                )
            )
    elif access_word in ACCESS_WORDS:
        access = ACCESS_WORDS[access_word]
    else:
        acl.refused.append(Problem(f"invalid access {access_word!r}: read, write, readwrite or deny", acl.path, number))
        return
    if not valid_filter(topic):
        acl.refused.append(Problem(f"invalid topic filter {topic!r}", acl.path, number))
        return
    acl.entries.append(AclEntry(pattern, access, topic, None if pattern else user, number))


def valid_filter(topic: str) -> bool:
    """Whether the broker takes `topic` as a topic filter (`mosquitto_sub_topic_check`, 2.0.11)."""
    if len(topic.encode("utf-8", "surrogateescape")) > MAX_TOPIC_BYTES or topic.count("/") > MAX_TOPIC_SLASHES:
        return False
    levels = topic.split("/")
    return all(
        ("+" not in level or level == "+") and ("#" not in level or (level == "#" and index == len(levels) - 1))
        for index, level in enumerate(levels)
    )
