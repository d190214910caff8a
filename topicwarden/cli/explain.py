"""`explain`: what a finding code means, why it matters, what to do, and what it cannot see."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from topicwarden.cli import EXIT_CLEAN
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.findings import load_catalogue
from topicwarden.output.text import explain


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
    for line in explain(found, console.width if console.is_terminal else None):
        console.print(line, soft_wrap=True)
    return EXIT_CLEAN
