"""`rules`: the catalogue's rules about hosts, written for other programs, and what of each cannot be said there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.text import Text

from topicwarden.cli import EXIT_CLEAN
from topicwarden.cli.options import one_of
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import Catalogue, load_catalogue
from topicwarden.findings.rule_lists import load_rule_lists
from topicwarden.output.escape import visible
from topicwarden.output.layout import columns, wrap
from topicwarden.output.rule_conditions import UnsupportedError
from topicwarden.output.rule_fields import Here
from topicwarden.output.rules import ExportedRule, PreparedRule, prepare
from topicwarden.output.rules_elastic import elastic_rule
from topicwarden.output.rules_sigma import sigma_rule
from topicwarden.output.sinks import TextSink
from topicwarden.policy import Inventory, load_policy

FORMS: Final[Mapping[str, Callable[[PreparedRule], ExportedRule]]] = {"elastic": elastic_rule, "sigma": sigma_rule}
"""What rules can be written as."""


@dataclass(frozen=True, slots=True)
class RulesOptions:
    """What the user asked for."""

    to: str | None = None
    """None: only a list of the rules and what they can be written as."""
    output: Path | None = None
    policy: Path | None = None


def run(options: RulesOptions) -> int:
    """Write the rules, or list them; returns the exit code.

    Raises ConfigurationError for a form there is not, a folder that cannot be written, or a policy that will not do.
    """
    catalogue = load_catalogue()
    here = _here(options.policy, catalogue)
    sink = TextSink(sys.stdout)
    if options.to is None:
        if options.output is not None:
            raise ConfigurationError(Problem("--output needs to know the form", hint="--to elastic, or --to sigma"))
        sink.print(_listed(catalogue, here, sink.width))
        return EXIT_CLEAN
    one_of("--to", options.to, tuple(FORMS))
    if options.output is None:
        raise ConfigurationError(Problem("there are several files to write", hint="name a folder with --output"))
    exported = export_rules(catalogue, here, options.to)
    _write(exported, options.output)
    sink.print(_told(exported, options.output, sink.width))
    return EXIT_CLEAN


def export_rules(catalogue: Catalogue, here: Here, form: str) -> list[ExportedRule]:
    """Return what every rule about hosts comes to in a form, those that cannot be exported too."""
    # What the policy approves is written out where a rule asks for it; no rule has it as a list.
    lists = {**load_rule_lists(), "approved_addresses": (), "approved_ports": ()}
    exported: list[ExportedRule] = []
    for code, finding_type in catalogue.items():
        if not finding_type.difference.startswith("hosts") and finding_type.detection is None:
            continue
        try:
            exported.append(FORMS[form](prepare(finding_type, here, lists)))
        except UnsupportedError as error:
            exported.append(ExportedRule(code, finding_type.name, {}, why=str(error)))
    return exported


def _here(policy: Path | None, catalogue: Catalogue) -> Here:
    codes = [*catalogue, *(entry.name for entry in catalogue.values())]
    inventory = Inventory() if policy is None else load_policy(policy, codes).inventory
    ports = [port for port in load_rule_lists()["pubsub_ports"] if isinstance(port, int)]
    return Here(inventory, ports)


def _write(exported: Sequence[ExportedRule], folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in exported:
            for name, text in one.files.items():
                (folder / name).write_text(text, "utf-8")
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be written: {error.strerror}", str(folder))) from error


def _told(exported: Sequence[ExportedRule], folder: Path, width: int | None) -> list[Text]:
    """Return what was written, and what was not and why."""
    lines: list[Text] = []
    for one in exported:
        heading = Text.assemble((one.code, "bold"), f" {one.name}  ")
        if one.why is not None:
            lines += wrap(
                Text.assemble(heading, ("not exported", "yellow"), f": {visible(one.why)}"), width, rest="    "
            )
            continue
        lines += wrap(Text.assemble(heading, visible(", ".join(one.files))), width, rest="    ")
        for loss in one.losses:
            lines += wrap(Text(f"- {visible(loss)}", "dim"), width, "    ", "      ")
    files = sum(len(one.files) for one in exported)
    written = sum(one.why is None for one in exported)
    told = f"{written} of {len(exported)} rules, {files} files in {visible(str(folder))}"
    return [*lines, *wrap(Text(told, "bold"), width)]


def _listed(catalogue: Catalogue, here: Here, width: int | None) -> list[Text]:
    by_form = {form: {one.code: one for one in export_rules(catalogue, here, form)} for form in FORMS}
    rows = [[Text(word, "bold") for word in ("rule", "severity", "elastic", "sigma", "name")]]
    for code in next(iter(by_form.values())):
        forms = [Text("yes" if by_form[form][code].why is None else "no") for form in FORMS]
        rows.append([Text(code), Text(catalogue[code].severity.name.lower()), *forms, Text(catalogue[code].name)])
    lines = [line for row in columns(rows) for line in wrap(row, width, rest="    ")]
    hint = "topicwarden rules --to elastic|sigma -o DIR writes them; --policy FILE: with what is approved here"
    return [*lines, *wrap(Text(hint, "dim"), width)]
