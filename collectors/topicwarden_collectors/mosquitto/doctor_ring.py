"""Whether the plugin's ring can be made, stays in memory, and cannot be replaced by somebody else's."""

from __future__ import annotations

import os
import shlex
import stat
from typing import Final

from topicwarden_collectors.mosquitto.conf_model import Plugin, Setting
from topicwarden_collectors.mosquitto.doctor_examination import (
    DEFAULT_RING,
    Examination,
    file_system,
    insert,
    mode_text,
    replace,
    run_as_root,
    together,
)

# The tmpfs every Linux has; the fix makes a folder there that only the broker can write to.
_MEMORY_FOLDER: Final = "/dev/shm"  # noqa: S108 - see above
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")


def _own_folder(plugin: Plugin, option: Setting | None, folder: str, make: str) -> str:
    """Return the fix that gives the ring a folder of its own below `folder`."""
    own = f"{folder.rstrip('/')}/topicwarden"
    line = f"plugin_opt_ring {own}/mosquitto.ring"
    if option is not None:
        change = replace(option.file, option.line, line)
    else:
        change = insert(plugin.setting.file, plugin.setting.line + 1, line)
    return together(run_as_root(f"{make} {shlex.quote(own)}"), change)


def check_ring(examination: Examination) -> None:
    """Can the ring be made, does it stay in memory, and can nobody put another in its place."""
    user = examination.configuration.user
    group = examination.machine.group_of(user)
    for plugin in examination.our_plugins:
        option = plugin.option("ring")
        path = option.value if option and option.value.startswith("/") else DEFAULT_RING
        place = option or plugin.setting
        folder = os.path.dirname(path) or "/"  # noqa: PTH120 - the path stays as written
        quoted = shlex.quote(folder)
        make = f"install -d -o {user} -g {group} -m 0755 {quoted}"
        status = examination.machine.status(folder)
        if status is None or not stat.S_ISDIR(status.st_mode):
            examination.say(
                "problem",
                "ring.folder",
                f"the ring's folder {folder!r} does not exist: the plugin cannot make its ring",
                place,
                run_as_root(make, f"echo 'd {folder} 0755 {user} {group}' > /etc/tmpfiles.d/topicwarden.conf")
                if folder.startswith("/run/")
                else run_as_root(make),
            )
            continue
        kind = file_system(folder, examination.machine.mounts())
        if kind is None:
            examination.say("note", "ring.memory", f"it cannot be told what file system {folder!r} is on", place)
        elif kind not in _MEMORY:
            examination.say(
                "warning",
                "ring.memory",
                f"the ring's folder {folder!r} is on {kind}, not on tmpfs: each event costs a write to disk sooner or"
                " later, and a stalled disk stalls the broker",
                place,
                _own_folder(plugin, option, _MEMORY_FOLDER, f"install -d -o {user} -g {group} -m 0755"),
            )
        writable = examination.broker_may(folder, 3)
        if writable is None:
            examination.cannot_tell("ring.writable", folder, place)
        elif not writable:
            examination.say(
                "problem",
                "ring.writable",
                f"the broker's user {user!r} cannot create files in the ring's folder {folder!r} (mode"
                f" {mode_text(status)})",
                place,
                run_as_root(make),
            )
        if status.st_mode & 0o002 and status.st_mode & stat.S_ISVTX:
            examination.say(
                "warning",
                "ring.replaceable",
                f"everybody can create files in the ring's folder {folder!r} (mode {mode_text(status)}): whoever takes"
                " the ring's name before the broker starts is believed, and keeps the plugin from making its own",
                place,
                _own_folder(plugin, option, folder, f"install -d -o {user} -g {group} -m 0755"),
            )
        elif status.st_mode & 0o002:
            examination.say(
                "problem",
                "ring.replaceable",
                f"everybody can write to the ring's folder {folder!r} (mode {mode_text(status)}): another file in the"
                " ring's place would be believed",
                place,
                run_as_root(f"chmod o-w {quoted}"),
            )
    if examination.our_plugins:
        for check in ("ring.folder", "ring.memory", "ring.writable", "ring.replaceable"):
            examination.ok(check)
