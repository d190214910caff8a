"""Whether something decides who may do what, and which lines of an acl_file grant more than they seem to."""

from __future__ import annotations

import shlex
import stat
from collections import defaultdict

from topicwarden_collectors.mosquitto.acl_file import Access, AclEntry, AclFile, read_acl_file
from topicwarden_collectors.mosquitto.conf_files import reason
from topicwarden_collectors.mosquitto.conf_model import Listener, Setting
from topicwarden_collectors.mosquitto.doctor_access import plugin_decides, security_line
from topicwarden_collectors.mosquitto.doctor_examination import (
    Examination,
    create,
    mode_text,
    remove,
    replace,
    run_as_root,
    together,
)

ACL_FILE = "/etc/mosquitto/acl"
_SEVERAL = 2
_SHOWN = 5


def check_acl(examination: Examination) -> None:
    """Is there an ACL for every listener, is it sound, and what does it grant to too many."""
    configuration = examination.configuration
    read: dict[str, AclFile | None] = {}
    for listener in configuration.listeners:
        setting = configuration.security_of(listener).get("acl_file")
        if setting is None:
            decided = plugin_decides(examination, listener, "acl")
            if decided is None:
                examination.say(
                    "note",
                    "acl.present",
                    f"only a plugin could limit what clients of {listener.title} do, and it is not known whether it"
                    " does",
                    listener.setting or (configuration.path, None),
                )
            elif not decided:
                _absent(examination, listener)
            continue
        if setting.value not in read:
            read[setting.value] = _read(examination, setting)
        acl = read[setting.value]
        if acl is not None:
            _sys(examination, listener, acl)
    for acl in read.values():
        if acl is not None:
            _entries(examination, acl)
    examination.ok("acl.present")
    if read:
        for check in ("readable", "accepted", "doubtful-line", "writable", "everything", "pattern-for-everybody"):
            examination.ok(f"acl.{check}")
        for check in ("plus-for-user", "variable-not-replaced", "sys-readable"):
            examination.ok(f"acl.{check}")


def _absent(examination: Examination, listener: Listener) -> None:
    configuration = examination.configuration
    group = examination.machine.group_of(configuration.user)
    examination.say(
        "warning" if listener.local else "problem",
        "acl.present",
        f"nothing limits what clients of {listener.title} publish and read, $SYS included: there is no acl_file and no"
        " plugin that decides access",
        listener.setting or (configuration.path, None),
        together(
            create(
                ACL_FILE,
                "# each user his own branch; put your own grants here before you restart the broker",
                "pattern readwrite %u/#",
            ),
            run_as_root(f"chown root:{group} {ACL_FILE}", f"chmod 0640 {ACL_FILE}"),
            security_line(examination, listener, f"acl_file {ACL_FILE}"),
        ),
    )


def _read(examination: Examination, setting: Setting) -> AclFile | None:
    path = setting.value
    quoted = shlex.quote(path)
    group = examination.machine.group_of(examination.configuration.user)
    own = [f"chown root:{group} {quoted}", f"chmod 0640 {quoted}"]
    status = examination.machine.status(path)
    if status is None or not stat.S_ISREG(status.st_mode):
        examination.say(
            "problem",
            "acl.readable",
            f"acl_file {path!r} is not there: the broker does not start",
            setting,
            together(create(path, "pattern readwrite %u/#"), run_as_root(*own)),
        )
        return None
    readable = examination.broker_may(path, 4)
    if readable is None:
        examination.cannot_tell("acl.readable", path, setting)
    elif not readable:
        examination.say(
            "problem",
            "acl.readable",
            f"acl_file {path!r} (mode {mode_text(status)}) cannot be read by the broker's user"
            f" {examination.configuration.user!r}: the broker does not start",
            setting,
            run_as_root(*own),
        )
    identity = examination.broker_identity
    if status.st_mode & 0o022:
        examination.say(
            "problem" if status.st_mode & 0o002 else "warning",
            "acl.writable",
            f"{'everybody' if status.st_mode & 0o002 else 'its group'} can change acl_file {path!r} (mode"
            f" {mode_text(status)}) and so grant anything",
            setting,
            run_as_root(f"chmod go-w {quoted}"),
        )
    elif identity is not None and identity[0] != 0 and status.st_uid == identity[0]:
        examination.say(
            "note",
            "acl.writable",
            f"acl_file {path!r} belongs to the broker's own user: whoever takes over the broker can change it",
            setting,
            run_as_root(*own),
        )
    try:
        acl = read_acl_file(path)
    except (OSError, ValueError) as error:
        examination.say("note", "acl.readable", f"acl_file {path!r} was not looked at: {reason(error)}", setting)
        return None
    for problem in acl.refused:
        examination.say(
            "problem",
            "acl.accepted",
            f"the broker refuses this line, and does not start: {problem.message}",
            (acl.path, problem.line),
            remove(acl.path, problem.line) if problem.line else "",
        )
    for problem in acl.doubts:
        examination.say(
            "warning",
            "acl.doubtful-line",
            problem.message,
            (acl.path, problem.line),
            remove(acl.path, problem.line) if problem.line else "",
        )
    return acl


