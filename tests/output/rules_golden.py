"""Writes the golden files of exported rules anew: `python -m tests.output.rules_golden`."""

from __future__ import annotations

import shutil
from pathlib import Path

from topicwarden.cli.rules import FORMS, RulesOptions, run

FOLDER = Path(__file__).parent / "rules_golden"
POLICY = FOLDER / "policy.yaml"
"""The policy that the rules in `FORM-policy` were exported with."""


def write(folder: Path) -> None:
    """Export all rules in all forms, without and with a policy."""
    for form in FORMS:
        run(RulesOptions(form, folder / form))
        run(RulesOptions(form, folder / f"{form}-policy", POLICY))


if __name__ == "__main__":
    for old in FOLDER.iterdir():
        if old.is_dir():
            shutil.rmtree(old)
    write(FOLDER)
