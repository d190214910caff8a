"""Decodes events in the Elastic Common Schema, one JSON object a line: Elastic Agent (Defend), Auditbeat, exports.

Keys may be nested or dotted. Taken are starts and ends of programs, and connections that the host made. Not taken:
forks (the program is still the parent's), processes that existed before the agent, failed starts, connections that the
host accepted, and the end of a connection whose beginning had an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from topicwarden.events import Dialled, Executed, Exited, HostEvent, Process
from topicwarden_collectors.host.addresses import endpoint
from topicwarden_collectors.host.lines import LineDecoder, json_object, number_of, text_of
from topicwarden_collectors.host.redaction import SeenCommand, seen_command, seen_joined_command
from topicwarden_collectors.host.times import iso_time

_EXECUTIONS: Final = frozenset({"exec", "executed", "execution", "process_started", "start", "process_start"})
_NO_EXECUTIONS: Final = frozenset({"fork", "existing_process", "process_error", "already_running"})
_ENDS: Final = frozenset({"end", "process_stopped", "exit", "exited", "process_end", "termination"})
_CONNECTIONS: Final = frozenset({"connection_attempted", "connected-to", "network_flow", "connect", "connection"})
_ACCEPTED: Final = frozenset(
    {"connection_accepted", "accepted-connection-from", "bound-socket", "listen-for-connections"}
)
_INBOUND: Final = frozenset({"ingress", "inbound"})


class EcsDecoder(LineDecoder):
    """Feed it bytes of JSON lines; see `LineDecoder`."""

    def _line(self, line: bytes) -> Iterator[HostEvent]:
        if not line.strip():
            return
        document = json_object(line)
        if document is None:
            self.counters.error("json")
            return
        inner = document.get("_source")
        event = Fields(inner if isinstance(inner, dict) else document)
        categories = event.words("event.category")
        if not categories & {"process", "network"}:
            return
        time_ns = iso_time(event.text("@timestamp") or "")
        if time_ns is None:
            self.counters.error("time")
            return
        host = event.text("host.name") or event.text("host.hostname") or self.host
        types, actions = event.words("event.type"), event.words("event.action")
        if "network" in categories and _is_connection(event, types, actions):
            yield from self._dialled(time_ns, host, event)
        elif "process" in categories:
            yield from self._process(time_ns, host, event, types, actions)

    def _process(
        self, time_ns: int, host: str, event: Fields, types: frozenset[str], actions: frozenset[str]
    ) -> Iterator[HostEvent]:
        started = bool(actions & _EXECUTIONS) or ("start" in types and not actions & _NO_EXECUTIONS)
        ended = bool(actions & _ENDS) or "end" in types
        if not started and not ended:
            return
        pid = event.number("process.pid")
        if pid is None:
            self.counters.error("pid")
            return
        if started and event.text("event.outcome") != "failure" and event.text("event.kind") != "state":
            executable = (event.text("process.executable") or event.text("process.name") or "").removesuffix(
                " (deleted)"
            )
            seen = _command(event, executable)
            yield Executed(
                time_ns,
                Process(
                    host,
                    pid,
                    executable,
                    seen.arguments,
                    seen.cut,
                    parent_pid=event.number("process.parent.pid"),
                    parent_executable=event.text("process.parent.executable"),
                    user=_user(event, "user"),
                    login_user=_login_user(event),
                    terminal=_terminal(event),
                    container=event.text("container.id"),
                    payload=seen.payload,
                ),
            )
        if ended:
            yield Exited(time_ns, host, pid)

    def _dialled(self, time_ns: int, host: str, event: Fields) -> Iterator[HostEvent]:
        remote = endpoint(event.text("destination.ip"), event.number("destination.port"))
        if remote is None:
            self.counters.error("address")
            return
        failed = event.text("event.outcome") == "failure"
        result = event.text("auditd.data.exit")
        if failed and result is not None and result not in ("EINPROGRESS", "ECONNREFUSED", "ETIMEDOUT"):
            return
        yield Dialled(
            time_ns,
            host,
            remote,
            local=endpoint(event.text("source.ip"), event.number("source.port")),
            pid=event.number("process.pid"),
            executable=event.text("process.executable") or event.text("process.name"),
            user=_user(event, "user"),
            transport=(event.text("network.transport") or "tcp").lower()[:16],
            established=False if failed and result != "EINPROGRESS" else None,
            sent=event.number("source.bytes"),
            duration_ns=event.number("event.duration"),
        )


class Fields:
    """An event's fields by their dotted names, however they are nested."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document

    def value(self, name: str) -> object:
        """Return a field, None when there is none."""
        found: object = self._document.get(name)
        if found is not None:
            return found
        return _inside(self._document, name)

    def text(self, name: str) -> str | None:
        """Return a field that is a text."""
        return text_of(self.value(name))

    def number(self, name: str) -> int | None:
        """Return a field that is a whole number and not negative."""
        number = number_of(self.value(name))
        return None if number is None or number < 0 else number

    def words(self, name: str) -> frozenset[str]:
        """Return a field that is a text or several."""
        value = self.value(name)
        if isinstance(value, str):
            return frozenset((value,))
        return frozenset(one for one in value if isinstance(one, str)) if isinstance(value, list) else frozenset()


def _inside(document: Mapping[str, Any], name: str) -> object:
    """Return a field whose name is split over several levels, at any of its dots."""
    dot = name.find(".")
    while dot >= 0:
        inner = document.get(name[:dot])
        if isinstance(inner, dict):
            rest = name[dot + 1 :]
            found: object = inner.get(rest)
            if found is None:
                found = _inside(inner, rest)
            if found is not None:
                return found
        dot = name.find(".", dot + 1)
    return None


def _is_connection(event: Fields, types: frozenset[str], actions: frozenset[str]) -> bool:
    if actions & _ACCEPTED or (event.text("network.direction") or "") in _INBOUND:
        return False
    if actions & _CONNECTIONS:
        return True
    return "connection" in types and "start" in types


def _command(event: Fields, executable: str) -> SeenCommand:
    listed = event.value("process.args")
    if isinstance(listed, list) and listed:
        count = event.number("process.args_count")
        texts = [one if isinstance(one, str) else "" for one in listed]
        return seen_command(texts, cut=count is not None and count > len(texts), executable=executable)
    line = event.text("process.command_line")
    if line is None:
        line = event.text("process.title")
        return seen_joined_command(line or "", cut=line is None or len(line) >= _TITLE, executable=executable)
    return seen_joined_command(line, executable=executable)


_TITLE: Final = 127
"""Length from which a process's title in audit records may have been cut."""


def _user(event: Fields, field: str) -> str | None:
    name = event.text(f"{field}.name")
    if name is not None:
        return name
    number = event.value(f"{field}.id")
    return str(number) if isinstance(number, int) and not isinstance(number, bool) else text_of(number)


def _login_user(event: Fields) -> str | None:
    name = _user(event, "user.audit") or event.text("auditd.data.auid")
    return None if name in ("unset", "4294967295", "-1") else name


def _terminal(event: Fields) -> str | None:
    name = event.text("auditd.data.tty")
    if name is not None:
        return None if name == "(none)" else name
    major = event.number("process.tty.char_device.major")
    minor = event.number("process.tty.char_device.minor")
    if major is None or minor is None:
        return None
    if 136 <= major <= 143:  # Unix98 pseudo-terminals, Documentation/admin-guide/devices.txt
        return f"pts{(major - 136) * 256 + minor}"
    return f"tty{minor}" if major == 4 and minor < 64 else None
