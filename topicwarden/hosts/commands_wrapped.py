"""Finds the program that is meant: behind sudo, env, timeout and the like; and the text a shell is given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from topicwarden.hosts.tools import TOOLS, program_name

_MAX_WRAPPERS: Final = 12
_ASSIGNMENT: Final = re.compile(r"[A-Za-z_]\w*=", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Wrapper:
    """A program that starts another, named in its arguments."""

    letters: str = ""
    """Letters of options that have a value."""
    long: str = ""
    """Long options whose value is the next word."""
    skips: int = 0
    """Operands before the command."""
    assigns: bool = False
    """Whether `NAME=value` may stand before the command."""
    joins: bool = False
    """Whether its words are joined and given to a shell."""
    text: str = ""
    """Options whose value is a shell's text."""
    stops: str = ""
    """Options with which no command follows."""
    applet: bool = False
    remote: bool = False
    """Whether the command runs on another machine."""


_PLAIN: Final = _Wrapper()
_ALL: Final = 99
_SU: Final = _Wrapper("gGswT", "--group --shell", skips=_ALL, text="-c --command --session-command")
_WRAPPERS: Final[Mapping[str, _Wrapper]] = {
    "sudo": _Wrapper(
        "ugpChTUDRrt",
        "--user --group --prompt --host --chdir --close-from --other-user",
        assigns=True,
        stops="-e -l -v -K -V",
    ),
    "doas": _Wrapper("uCa"),
    "pkexec": _Wrapper("", "--user"),
    "env": _Wrapper("uC", "--unset --chdir", assigns=True, text="-S --split-string"),
    "timeout": _Wrapper("sk", "--signal --kill-after", skips=1),
    "nice": _Wrapper("n", "--adjustment"),
    "ionice": _Wrapper("cn", "--class --classdata", stops="-p --pid"),
    "chrt": _Wrapper("TPD", skips=1, stops="-p --pid"),
    "taskset": _Wrapper("", skips=1, stops="-p --pid"),
    "stdbuf": _Wrapper("ioe", "--input --output --error"),
    "time": _Wrapper("fo", "--format --output"),
    "strace": _Wrapper("eopsuEPaIOSXb"),
    "ltrace": _Wrapper("eopsuaAlnxwDF"),
    "watch": _Wrapper("n", "--interval", joins=True),
    "xargs": _Wrapper("IEdLnPsa", "--max-args --max-procs --delimiter --replace --max-lines --arg-file"),
    "flock": _Wrapper("wE", "--timeout --conflict-exit-code", skips=1, text="-c --command"),
    "chroot": _Wrapper("", skips=1),
    "unshare": _Wrapper("SGRw"),
    "nsenter": _Wrapper("tSGC", "--target"),
    "setpriv": _Wrapper("", "--reuid --regid --groups --inh-caps --ambient-caps --bounding-set --securebits"),
    "runuser": _SU,
    "su": _SU,
    "script": _Wrapper("IOBTEom", skips=_ALL, text="-c --command"),
    "proxychains": _Wrapper("f"),
    "proxychains4": _Wrapper("f"),
    "faketime": _Wrapper("", skips=1),
    "systemd-run": _Wrapper("pumMEHt", "--unit --property --uid --gid --setenv --slice --on-active --on-calendar"),
    "busybox": _Wrapper(applet=True),
    "toybox": _Wrapper(applet=True),
    "ssh": _Wrapper("BbcDEeFIiJLlmOopQRSWw", skips=1, joins=True, remote=True),
    "exec": _Wrapper("a"),
    **dict.fromkeys(
        (
            "nohup", "setsid", "command", "builtin", "torsocks", "torify", "tsocks", "firejail", "unbuffer", "chronic",
            "catchsegv", "setarch", "linux64", "dbus-run-session", "eatmydata", "fakeroot", "proot", "bwrap",
        ),
        _PLAIN,
    ),
}  # fmt: skip
SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ksh93", "mksh", "ash", "rbash", "yash"})
INTERPRETERS: Final[Mapping[str, tuple[str, str, str]]] = {
    **dict.fromkeys(("python", "pypy"), ("c", "m", "WX")),
    "perl": ("eE", "", "MmIFixC"),
    "ruby": ("e", "", "rICEKFWx"),
    "node": ("ep", "", "rC"),
    "nodejs": ("ep", "", "rC"),
}
"""Programs that run a script: letters of options whose value is its text, or a module; of others that have a value."""


@dataclass(frozen=True, slots=True)
class Started:
    """A program with its words."""

    name: str
    """As `program_name` has it."""
    words: tuple[str, ...]
    """The first is its name."""
    places: tuple[int, ...]
    """Where each word stands among those given."""
    text: int | None = None
    """Which word is a shell's text."""
    joined: bool = False
    """Whether that text goes on to the end of the words."""
    remote: bool = False
    template: bool = False
    """Whether words are added to it, or replaced in it, before it is started (xargs)."""


