"""The files of a configuration: reading them, cutting them into lines, and the order of an include_dir."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from topicwarden.errors import ConfigurationError, Problem

MAX_FILE_BYTES = 16 * 1024 * 1024


class Files(Protocol):
    """Where configuration files come from."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes; raises OSError."""
        ...

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder, in any order; raises OSError."""
        ...


class Disk:
    """This machine's files."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes, at most one more than MAX_FILE_BYTES; raises OSError."""
        with Path(path).open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)

    def names(self, folder: str) -> list[str]:
        """Return the names in a folder."""
        return os.listdir(folder)  # noqa: PTH208 - the broker's own spelling of the path is kept, Path would change it


def main_file(path: str, files: Files) -> list[str]:
    """Return the lines of the file a person named; raises ConfigurationError saying what to name instead."""
    hint = "give the file the broker is started with (mosquitto -c FILE), usually /etc/mosquitto/mosquitto.conf"
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise ConfigurationError(Problem(f"there is no file {path!r}", hint=hint)) from None
    except IsADirectoryError:
        raise ConfigurationError(Problem(f"{path!r} is a directory, not a configuration file", hint=hint)) from None
    except PermissionError:
        raise ConfigurationError(
            Problem(f"{path!r} cannot be read: permission denied", hint="run this as root or as the broker's own user")
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(Problem(f"{path!r} cannot be read: {reason(error)}", hint=hint)) from error
    why = unfit(data)
    if why:
        raise ConfigurationError(Problem(f"{path!r} is not a mosquitto.conf: it {why}", hint=hint))
    return lines_of(data)


def reason(error: OSError | ValueError) -> str:
    """Return why a file could not be read, in the system's words."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "the path contains a NUL byte"


def unfit(data: bytes) -> str | None:
    """Return why bytes cannot be a text file that people wrote, None when they can."""
    if b"\0" in data:
        return "contains NUL bytes"
    if len(data) > MAX_FILE_BYTES:
        return f"is larger than {MAX_FILE_BYTES} bytes"
    return None


def lines_of(data: bytes) -> list[str]:
    r"""Cut a file into the lines the broker sees: only `\n` ends one, trailing `\r` are dropped."""
    text = data.decode("utf-8", "surrogateescape")
    return [line.rstrip("\r") if not line.startswith("\r") else "" for line in text.split("\n")]


def include_order(name: str) -> list[tuple[int, int]]:
    """Return the key by which the broker sorts the files of an include_dir.

    `conf_includedir.c`, 2.0.11: byte by byte, first without regard to case (ASCII), then with.
    """
    order = []
    for byte in os.fsencode(name):
        upper = byte - 32 if ord("a") <= byte <= ord("z") else byte
        order.append((upper, byte))
    return order
