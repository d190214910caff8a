"""A policy file that is changed: whole or not at all, and not when somebody else changed it meanwhile."""

from __future__ import annotations

import codecs
import contextlib
import os
import secrets
import stat
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Self

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.output.escape import visible
from topicwarden.policy.loading import MAX_BYTES


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy file as it was read."""

    path: Path
    """As it was named; a symbolic link is followed, never replaced."""
    data: bytes
    text: str
    """Without a byte order mark, with the file's own line breaks."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file; raises ConfigurationError."""
        try:
            with path.open("rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigurationError(Problem("not a regular file: it cannot be changed", str(path)))
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise ConfigurationError(
                Problem(f"cannot read the policy: {error.strerror or error}", str(path), hint="check the path")
            ) from error
        if len(data) > MAX_BYTES:
            raise ConfigurationError(Problem(f"a policy cannot be larger than {MAX_BYTES} bytes", str(path)))
        try:
            text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigurationError(Problem("not UTF-8", str(path), hint="save the file as UTF-8")) from error
        return cls(path, data, text)

    def diff(self, text: str) -> str:
        """Return what would change, as a unified diff whose lines are fit for a terminal."""
        names = (str(self.path), f"{self.path} (changed)")
        lines = list(unified_diff(self.text.splitlines(), text.splitlines(), *names, lineterm=""))
        shown = [line[:1] + visible(line[1:].replace("\t", "        ")) for line in lines]
        return "\n".join(shown) + "\n"

    def write(self, text: str) -> None:
        """Replace the file's text; raises ConfigurationError when it cannot, or the file is not what was read.

        The new file has the old one's mode, owner and extended attributes. A hard link elsewhere keeps the old text.
        """
        mark = codecs.BOM_UTF8 if self.data.startswith(codecs.BOM_UTF8) else b""
        target = self.path.resolve()
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.new")
        try:
            self._replace(target, temporary, mark + text.encode("utf-8"))
        except OSError as error:
            raise ConfigurationError(
                Problem(f"cannot be written: {error.strerror or error}", str(self.path), hint="nothing was changed")
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _replace(self, target: Path, temporary: Path, data: bytes) -> None:
        was = target.stat()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if (was.st_uid, was.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, was.st_uid, was.st_gid)
            for name in os.listxattr(target):
                # An access control list counts like the mode; what the system alone may set, it sets.
                with contextlib.suppress(OSError):
                    os.setxattr(descriptor, name, os.getxattr(target, name))
            os.fchmod(descriptor, stat.S_IMODE(was.st_mode))
            os.fsync(descriptor)
        if target.read_bytes() != self.data:
            raise ConfigurationError(
                Problem("was changed by somebody else meanwhile", str(self.path), hint="nothing was written; try again")
            )
        temporary.replace(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
