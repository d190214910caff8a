"""Applies a doctor's fix the way a person would: edits where the comment says, commands as root."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

_HEADER = re.compile(
    r"# (?P<file>/.*): (?:(?P<how>add before|replace|remove) line (?P<line>\d+)|add at the end|new file)$"
)


def apply_fix(fix: str, places: Mapping[str, str]) -> None:
    """Apply `fix`; `places` maps the paths of a real machine to the test's own."""
    for ours, theirs in places.items():
        fix = fix.replace(ours, theirs)
    for block in re.split(r"\n\n(?=# )", fix):
        header, *lines = block.split("\n")
        if header == "# as root":
            for command in lines:
                _run(command)
            continue
        where = _HEADER.match(header)
        if where is None:
            raise AssertionError(f"no such header in a fix: {header!r}")
        _edit(where, lines)


def _edit(where: re.Match[str], lines: list[str]) -> None:
    path = Path(where["file"])
    if where[0].endswith(": new file"):
        path.write_text("\n".join(lines) + "\n")
        return
    text = path.read_text().split("\n")
    if text[-1] == "":
        text.pop()
    if where["how"] is None:
        text += lines
    else:
        index = int(where["line"]) - 1
        assert index <= len(text), f"{path} has no line {index + 1}"
        text[index : index + (where["how"] != "add before")] = lines
    path.write_text("\n".join([*text, ""]))


def _run(command: str) -> None:
    if os.geteuid() != 0:  # what only root can do is left out, the rest of the fix is tried
        if command.startswith("chown "):
            return
        command = re.sub(r" -o \S+ -g \S+", "", command)
    done = subprocess.run(["sh", "-e", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
