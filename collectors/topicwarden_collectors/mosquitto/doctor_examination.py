"""What every check of the doctor has at hand: the configuration, the machine it runs on, and the advice so far."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from topicwarden.sources import Advice, BlindSpot
from topicwarden_collectors.mosquitto.conf_model import Configuration, Listener, Plugin, Setting

PLUGIN_NAME: Final = "topicwarden_mosquitto.so"
PLUGIN_FILE: Final = f"/usr/lib/{sysconfig.get_config_var('MULTIARCH') or 'x86_64-linux-gnu'}/{PLUGIN_NAME}"
"""Where a fix loads the plugin from: the folder of Debian's own Mosquitto plugins."""
DYNAMIC_SECURITY: Final = "mosquitto_dynamic_security.so"
DEFAULT_RING: Final = "/run/topicwarden/mosquitto.ring"

CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "config.accepted": "the broker starts with this configuration, as far as can be told without starting it",
        "config.unknown-option": "every option is one that some Mosquitto since 2.0 knows",
        "config.newer-option": "no option needs Mosquitto 2.1",
        "config.passed-over": "no line is one the broker passes over in silence",
        "config.scope": "security options below a listener are meant for every listener, or are really its own",
        "broker.user": "the broker does not run as root",
        "plugin.loaded": "the topicwarden plugin is loaded",
        "plugin.every-listener": "under per_listener_settings the plugin is loaded for each listener",
        "plugin.first": "the plugin stands before every other plugin",
        "plugin.other-plugins": "the plugin is told what an unknown plugin beside it decides",
        "plugin.option": "the plugin's options exist and have values it takes",
        "plugin.logins": "the plugin can tell what a login without any password check means",
        "plugin.configuration": "the plugin can read the configuration: the broker's user can, after it left root",
        "plugin.file": "the plugin's file exists and the broker's user can read it",
        "plugin.file-writable": "only root can change the plugin's file",
        "ring.folder": "the ring's folder exists",
        "ring.memory": "the ring's folder is on tmpfs",
        "ring.writable": "the broker's user can create files in the ring's folder",
        "ring.replaceable": "nobody else can put another file in the ring's place",
        "login.source": "something verifies who a client is",
        "login.anonymous": "clients without a user name are refused",
        "login.file": "password and key files can be read by the broker",
        "login.file-exposed": "password and key files cannot be read by everybody",
        "login.plain": "passwords in the password file are hashed",
        "listener.default": "no listener exists by accident",
        "listener.local-only": "a listener is configured",
        "listener.plain-text": "listeners reachable over the network are encrypted",
        "listener.client-certificate": "TLS listeners ask clients for a certificate",
        "listener.certificate-identity": "user names do not come from certificates, which the plugin sees no login of",
        "acl.present": "something decides who may publish and read what",
        "acl.readable": "the acl_file exists and the broker's user can read it",
        "acl.accepted": "the broker accepts every line of the acl_file",
        "acl.doubtful-line": "no line of the acl_file means something else to the broker than to its reader",
        "acl.writable": "only its owner can change the acl_file",
        "acl.everything": "no acl_file entry grants every topic",
        "acl.pattern-for-everybody": "each granting pattern contains %u or %c",
        "acl.plus-for-user": "no + stands where %u is meant",
        "acl.variable-not-replaced": "%u and %c stand in pattern lines only",
        "acl.sys-readable": "not every client can read $SYS",
        "bridge.bypass": "no bridge brings in messages that no access check sees",
        "bridge.everything": "no bridge carries every topic",
        "bridge.plain-text": "bridges to other machines are encrypted",
        "bridge.password-exposed": "a bridge's password cannot be read by everybody",
        "log.publishes": "without the plugin: the log names each publish",
        "log.target": "without the plugin: the log goes to a file",
        "log.timestamps": "without the plugin: log lines carry a time of a known form",
        "log.cost": "with the plugin: the broker does not pay for a debug log besides",
        "persistence.sessions": "no session outlives the broker",
        "sys.interval": "the broker publishes its own counters under $SYS",
    }
)
"""Every check by its stable name, with what is true when it passes."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system."""

    point: str
    kind: str


class Machine:
    """The machine the broker runs on, as far as the checks ask about it; nothing is changed."""

    def status(self, path: str) -> os.stat_result | None:
        """Return a path's status, None when there is nothing there or it cannot be seen."""
        try:
            return os.stat(path)  # noqa: PTH116 - the path stays as written
        except (OSError, ValueError):
            return None

    def identity(self, user: str) -> tuple[int, frozenset[int]] | None:
        """Return a user's number and the numbers of his groups, None when this machine does not know him."""
        try:
            entry = pwd.getpwnam(user)
            groups = frozenset(os.getgrouplist(user, entry.pw_gid))
        except (KeyError, OSError, ValueError):
            return None
        return entry.pw_uid, groups

    def group_of(self, user: str) -> str:
        """Return the name of a user's own group, the user's own name when it is not known."""
        try:
            return grp.getgrgid(pwd.getpwnam(user).pw_gid).gr_name
        except (KeyError, OSError, ValueError):
            return user

    def mounts(self) -> Sequence[Mount]:
        """Return what is mounted; empty where the system does not say."""
        try:
            lines = Path("/proc/self/mounts").read_bytes().decode("utf-8", "surrogateescape").split("\n")
        except OSError:
            return []
        fields = [line.split(" ") for line in lines]
        return [Mount(unescape_mount(words[1]), words[2]) for words in fields if len(words) > 2]


