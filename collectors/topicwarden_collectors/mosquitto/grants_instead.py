"""The smallest acl_file lines that leave a client what its policy intends of a grant."""

from __future__ import annotations

from collections.abc import Sequence

from topicwarden.events import Action, Client
from topicwarden.grants import Kept, Origin
from topicwarden.patterns.mqtt import is_name
from topicwarden_collectors.mosquitto.acl_file import Access
from topicwarden_collectors.mosquitto.acl_lines import entry_line, joined, user_line

_ACCESS = {Action.PUBLISH: Access.WRITE, Action.SUBSCRIBE: Access.READ}


def instead(origin: Origin, client: Client, kept: Sequence[Kept], *, ids_are_names: bool = False) -> str:
    """Return the lines in the place of the entry at `origin`; what no line can say for one client is a comment."""
    parts = joined((part.pattern, _ACCESS[part.action]) for part in kept if part.action in _ACCESS)
    user = client.user or None
    patterns: list[str] = []
    topics: list[str] = []
    unsaid: list[str] = []
    for topic, access in parts.items():
        variables = {"%u", "%c"} & set(topic.split("/"))
        if variables and origin.text.startswith("pattern "):
            line, lines = entry_line("pattern", access, topic), patterns
        else:
            named = _named(topic, user, user if ids_are_names else None)
            line, lines = (None if named is None else entry_line("topic", access, named)), topics
        if line is None:
            unsaid.append(f"# no line for one client alone says this: {topic!r}")
        else:
            lines.append(line)
    if topics:
        head = "# above the first user line:" if user is None else user_line(user)
        if head is None:
            unsaid.append(f"# no line names the user {user!r}")
            topics = []
        else:
            topics.insert(0, head)
    lines = [*unsaid, *patterns, *topics]
    if not patterns and not topics:
        lines.append(_removal(origin))
    return "\n".join(lines)


def _named(topic: str, user: str | None, client_id: str | None) -> str | None:
    """Put a client's names in the place of `%u` and `%c`; None when there is no such name, or it is no level."""
    names = {"%u": user, "%c": client_id}
    levels: list[str] = []
    for level in topic.split("/"):
        name = names.get(level, level)
        if name is None or (level in names and (not is_name(name) or "/" in name)):
            return None
        levels.append(name)
    return "/".join(levels)


def _removal(origin: Origin) -> str:
    if origin.line is None:
        return "# an acl_file that grants this client nothing; a client it does not mention is denied everything"
    return f"# remove line {origin.line}: {origin.text}"
