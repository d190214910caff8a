"""`explain`: what a finding code means, why it matters, what to do, and what it cannot see."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from topicwarden.cli import EXIT_CLEAN
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import FindingType, load_catalogue


def run(code: str | None) -> int:
    """Print one code's explanation, or the list of all; raises ConfigurationError for a code there is not."""
    catalogue = load_catalogue()
    console = Console(highlight=False)
    if code is None:
        for entry in catalogue.values():
            console.print(Text(f"{entry.code}  {entry.severity.name.lower():<8}  {entry.name}"), soft_wrap=True)
        return EXIT_CLEAN
    found = catalogue.find(code)
    if found is None:
        known = ", ".join(catalogue)
        raise ConfigurationError(Problem(f"there is no finding {code!r}", hint=f"one of: {known}, or a dotted name"))
    _print(found, console)
    return EXIT_CLEAN


def _print(entry: FindingType, console: Console) -> None:
    console.print(Text(f"{entry.code} {entry.name} ({entry.severity.name.lower()})", "bold"))
    console.print(Text(entry.difference))
    sections = {"What it means": entry.meaning, "Why it matters": entry.why, "What to do": entry.fix}
    for title, text in sections.items():
        console.print(Text(f"\n{title}", "bold"))
        console.print(Text(" ".join(text.split())))
    console.print(Text("\nWhat it cannot see", "bold"))
    for limit in entry.limits:
        console.print(Text(f"- {' '.join(limit.split())}"))
    references = [*([f"ATT&CK: {', '.join(entry.attack)}"] if entry.attack else [])]
    references += [f"{framework}: {', '.join(ids)}" for framework, ids in entry.controls.items()]
    if references:
        console.print(Text("\nReferences", "bold"))
        for reference in references:
            console.print(Text(f"- {reference}"))
    console.print(Text("\nNeeds a policy: " + ("yes" if entry.needs_policy else "no")))
