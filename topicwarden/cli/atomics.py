"""Atomic tests: read as strictly as Atomic Red Team's own validator does, and filled in as Invoke-AtomicTest does.

The schema is upstream's `atomic_red_team/models.py` (August 2026), with unknown keys refused everywhere; the filling in
follows `Merge-InputArgs`, `Invoke-ExecuteCommand` and `Invoke-CheckPrereqs` of invoke-atomicredteam (May 2025).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit
from uuid import UUID

import yaml
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr, ValidationError, model_validator

from topicwarden.errors import ConfigurationError, Problem

Platform = Literal[
    "windows",
    "macos",
    "linux",
    "office-365",
    "azure-ad",
    "google-workspace",
    "saas",
    "iaas",
    "containers",
    "iaas:gcp",
    "iaas:azure",
    "iaas:aws",
    "esxi",
]
Shell = Literal["sh", "bash"]
ExecutorName = Literal["manual", "powershell", "sh", "bash", "command_prompt"]
Words = Annotated[StrictStr, Field(min_length=1)]
_PLACEHOLDER: Final = re.compile(r"#\{(.*?)\}")
_DOMAIN: Final = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9][a-z0-9-]{0,61}[a-z0-9]")
_FOLDER: Final = re.compile(r"\$?PathToAtomicsFolder", re.IGNORECASE)
"""PowerShell's `-replace` ignores case."""


