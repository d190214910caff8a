"""The command line: `main` runs it; `exit_with` turns what a command did, or the error it met, into an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Final, NoReturn

from topicwarden.errors import TopicwardenError

EXIT_CLEAN: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_USAGE: Final = 2
EXIT_BLIND: Final = 3
"""Could not observe."""
EXIT_INTERRUPTED: Final = 130
"""Ctrl-C ended us (what the shell reports for SIGINT)."""
EXIT_PIPE_CLOSED: Final = 141
"""Whoever read our output went away (what the shell reports for SIGPIPE)."""
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What is wrong when a file that is open cannot be written any more."""


def main() -> None:
    """Run the command line and exit with its code; wrong usage exits 2 with typer's own words."""
    try:
        from topicwarden.cli.app import app
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)

    app()


def exit_with(command: Callable[[], int]) -> NoReturn:
    """Run a command's body and exit with the code it returns, or with that of the error it met."""
    try:
        code = command()
        sys.stdout.flush()
    except TopicwardenError as error:
        print_error(error)
        code = error.exit_code
    except BrokenPipeError:
        # `topicwarden … | head`: nothing went wrong. This keeps the interpreter from flushing
        # into the pipe once more when it ends.
        _discard_output()
        code = EXIT_PIPE_CLOSED
    except OSError as error:
        # Whoever opens files says what is wrong with them; this is our output that cannot be written.
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        _discard_output()
        sys.stderr.write(f"error: the output cannot be written: {error.strerror or error}\n")
        code = EXIT_USAGE
    sys.exit(code)


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_error(error: TopicwardenError) -> None:
    """Print every problem, one after the other, to stderr; hostile text in them is escaped."""
    from topicwarden.output.escape import visible

    for problem in error.problems:
        where = problem.file or ""
        if problem.file and problem.line:
            where += f":{problem.line}"
        prefix = f"{visible(where)}: " if where else ""
        sys.stderr.write(f"error: {prefix}{visible(problem.message)}\n")
        if problem.hint:
            sys.stderr.write("\n" + "".join(f"hint: {line}\n" for line in problem.hint.split("\n")))
