"""Reads what a Mosquitto would allow: from its mosquitto.conf, from an acl_file alone, from a dynamic-security.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Certainty
from topicwarden.grants import Fault, Grants, Origin
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto.acl_file import AclFile, parse_acl_file
from topicwarden_collectors.mosquitto.conf import read_configuration
from topicwarden_collectors.mosquitto.conf_files import Disk, Files, reason, unfit
from topicwarden_collectors.mosquitto.conf_model import Configuration, Listener, Plugin, Setting
from topicwarden_collectors.mosquitto.grants_acl import AclGrants
from topicwarden_collectors.mosquitto.grants_doubtful import Doubtful, Unknown
from topicwarden_collectors.mosquitto.grants_heads import is_acl_file
from topicwarden_collectors.mosquitto.grants_logins import (
    Logins,
    Names,
    deciding_plugins,
    is_dynsec,
    logins_on,
    name_settings,
    read_names,
    unknown_logins,
)

_HINT: Final = "give the mosquitto.conf, the acl_file or the dynamic-security.json"
_ELSEWHERE: Final = ("ring:", "log:", "mqtt://", "mqtts://")


def read_grants(source: str, options: SourceOptions) -> Sequence[Grants]:
    """Read a source: one `Grants` for each set of rules, so one for each listener under `per_listener_settings`.

    Raises ConfigurationError, with every problem of every file, for what the broker would refuse or nobody can read.
    """
    if source.startswith(_ELSEWHERE):
        raise ConfigurationError(
            Problem("says nothing of grants: a running Mosquitto tells nobody its rules", source, hint=_HINT)
        )
    files = Disk()
    data = _text_of(source, files)
    if data is not None and data.lstrip().startswith(b"{"):
        return _dynsec(Path(source), options)
    broker = options.broker or "mosquitto"
    if data is not None and is_acl_file(source, data):
        acl = parse_acl_file(source, data)
        if acl.refused:
            raise ConfigurationError(*acl.refused)
        return [AclGrants(broker, f"acl_file {source}", acl, unknown_logins())]
    return _Conf(read_configuration(source, files), files, broker, options).read()


def _text_of(source: str, files: Files) -> bytes | None:
    """Return a file's contents; None for what the reader of configurations says more about than we could."""
    try:
        data = files.read(source)
    except (OSError, ValueError):
        return None
    return None if unfit(data) else data


def _dynsec(path: Path, options: SourceOptions) -> Sequence[Grants]:
    from topicwarden_collectors.mosquitto.dynsec import read_dynsec

    return read_dynsec(path, options)