class _Read(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextArgument(_Read):
    """A word that is put into commands."""

    description: StrictStr
    type: Literal["string", "path", "String", "Path"]
    default: StrictStr | None


class IntegerArgument(_Read):
    """A whole number that is put into commands."""

    description: StrictStr
    type: Literal["integer", "Integer"]
    default: StrictInt | None


class FloatArgument(_Read):
    """A number that is put into commands."""

    description: StrictStr
    type: Literal["float", "Float"]
    default: StrictFloat | None


class UrlArgument(_Read):
    """A URL, a domain or an address that is put into commands."""

    description: StrictStr
    type: Literal["url", "Url"]
    default: StrictStr | None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.default is not None and not (_DOMAIN.fullmatch(self.default) or _is_url_or_address(self.default)):
            raise ValueError(f"{self.default!r} is no URL, domain or address")
        return self


Argument = Annotated[TextArgument | IntegerArgument | FloatArgument | UrlArgument, Field(discriminator="type")]


class Dependency(_Read):
    """Something that must be there before a test can run."""

    description: Words
    prereq_command: Words
    get_prereq_command: StrictStr | None


class CommandExecutor(_Read):
    """Commands for a shell."""

    name: Literal["powershell", "sh", "bash", "command_prompt"]
    elevation_required: bool = False
    command: Words
    cleanup_command: StrictStr | None = None


class ManualExecutor(_Read):
    """Steps for a person; never played."""

    name: Literal["manual"]
    elevation_required: bool = False
    steps: Annotated[StrictStr, Field(min_length=10)]


class Atomic(_Read):
    """One test."""

    name: Words
    auto_generated_guid: UUID | None = None
    description: Words
    supported_platforms: Annotated[tuple[Platform, ...], Field(min_length=1)]
    input_arguments: Mapping[Annotated[str, Field(min_length=2, pattern=r"^[\w_-]+$")], Argument] = {}
    dependency_executor_name: ExecutorName | None = None
    dependencies: tuple[Dependency, ...] = ()
    executor: Annotated[CommandExecutor | ManualExecutor, Field(discriminator="name")]

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        used = {name for command in self._commands() for name in _PLACEHOLDER.findall(command)}
        if unused := set(self.input_arguments) - used:
            raise ValueError(f"used in none of the commands: {', '.join(sorted(unused))}")
        if missing := used - set(self.input_arguments):
            raise ValueError(f"not defined in input_arguments: {', '.join(sorted(missing))}")
        if "input_arguments" in self.model_fields_set and not self.input_arguments:
            raise ValueError("input_arguments is empty: leave it out")
        if "dependency_executor_name" in self.model_fields_set and not self.dependencies:
            raise ValueError("dependency_executor_name without dependencies: leave it out")
        if "dependency_executor_name" in self.model_fields_set and self.dependency_executor_name is None:
            raise ValueError("dependency_executor_name is empty: leave it out")
        executor = self.executor
        if isinstance(executor, CommandExecutor) and not executor.elevation_required:
            commands = executor.command + (executor.cleanup_command or "")
            if "sudo" in commands and {"linux", "macos"} & set(self.supported_platforms):
                raise ValueError("sudo is used: elevation_required must be true")
        return self

    def _commands(self) -> list[str]:
        executor = self.executor
        if isinstance(executor, ManualExecutor):
            commands: list[str | None] = [executor.steps]
        else:
            commands = [executor.command, executor.cleanup_command]
        for dependency in self.dependencies:
            commands += [dependency.prereq_command, dependency.get_prereq_command]
        return [command for command in commands if command]

    def filled(self, command: str, values: Mapping[str, str], folder: Path) -> str:
        """Return a command of this test with its arguments, those in `values` in place of their defaults.

        Values for other arguments are ignored, as upstream does. Raises ConfigurationError for a value that is itself
        a placeholder: upstream replaces in no order, so what would come of it is not defined.
        """
        for name, argument in self.input_arguments.items():
            value = values.get(name, "" if argument.default is None else str(argument.default))
            if _PLACEHOLDER.search(value):
                raise ConfigurationError(Problem(f"the value of {name} is a placeholder itself: {value!r}"))
            command = command.replace(f"#{{{name}}}", value)
        return _FOLDER.sub(lambda _: str(folder), command)

    @property
    def dependency_executor(self) -> ExecutorName:
        """The shell that tells whether a dependency is there."""
        return self.dependency_executor_name or self.executor.name


class Technique(_Read):
    """A file of tests."""

    attack_technique: Annotated[StrictStr, Field(pattern=r"^T\d{4}(?:\.\d{3})?$")]
    display_name: Annotated[StrictStr, Field(min_length=5)]
    atomic_tests: Annotated[tuple[Atomic, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        guids = [test.auto_generated_guid for test in self.atomic_tests if test.auto_generated_guid is not None]
        if len(set(guids)) < len(guids):
            raise ValueError("two tests have the same auto_generated_guid")
        return self


def read_technique(path: Path) -> Technique:
    """Read a file of tests; raises ConfigurationError with everything that is wrong with it."""
    if path.suffix != ".yaml":
        raise ConfigurationError(Problem("the name does not end in .yaml", str(path)))
    try:
        return Technique.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
    except yaml.YAMLError as error:
        raise ConfigurationError(Problem(f"not YAML: {error}", str(path))) from error
    except ValidationError as error:
        raise ConfigurationError(*problems_of(error, path)) from error


def problems_of(error: ValidationError, path: Path) -> Sequence[Problem]:
    """Return one problem for each thing that is wrong, with its place in the file."""
    return [
        Problem(f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg']}", str(path)) for one in error.errors()
    ]


def shell_argument(command: str) -> str:
    """Return what the shell gets behind `-c` from a filled in command.

    Upstream trims it, joins its lines with `; ` except behind a `;`, and passes it through .NET's quoting, which leaves
    every backslash doubled that stands neither before a `;` nor before a double quote.
    """
    quoted = re.sub(r"\\(?!;)", r"\\\\", command.strip()).replace('"', '\\"')
    quoted = re.sub(r"(?<!;)\n", "; ", quoted)
    return _as_dotnet_reads(f'"{quoted}"')


def prerequisite_argument(command: str) -> str:
    """Return what the shell gets behind `-c` to tell whether a dependency is there: every line must succeed."""
    return shell_argument(command.strip().replace("\n", " && "))


def _as_dotnet_reads(argument: str) -> str:
    """Return a quoted argument as `ProcessStartInfo.Arguments` is split on Unix (.NET 8)."""
    read: list[str] = []
    position = 1
    while position < len(argument):
        after = position
        while after < len(argument) and argument[after] == "\\":
            after += 1
        backslashes = after - position
        quote = after < len(argument) and argument[after] == '"'
        read.append("\\" * (backslashes // 2 if quote else backslashes))
        if quote:
            if backslashes % 2 == 0:
                break
            read.append('"')
        elif after < len(argument):
            read.append(argument[after])
        position = after + 1
    return "".join(read)


def _is_url_or_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        parts = urlsplit(text)
        return bool(parts.scheme and (parts.netloc or parts.path))
    return True
