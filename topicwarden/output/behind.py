"""The process behind a finding, in each format's own words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any, Final

from topicwarden.events import Endpoint, Process, executable_name
from topicwarden.findings import Finding
from topicwarden.hosts.join import Attribution
from topicwarden.output.escape import quoted, visible
from topicwarden.output.wording import ip_address

_WORD_COLUMNS: Final = 120
"""Columns one argument may take where people read it."""


def place(finding: Finding, columns: int | None = None) -> str:
    """Return where it was seen: `broker plant-a`, `host ci-7`."""
    if finding.host is not None:
        return f"host {quoted(finding.host, columns)}"
    return f"broker {quoted(finding.broker, columns)}"


def command_line(process: Process, columns: int | None = _WORD_COLUMNS) -> str:
    """Return what was run as a person would type it, each word made visible; `…` where arguments are missing."""
    words = process.arguments or ((process.executable,) if process.executable else ())
    shown = " ".join(_word(word, columns) for word in words) or "(command line not known)"
    return f"{shown} …" if process.cut else shown


def process_in_words(behind: Attribution, columns: int | None = None) -> str:
    """Return who ran what, and how sure it is that this process did it."""
    process = behind.process
    facts = []
    if process.executable and (not process.arguments or process.arguments[0] != process.executable):
        facts.append(quoted(process.executable, columns))
    facts.append(f"process {process.pid}")
    facts.append("user not known" if process.user is None else f"user {quoted(process.user, columns)}")
    if process.login_user is not None and process.login_user != process.user:
        facts.append(f"logged in as {quoted(process.login_user, columns)}")
    if process.parent_executable is not None:
        facts.append(f"started by {quoted(process.parent_executable, columns)}")
    if process.terminal is not None:
        facts.append(f"on terminal {quoted(process.terminal, columns)}")
    if process.container is not None:
        facts.append(f"in container {quoted(process.container[:12], columns)}")
    facts.append(f"host {quoted(process.host, columns)}")
    sure = behind.sureness.value if behind.candidates == 1 else f"{behind.sureness.value}, one of {behind.candidates}"
    return f"{', '.join(facts)}; {sure}: {visible(behind.reason)}"


def behind_object(behind: Attribution) -> dict[str, Any]:
    """Return it for JSON lines; what is not known is null."""
    process = behind.process
    return {
        "host": process.host,
        "pid": process.pid,
        "executable": process.executable or None,
        "arguments": list(process.arguments),
        "arguments_cut": process.cut,
        "parent_pid": process.parent_pid,
        "parent_executable": process.parent_executable,
        "user": process.user,
        "login_user": process.login_user,
        "terminal": process.terminal,
        "container": process.container,
        "sureness": behind.sureness.value,
        "reason": behind.reason,
        "candidates": behind.candidates,
        "local": _endpoint(behind.local),
        "remote": _endpoint(behind.remote),
    }


def ecs_fields(behind: Attribution) -> dict[str, Any]:
    """Return ECS `process`, `host` and, where the join is exact, `destination` of the process behind a finding."""
    process = behind.process
    found: dict[str, Any] = {"pid": process.pid}
    if process.executable:
        found |= {"executable": process.executable, "name": executable_name(process.executable)}
    if process.arguments:
        found |= {
            "args": list(process.arguments),
            "args_count": len(process.arguments),
            "command_line": shlex.join(process.arguments),
        }
    parent: dict[str, Any] = {}
    if process.parent_pid is not None:
        parent["pid"] = process.parent_pid
    if process.parent_executable is not None:
        parent |= {"executable": process.parent_executable, "name": executable_name(process.parent_executable)}
    if parent:
        found["parent"] = parent
    if process.user is not None:
        found["user"] = {"name": process.user}
    document: dict[str, Any] = {"process": found, "host": {"hostname": process.host, "name": process.host}}
    if process.container is not None:
        document["container"] = {"id": process.container}
    return document


def ocsf_process(behind: Attribution) -> dict[str, Any]:
    """Return the process as OCSF's object."""
    process = behind.process
    found: dict[str, Any] = {"pid": process.pid}
    if process.executable:
        name = executable_name(process.executable)
        found |= {"name": name, "file": {"name": name, "path": process.executable, "type_id": 1}}
    if process.arguments:
        found["cmd_line"] = shlex.join(process.arguments)
    if process.user is not None:
        found["user"] = {"name": process.user, "type_id": 0}
    if process.parent_pid is not None:
        found["parent_process"] = {"pid": process.parent_pid}
    return found


def _word(word: str, columns: int | None) -> str:
    return quoted(word, columns)


def _endpoint(endpoint: Endpoint | None) -> Mapping[str, Any] | None:
    if endpoint is None:
        return None
    return {"address": ip_address(endpoint.address) or endpoint.address, "port": endpoint.port}