def started(words: Sequence[str], executable: str = "") -> Started | None:
    """Return the program that a command line means, None when it is none or cannot be found."""
    if not words:
        return None
    name = program_name(words[0])
    if executable:
        by_path = program_name(executable)
        # A name in the arguments may be a lie; of a program with many names it is the one that counts.
        if by_path in ("busybox", "toybox") and name not in ("busybox", "toybox"):
            name = "nc.busybox" if name in ("nc", "netcat") else name
        elif by_path in TOOLS or by_path in _WRAPPERS or by_path in SHELLS or by_path in INTERPRETERS:
            name = by_path
    at, remote, template = 0, False, False
    for _ in range(_MAX_WRAPPERS):
        if name in SHELLS:
            return _shell(name, words, at, remote=remote)
        wrapper = _WRAPPERS.get(name)
        if wrapper is None:
            return _at(name, words, at, remote=remote, template=template)
        template = template or name == "xargs"
        if wrapper.applet:
            at += 1
        else:
            following = _behind(wrapper, name, words, at)
            if isinstance(following, Started):
                return following
            if following is None:
                return None
            at = following
        if at >= len(words):
            return None
        if wrapper.joins:
            return _text(name, words, at, joined=True, remote=wrapper.remote)
        inside = name
        name = program_name(words[at])
        if inside in ("busybox", "toybox") and name in ("nc", "netcat"):
            name = "nc.busybox"
    return None


def _at(name: str, words: Sequence[str], at: int, *, remote: bool = False, template: bool = False) -> Started:
    return Started(name, tuple(words[at:]), tuple(range(at, len(words))), remote=remote, template=template)


def _text(name: str, words: Sequence[str], place: int, *, joined: bool = False, remote: bool = False) -> Started:
    return Started(name, tuple(words), tuple(range(len(words))), text=place, joined=joined, remote=remote)


def _behind(wrapper: _Wrapper, name: str, words: Sequence[str], at: int) -> int | Started | None:
    """Return where the command behind a wrapper begins, or the shell's text it is given."""
    skips = wrapper.skips
    texts, stops, long = wrapper.text.split(), wrapper.stops.split(), wrapper.long.split()
    at += 1
    while at < len(words):
        word = words[at]
        if word == "--":
            at += 1
            break
        if len(word) > 1 and word[0] == "-":
            if word in stops:
                return None
            option, equals, _ = word.partition("=")
            if option in texts or (texts and word[1] != "-" and word[-1] == texts[0][1]):
                # With `=` the text is a part of the word; nothing says where in it then.
                return _text(name, words, at + 1) if at + 1 < len(words) and not equals else None
            if name == "runuser" and option in ("-u", "--user"):
                skips = 0
                at += 1
            at += 1
            if word[1] == "-":
                at += 0 if equals or option not in long else 1
            else:
                at += _cluster_takes_next(word, wrapper.letters)
            continue
        if wrapper.assigns and _ASSIGNMENT.match(word):
            at += 1
            continue
        if skips == 0:
            break
        skips -= 1
        at += 1
        if texts and at < len(words) and words[at] in texts:
            return _text(name, words, at + 1) if at + 1 < len(words) else None
    for _ in range(skips):
        at += 1
    while wrapper.assigns and at < len(words) and _ASSIGNMENT.match(words[at]):
        at += 1
    return at


def _cluster_takes_next(word: str, letters: str) -> int:
    """Return 1 if the value of the last of some options behind one dash is the next word, else 0."""
    for at in range(1, len(word)):
        if word[at] in letters:
            return 1 if at == len(word) - 1 else 0
    return 0


def _shell(name: str, words: Sequence[str], at: int, *, remote: bool) -> Started | None:
    """Return the text that a shell is given with `-c`, else its script as a program."""
    place, command = at + 1, False
    while place < len(words):
        word = words[place]
        if word in ("--", "-"):
            place += 1
            break
        if len(word) < 2 or word[0] not in "-+":
            break
        if word.startswith("--"):
            place += 2 if word in ("--rcfile", "--init-file") else 1
            continue
        command = command or (word[0] == "-" and "c" in word)
        place += 2 if word[-1] in "oO" else 1
    if place >= len(words):
        # It reads its text from its input.
        return None if command else _at(name, words, at, remote=remote)
    if command:
        return _text(name, words, place, remote=remote)
    return _at(program_name(words[place]), words, place, remote=remote)


def script(name: str, words: Sequence[str]) -> tuple[str, int, int] | None:
    """Return what an interpreter runs: `code`, `module` or `file`, which word says so, and from which character on."""
    code, module, valued = INTERPRETERS[name]
    place = 1
    while place < len(words):
        word = words[place]
        if word == "-":
            return None
        if word == "--" and place + 1 < len(words):
            return "file", place + 1, 0
        if not word.startswith("-"):
            return "file", place, 0
        if word.startswith("--"):
            option = word.partition("=")
            if option[0] in ("--eval", "--print"):
                return ("code", place, len(option[0]) + 1) if option[1] else ("code", place + 1, 0)
            place += 2 if word in ("--require", "--import", "--check-hash-based-pycs", "--loader") else 1
            continue
        place += 1
        for at in range(1, len(word)):
            letter = word[at]
            if letter in code or (module and letter in module):
                kind = "code" if letter in code else "module"
                if at + 1 < len(word) and name not in ("node", "nodejs"):
                    return kind, place - 1, at + 1
                return (kind, place, 0) if place < len(words) else None
            if letter in valued:
                place += 1 if at + 1 == len(word) and name in ("python", "pypy", "node", "nodejs") else 0
                break
    return None