def unescape_mount(text: str) -> str:
    r"""Return a mount point as it is: fstab(5) writes blanks as `\040` and the like."""
    parts = text.split("\\")
    return parts[0] + "".join(chr(int(part[:3], 8)) + part[3:] if part[:3].isdigit() else part for part in parts[1:])


def file_system(path: str, mounts: Sequence[Mount]) -> str | None:
    """Return the kind of file system `path` is on, None when it cannot be told; of equals the last mounted counts."""
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in mounts:
        inside = mount.point == "/" or real == mount.point or real.startswith(mount.point + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best.kind if best else None


def may(status: os.stat_result, identity: tuple[int, frozenset[int]], bits: int) -> bool:
    """Whether a user has all of `bits` (4 read, 2 write, 1 search) by a file's owner, group and mode."""
    user, groups = identity
    if user == 0:
        return True
    if status.st_uid == user:
        return (status.st_mode >> 6) & bits == bits
    if status.st_gid in groups:
        return (status.st_mode >> 3) & bits == bits
    return status.st_mode & bits == bits


@dataclass(slots=True)
class Examination:
    """One run of the doctor."""

    configuration: Configuration
    machine: Machine = field(default_factory=Machine)
    advice: list[Advice] = field(default_factory=list)
    blind_spots: list[BlindSpot] = field(default_factory=list)

    def say(
        self, level: str, check: str, message: str, place: Setting | tuple[str, int | None] | None = None, fix: str = ""
    ) -> None:
        """Add advice; a fix that cannot be shown as plain text is left out."""
        if check not in CHECKS:
            raise AssertionError(f"check {check} is not in the catalogue")
        file, line = (place.file, place.line) if isinstance(place, Setting) else place or (None, None)
        shown = fix if fix and all(character.isprintable() or character == "\n" for character in fix) else None
        self.advice.append(Advice(level, check, message, file, line, shown))

    def ok(self, check: str, message: str | None = None) -> None:
        """Say that a check passed, unless it has said something already."""
        if not any(advice.check == check for advice in self.advice):
            self.say("ok", check, message or CHECKS[check])

    def blind(self, what: str, fix: str | None = None) -> None:
        """Add a blind spot."""
        spot = BlindSpot(what, fix)
        if spot not in self.blind_spots:
            self.blind_spots.append(spot)

    @property
    def broker_identity(self) -> tuple[int, frozenset[int]] | None:
        """Number and groups of the user the broker runs as, None when this machine does not know him."""
        return self.machine.identity(self.configuration.user)

    def broker_may(self, path: str, bits: int) -> bool | None:
        """Whether the broker's user has `bits` on `path` and may search every folder above it; None: cannot be told."""
        identity = self.broker_identity
        if identity is None:
            return None
        absolute = os.path.abspath(path)  # noqa: PTH100 - links are followed by stat, not here
        above = absolute
        while above != "/":
            above = os.path.dirname(above)  # noqa: PTH120 - pure string work on the same spelling
            status = self.machine.status(above)
            if status is None:
                return None
            if not may(status, identity, 1):
                return False
        status = self.machine.status(absolute)
        return None if status is None else may(status, identity, bits)

    def cannot_tell(self, check: str, path: str, place: Setting) -> None:
        """Say that a check about the broker's user and a path could not be made."""
        user = self.configuration.user
        why = "the user is not known here" if self.broker_identity is None else "not all of the path can be seen"
        self.say(
            "note",
            check,
            f"it cannot be told whether the broker's user {user!r} can use {path!r}: {why}",
            place,
        )

    def is_ours(self, plugin: Plugin) -> bool:
        """Whether a plugin is topicwarden's, by its file name."""
        return plugin.file_name == PLUGIN_NAME

    def ours(self, listener: Listener) -> Plugin | None:
        """Return our plugin as loaded for a listener."""
        return next((plugin for plugin in self.configuration.plugins_of(listener) if self.is_ours(plugin)), None)

    @property
    def our_plugins(self) -> Sequence[Plugin]:
        """Every line that loads our plugin."""
        return [plugin for plugin in self.configuration.plugins if self.is_ours(plugin)]


def mode_text(status: os.stat_result) -> str:
    """Return a file's mode as chmod takes it."""
    return f"{stat.S_IMODE(status.st_mode):04o}"


# A fix is text to paste: comment lines say where, the lines below them are exact. Tests apply them by these comments.


def insert(file: str, line: int, *lines: str) -> str:
    """Return a fix that adds lines before a line of a file."""
    return "\n".join([f"# {file}: add before line {line}", *lines])


def append(file: str, *lines: str) -> str:
    """Return a fix that adds lines at the end of a file."""
    return "\n".join([f"# {file}: add at the end", *lines])


def replace(file: str, line: int, *lines: str) -> str:
    """Return a fix that puts lines in the place of one."""
    return "\n".join([f"# {file}: replace line {line}", *lines])


def remove(file: str, line: int) -> str:
    """Return a fix that takes a line out."""
    return f"# {file}: remove line {line}"


def create(file: str, *lines: str) -> str:
    """Return a fix that makes a file."""
    return "\n".join([f"# {file}: new file", *lines])


def run_as_root(*commands: str) -> str:
    """Return a fix made of shell commands."""
    return "\n".join(["# as root", *commands])


def together(*fixes: str) -> str:
    """Return several fixes as one, in order; of one file the later lines come first, so that numbers stay true."""
    return "\n\n".join(fix for fix in fixes if fix)