def _subject(entry: AclEntry) -> str:
    if entry.pattern:
        return "every client"
    return "every client without a user name" if entry.user is None else f"user {entry.user!r}"


def _entries(examination: Examination, acl: AclFile) -> None:
    alike: dict[str, list[AclEntry]] = defaultdict(list)
    for entry in acl.entries:
        if entry.deny:
            continue
        if entry.topic == "#" or entry.topic == "+/#":
            examination.say(
                "warning"
                if not entry.pattern and (entry.user is not None or not entry.access & Access.WRITE)
                else "problem",
                "acl.everything",
                f"{_subject(entry)} may {_verb(entry)} every topic that does not begin with $",
                (acl.path, entry.line),
                remove(acl.path, entry.line),
            )
        elif entry.pattern and not entry.has_variable and not entry.topic.startswith("$SYS"):
            # `pattern read $SYS/#` is acl.sys-readable's
            meant = entry.topic.replace("+", "%u", 1)
            examination.say(
                "warning",
                "acl.pattern-for-everybody",
                f"the pattern contains neither %u nor %c, so every client may {_verb(entry)} {entry.topic!r}"
                + ("; if + stands for the client's own name, %u says so" if meant != entry.topic else ""),
                (acl.path, entry.line),
                replace(acl.path, entry.line, f"pattern {_word(entry)} {meant}")
                if meant != entry.topic
                else remove(acl.path, entry.line),
            )
        if not entry.pattern and entry.has_variable:
            examination.say(
                "warning",
                "acl.variable-not-replaced",
                f"%u and %c are replaced in pattern lines only: {_subject(entry)} gets a topic with the letters"
                f" {entry.topic!r}",
                (acl.path, entry.line),
                replace(acl.path, entry.line, f"pattern {_word(entry)} {entry.topic}"),
            )
        if not entry.pattern and entry.user is not None and entry.access & Access.WRITE and "+" in entry.topic:
            alike[entry.topic].append(entry)
    for topic, entries in alike.items():
        users = {entry.user for entry in entries}
        if len(users) >= _SEVERAL:
            some = ", ".join(repr(user) for user in sorted(user or "" for user in users)[:_SHOWN])
            first, *others = sorted(entries, key=lambda entry: entry.line)
            examination.say(
                "warning",
                "acl.plus-for-user",
                f"{len(users)} users ({some}{' …' if len(users) > _SHOWN else ''}) may each write to every {topic!r},"
                " so each in the others' name; if + stands for the user, %u in a pattern says so",
                (acl.path, first.line),
                together(
                    *[remove(acl.path, entry.line) for entry in reversed(others)],
                    replace(acl.path, first.line, f"pattern {_word(first)} {topic.replace('+', '%u', 1)}"),
                ),
            )


def _verb(entry: AclEntry) -> str:
    if entry.access is Access.READWRITE:
        return "read and write"
    return "read" if entry.access is Access.READ else "write"


def _word(entry: AclEntry) -> str:
    return entry.text.split(" ")[1]


def _sys(examination: Examination, listener: Listener, acl: AclFile) -> None:
    """Say which line lets everybody read what the broker tells about itself; `#` does not, whatever its look."""
    anonymous, _ = examination.configuration.allows_anonymous(listener)
    for entry in acl.entries:
        everybody = entry.pattern or (entry.user is None and anonymous)
        reads = bool(entry.access & Access.READ)
        if (
            everybody
            and reads
            and entry.topic in ("$SYS/#", "$SYS/broker/#", "$SYS/+/#")
            and not any(
                advice.check == "acl.sys-readable" and (advice.file, advice.line) == (acl.path, entry.line)
                for advice in examination.advice
            )
        ):
            examination.say(
                "warning",
                "acl.sys-readable",
                f"{_subject(entry)} may read {entry.topic!r}: versions, load, bridges, and with log_dest topic the"
                " broker's log",
                (acl.path, entry.line),
                remove(acl.path, entry.line),
            )
