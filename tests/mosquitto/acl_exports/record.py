"""Writes the golden exports anew (`python -m tests.mosquitto.acl_exports.record`); read the difference first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from topicwarden.events import Client
from topicwarden.grants import Export
from topicwarden.policy import load_policy
from topicwarden_collectors.mosquitto.export import export

FOLDER = Path(__file__).parent
ACCOUNTS: Mapping[str, Sequence[str | None]] = {
    "fleet": ["sensor-2", "sensor-1", "gateway", "contractor"],
    "everybody": ["bob", "a/b", "a+b", None],
    "unsayable": ["bob", "$SYS", " blank"],
    "empty": [],
}
"""The accounts each policy is exported for."""


def exported(name: str) -> Export:
    """Export a golden policy."""
    accounts = [Client("plant", "mqtt", "", user) for user in ACCOUNTS[name]]
    return export("mosquitto-acl", load_policy(FOLDER / f"{name}.yaml"), accounts)


def told(found: Export) -> str:
    """Return what an export says of itself, a line each."""
    lines = [f"unsaid\t{one.where}\t{one.what}" for one in found.unsaid]
    lines += [f"denied more\t{one.where}\t{one.what}" for one in found.denied_more]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    for each in ACCOUNTS:
        result = exported(each)
        (FOLDER / f"{each}.acl").write_text(result.files["mosquitto.acl"])
        (FOLDER / f"{each}.told").write_text(told(result))