class _Conf:
    """A configuration on its way to grants; problems are collected until everything is read."""

    def __init__(self, configuration: Configuration, files: Files, broker: str, options: SourceOptions) -> None:
        self._configuration = configuration
        self._files = files
        self._broker = broker
        self._options = options
        self._acls: dict[str, AclFile] = {}
        self._problems = [
            *configuration.refused,
            *(
                Problem(f"no Mosquitto knows the option {setting.key!r}", setting.file, setting.line)
                for setting in configuration.unknown
            ),
        ]

    def read(self) -> Sequence[Grants]:
        configuration = self._configuration
        listeners = configuration.listeners
        groups = [[listener] for listener in listeners] if configuration.per_listener else [listeners]
        names = {
            (setting.key, setting.value): read_names(setting, self._files, self._problems)
            for setting in name_settings(configuration, listeners)
        }
        found: list[Grants] = []
        for group in groups:
            found += self._group(group, names)
        if self._problems:
            raise ConfigurationError(*dict.fromkeys(self._problems))
        return found

    def _group(self, group: Sequence[Listener], names: dict[tuple[str, str], Names]) -> Sequence[Grants]:
        """Read the rules that some listeners share."""
        configuration = self._configuration
        setting = configuration.security_of(group[0]).get("acl_file")
        logins = logins_on(configuration, group, names)
        plugins = {id(p): p for listener in group for p in deciding_plugins(configuration, listener, "acl")}
        dynsec = [plugin for plugin in plugins.values() if is_dynsec(plugin)]
        unknown = [plugin for plugin in plugins.values() if not is_dynsec(plugin)]
        # What is decided by several is said of each part, and of neither for certain.
        parts: list[Grants] = []
        for plugin in dynsec:
            parts += self._dynsec(plugin, group, logins)
        certainty = Certainty.INFERRED if plugins or any(one.get("mount_point") for one in group) else Certainty.EXACT
        if setting is not None:
            acl = self._acl(setting)
            title = f"acl_file {setting.value} ({self._where(group)})"
            parts.append(self._grants(title, acl, logins, group, certainty))
        elif not plugins:
            title = f"{configuration.path}: no acl_file ({self._where(group)})"
            parts.append(self._grants(title, self._nothing(group), logins, group, certainty))
        elif not dynsec:
            title = f"{configuration.path}: plugins ({self._where(group)})"
            return [Unknown(self._broker, title, *_doubts(unknown, self._where(group)))]
        if not plugins or (len(plugins) == 1 and setting is None):
            return parts
        doubts = _doubts(list(plugins.values()), self._where(group))
        return [Doubtful(part, *doubts) for part in parts]

    def _grants(
        self, title: str, acl: AclFile | Origin, logins: Logins, group: Sequence[Listener], certainty: Certainty
    ) -> AclGrants:
        return AclGrants(
            self._broker, title, acl, logins, blind_spots=list(self._blind_spots(group)), certainty=certainty
        )

    def _acl(self, setting: Setting) -> AclFile:
        """Read an acl_file once, whoever names it; what is wrong with it is collected."""
        path = setting.value
        if path not in self._acls:
            acl = self._acls[path] = AclFile(path)
            try:
                data = self._files.read(path)
            except (OSError, ValueError) as error:
                self._problems.append(
                    Problem(
                        f"acl_file {path!r} cannot be read: {reason(error)}",
                        setting.file,
                        setting.line,
                        "run this where the broker runs, as root or as the broker's own user",
                    )
                )
            else:
                why = unfit(data)
                acl = self._acls[path] = AclFile(path) if why else parse_acl_file(path, data)
                self._problems += [Problem(f"acl_file {why}", path)] if why else acl.refused
        return self._acls[path]

    def _nothing(self, group: Sequence[Listener]) -> Origin:
        """Return the origin of everything being allowed."""
        configuration = self._configuration
        setting = group[0].setting if configuration.per_listener else None
        if setting is not None:
            return Origin(setting.file, setting.line, "(no acl_file)", f"every client of {group[0].title}")
        return Origin(configuration.path, None, "(no acl_file)", "every client")

    def _dynsec(self, plugin: Plugin, group: Sequence[Listener], logins: Logins) -> Sequence[Grants]:
        from topicwarden_collectors.mosquitto.dynsec import read_dynsec

        setting = plugin.option("config_file")
        assert setting is not None  # `is_dynsec`
        certificates = any(
            listener.tls and (listener.on("use_identity_as_username") or listener.on("use_subject_as_username"))
            for listener in group
        )
        try:
            return read_dynsec(
                Path(setting.value),
                self._options,
                anonymous=logins.anonymous,
                certificates=certificates,
                names=tuple(logins.names),
                # That the plugin itself decides who can log in is what its file says.
                others=[why for why in logins.others if plugin.file_name not in why],
            )
        except ConfigurationError as error:
            self._problems += error.problems
            return []

    def _where(self, group: Sequence[Listener]) -> str:
        return group[0].title if len(group) == 1 else f"all {len(group)} listeners"

    def _blind_spots(self, group: Sequence[Listener]) -> Sequence[str]:
        configuration = self._configuration
        found = []
        for listener in group:
            mount = listener.get("mount_point")
            if mount is not None:
                found.append(
                    f"{listener.title} puts {mount.value!r} before every topic of its clients: grants are about the"
                    " whole name, and what its clients can reach of it was not worked out"
                )
        prefixes = configuration.get("clientid_prefixes")
        if prefixes is not None:
            found.append(
                f"clients whose id does not begin with {prefixes.value!r} are refused, which was not looked at"
            )
        for bridge in configuration.bridges:
            incoming = [topic.local_prefix + topic.pattern for topic in bridge.topics if topic.direction != "out"]
            if incoming:
                names = ", ".join(repr(name) for name in incoming[:5]) + (" …" if len(incoming) > 5 else "")
                found.append(f"bridge {bridge.name!r} brings in {names} past every grant, in nobody's name")
        return found


def _doubts(plugins: Sequence[Plugin], where: str) -> tuple[Sequence[str], Sequence[Fault]]:
    """Return what is said when plugins decide beside what can be read."""
    blind_spots, faults = [], []
    for plugin in plugins:
        setting = plugin.setting
        why = f"plugin {plugin.file_name} decides, or may decide, what clients of {where} may do"
        if is_dynsec(plugin):
            why = f"plugin {plugin.file_name} and others decide together what clients of {where} may do"
        blind_spots.append(f"{why}: where they differ, nothing here is certain")
        origin = Origin(setting.file, setting.line, f"{setting.key} {plugin.path}", "every client")
        faults.append(Fault("TW114", origin, evidence={"reason": why}))
    return blind_spots, faults
