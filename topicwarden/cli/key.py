"""`key`, and the key that signs a store's checkpoints."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Final

from topicwarden.cli import EXIT_CLEAN
from topicwarden.errors import ConfigurationError, Problem
from topicwarden.output.escape import visible
from topicwarden.store.log import sync_folder
from topicwarden.store.notes import NoteError, Signer, Verifier

MAX_KEY: Final = 4096
ADVICE: Final = "keep it where nobody who can write here can: `topicwarden verify DIR --public-key KEY` needs it"
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]")


def run_new(file: Path, name: str | None) -> int:
    """Make a key and print its public half; raises ConfigurationError when there is one, or it cannot be written."""
    verifier = _made(file, name)
    sys.stdout.write(f"{verifier}\n")
    sys.stderr.write(f"note: this is the public key of {visible(str(file))}; {ADVICE}\n")
    return EXIT_CLEAN


def run_public(file: Path) -> int:
    """Print the public half of a key; raises ConfigurationError."""
    sys.stdout.write(f"{_read(file).verifier}\n")
    return EXIT_CLEAN


def default_key_file() -> Path:
    """Return where the key lies that is made when none is given: never within a store."""
    if os.geteuid() == 0:
        return Path("/etc/topicwarden/store.key")
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "topicwarden" / "store.key"


def store_signer(path: Path | None) -> Signer:
    """Return the key in this file, or the default one, which is made when there is none; raises ConfigurationError."""
    file = path or default_key_file()
    if path is None and not file.exists():
        verifier = _made(file, None)
        sys.stderr.write(f"note: made a key to sign evidence with, {visible(str(file))}; its public key is\n")
        sys.stderr.write(f"  {verifier}\n{ADVICE}\n")
    return _read(file)


def default_name() -> str:
    """Return a name for this machine's key."""
    host = _NO_NAME.sub("-", socket.gethostname())[:100].strip("-")
    return f"topicwarden/{host}" if host else "topicwarden"


def _read(file: Path) -> Signer:
    try:
        with file.open(encoding="ascii", errors="replace") as opened:
            text = opened.read(MAX_KEY)
    except FileNotFoundError as error:
        hint = "make one: topicwarden key new FILE"
        raise ConfigurationError(Problem("no such file", str(file), hint=hint)) from error
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be read: {error.strerror}", str(file))) from error
    try:
        return Signer.parse(text)
    except NoteError as error:
        raise ConfigurationError(Problem(str(error), str(file))) from error


def _made(file: Path, name: str | None) -> Verifier:
    """Make a key that only this account may read; one that is there is never written over."""
    try:
        signer = Signer.generate(default_name() if name is None else name)
    except NoteError as error:
        raise ConfigurationError(Problem(f"--name {name!r}: {error}", hint="such as plant-1/audit")) from error
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(signer.encoded() + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        sync_folder(file.parent)
    except FileExistsError as error:
        hint = "a key that signs a store is never replaced; name another file"
        raise ConfigurationError(Problem("there is a file already", str(file), hint=hint)) from error
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be written: {error.strerror}", str(file))) from error
    return signer.verifier
