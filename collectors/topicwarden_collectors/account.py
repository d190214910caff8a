"""Our own account at a broker: the files that the command line names for it."""

from __future__ import annotations

import ssl
from pathlib import Path

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.sources import SourceOptions


def read_password(path: Path | None) -> str | None:
    """Return a password file's first line, None without a file; raises ConfigurationError when it cannot be read."""
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            return file.readline(4096).rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        hint = "its first line is the password, and this account must be able to read it"
        raise ConfigurationError(Problem(f"the password cannot be read: {why}", str(path), hint=hint)) from error


def tls_context(options: SourceOptions) -> ssl.SSLContext:
    """Return how we verify a broker and show ourselves; raises ConfigurationError naming the file that will not do."""
    file = options.cafile
    try:
        context = ssl.create_default_context(cafile=None if file is None else str(file))
        if options.certfile is not None:
            file = options.certfile
            context.load_cert_chain(options.certfile, options.keyfile)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigurationError(
            Problem(
                f"the certificate or key cannot be used: {why}",
                None if file is None else str(file),
                hint="--cafile, --certfile and --keyfile name PEM files; the key must have no passphrase",
            )
        ) from error
    return context
