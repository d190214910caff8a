"""What is documented of findings and controls is all there is."""

from __future__ import annotations

from pathlib import Path

import typer.main

from topicwarden.cli.app import app
from topicwarden.report.controls import FRAMEWORKS, Control, Framework
from topicwarden.report.coverage import Aspect, Need

DOCS = Path(__file__).parents[2] / "docs"


def test_every_option_of_findings_is_explained() -> None:
    text = (DOCS / "findings.md").read_text("utf-8")
    command = typer.main.get_command(app).commands["findings"]  # type: ignore[attr-defined]
    names = {name for parameter in command.params for name in parameter.opts if name.startswith("--")}
    assert len(names) > 15
    assert {name for name in names if f"`{name}" not in text and f" {name} " not in text} == {"--help"} & names


def test_every_framework_need_aspect_and_key_of_controls_is_explained() -> None:
    text = (DOCS / "controls.md").read_text("utf-8")
    words = [*FRAMEWORKS, *Need, *Aspect]
    keys = {*Control.model_fields, *Framework.model_fields}
    assert [word for word in words if f"`{word}`" not in text] == []
    assert [key for key in keys if f"{key}:" not in text and f"`{key}`" not in text] == []
