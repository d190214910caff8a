"""RabbitMQ's configuration as files: rabbitmq.conf, conf.d, advanced.config, enabled_plugins.

Read as 3.10.8 reads them: rabbitmq.conf first, then `conf.d/*.conf` beside it in the order of their names, the last of
equal keys counting; advanced.config over both.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden_collectors.rabbitmq.conf_lines import Setting, read_lines
from topicwarden_collectors.rabbitmq.conf_terms import Atom, Term, TermError, read_terms

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
MAX_FILES: Final = 256
_OVERRIDE: Final = re.compile(
    r"\s*(?:export\s+)?((?:RABBITMQ_)?(?:CONFIG_FILES?|ADVANCED_CONFIG_FILE|ENABLED_PLUGINS(?:_FILE)?|NODE_IP_ADDRESS"
    r"|NODE_PORT|SERVER_START_ARGS|SERVER_ADDITIONAL_ERL_ARGS))=\S"
)
_HINT: Final = "give RabbitMQ's folder, usually /etc/rabbitmq, or its rabbitmq.conf, advanced.config or definitions"


@dataclass(slots=True)
class Configuration:
    """What a node's files say."""

    path: str
    """What a person named."""
    main: str
    """The rabbitmq.conf that lines are to be added to; it need not exist."""
    settings: dict[str, Setting] = field(default_factory=dict)
    """By key, its words joined by dots."""
    advanced_file: str = ""
    """The advanced.config that terms are to be added to; it need not exist."""
    terms: dict[tuple[str, str], Term] = field(default_factory=dict)
    """Values of advanced.config by application and key."""
    plugins: frozenset[str] | None = None
    """Plugins enabled explicitly; None: there is no such file."""
    plugins_file: str = ""
    files: list[str] = field(default_factory=list)
    """Every file read."""
    refused: list[Problem] = field(default_factory=list)
    """What the node does not start with."""
    unread: list[Problem] = field(default_factory=list)
    """What could not be read or understood here."""

    def get(self, key: str) -> Setting | None:
        """Return a setting of rabbitmq.conf or conf.d."""
        return self.settings.get(key)

    def below(self, prefix: str) -> Sequence[Setting]:
        """Return all settings whose keys are `prefix` or begin with it and a dot."""
        return [one for key, one in self.settings.items() if key == prefix or key.startswith(prefix + ".")]

    def term(self, application: str, key: str) -> Term | None:
        """Return a value of advanced.config, None when it has none."""
        return self.terms.get((application, key))

    def has_plugin(self, name: str) -> bool | None:
        """Whether a plugin is enabled explicitly; None when the file of plugins is not there."""
        return None if self.plugins is None else name in self.plugins


def read_configuration(path: str) -> Configuration:
    """Read the configuration a person named: a folder, or one of the files in it.

    Raises ConfigurationError when there is nothing there, or nothing of RabbitMQ's.
    """
    target = Path(path)
    if not os.path.lexists(path):
        raise ConfigurationError(Problem("there is no such file or folder", path, hint=_HINT))
    folder = target if target.is_dir() else target.parent
    if folder.name == "conf.d" and folder != target:
        folder = folder.parent
    main = folder / "rabbitmq.conf"
    if target.suffix == ".conf" and target.parent == folder and target.is_file() and "-env" not in target.name:
        main = target
    found = Configuration(path, str(main))
    _read_main(found, main)
    advanced = target if target.suffix == ".config" and not target.is_dir() else folder / "advanced.config"
    found.advanced_file = str(advanced)
    for file in dict.fromkeys((folder / "rabbitmq.config", advanced)):
        _read_advanced(found, str(file))
    found.plugins_file = str(folder / "enabled_plugins")
    _read_plugins(found)
    environment = folder / "rabbitmq-env.conf"
    _read_environment(found, str(environment))
    if not found.files and not found.unread:
        raise ConfigurationError(Problem("there is no configuration of RabbitMQ here", path, hint=_HINT))
    if target.is_file() and str(target) not in found.files and not found.unread:
        raise ConfigurationError(Problem("this is no configuration file of RabbitMQ", path, hint=_HINT))
    return found


def _read_main(found: Configuration, main: Path) -> None:
    _read_file(found, str(main))
    # Files whose names begin with a dot are left out: glob and filelib:wildcard agree about that.
    for file in sorted((main.parent / "conf.d").glob("[!.]*.conf")):
        if file.is_file():
            _read_file(found, str(file))


def _read_file(found: Configuration, file: str) -> None:
    data = None if file in found.files else _data(found, file)
    if data is None:
        return
    lines = read_lines(data, file)
    found.refused += lines.refused
    includes = list(lines.includes)
    for setting in lines.settings:
        while includes and includes[0][1] < setting.line:
            _include(found, file, *includes.pop(0))
        found.settings[setting.key] = setting
    for path, line in includes:
        _include(found, file, path, line)


def _include(found: Configuration, file: str, path: str, line: int) -> None:
    """Read what a file includes, in its place; the path is relative to the file (cuttlefish 3.0.1)."""
    inside = sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(file)), path)))  # noqa: PTH118, PTH120, PTH207 - the path is a pattern
    if not inside:
        found.unread.append(Problem(f"the included {path!r} is not here", file, line))
    for one in inside:
        _read_file(found, one)


def _read_advanced(found: Configuration, file: str) -> None:
    text = _text(found, file)
    if text is None:
        return
    try:
        terms = read_terms(text)
    except TermError as error:
        found.unread.append(Problem(f"it was not understood: {error}", file, error.line))
        return
    for application, settings in _pairs(terms[0] if len(terms) == 1 else None):
        for key, value in _pairs(settings):
            found.terms[(application, key)] = value


def _read_plugins(found: Configuration) -> None:
    text = _text(found, found.plugins_file)
    if text is None:
        return
    try:
        terms = read_terms(text)
    except TermError as error:
        found.unread.append(Problem(f"it was not understood: {error}", found.plugins_file, error.line))
        return
    listed = terms[0] if len(terms) == 1 else None
    if not isinstance(listed, list):
        found.unread.append(Problem("it is no list of plugins", found.plugins_file))
        return
    found.plugins = frozenset(str(one) for one in listed if isinstance(one, Atom))


def _read_environment(found: Configuration, file: str) -> None:
    """Note what rabbitmq-env.conf, a shell script, puts in the place of other files or listeners."""
    text = _text(found, file)
    for number, line in enumerate((text or "").split("\n"), 1):
        setting = _OVERRIDE.match(line)
        if setting is not None:
            found.unread.append(
                Problem(f"{setting[1]} is set here and counts instead of what stands in files", file, number)
            )


def _pairs(term: Term | None) -> Iterator[tuple[str, Term]]:
    """Yield the pairs of a property list; a lone atom is one whose value is true."""
    for one in term if isinstance(term, list) else ():
        match one:
            case (Atom() as key, value):
                yield str(key), value
            case Atom():
                yield str(one), Atom("true")


def _text(found: Configuration, file: str) -> str | None:
    data = _data(found, file)
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")  # Erlang's own way with such files


def _data(found: Configuration, file: str) -> bytes | None:
    """Return a file's bytes; None when it does not exist, or cannot be read, which is then noted."""
    if len(found.files) >= MAX_FILES:
        found.unread.append(Problem(f"there are more than {MAX_FILES} files; this one was not read", file))
        return None
    try:
        with Path(file).open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        found.unread.append(Problem(f"it cannot be read: {why}", file))
        return None
    if len(data) > MAX_FILE_BYTES or b"\0" in data:
        what = "it is no text" if b"\0" in data else f"it is larger than {MAX_FILE_BYTES >> 20} MiB"
        found.unread.append(Problem(what, file))
        return None
    found.files.append(file)
    return data


def table(term: Term | None) -> Mapping[str, Term]:
    """Return a property list as a mapping; empty when it is none."""
    return dict(_pairs(term))
