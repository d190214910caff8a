"""What a disk may hold after power was lost, from a recording of what a process did to its files.

The method of ALICE (Pillai et al., OSDI 2014) and CrashMonkey (Mohan et al., OSDI 2018). Assumed, and nothing more,
which is POSIX and less than ext4, XFS or btrfs promise:

- `fsync` of a file makes its data and its size last; not its name.
- `fsync` of a folder makes every name in it last, and that names are gone; not the folder's own name.
- Renaming within a folder is there whole or not at all.
- A write changes nothing of a sector that it does not touch.

Of all else any part may be there, and in any order: a name without its data, data without its name, a size that grew
before its data (then zeros), sectors of one write some old, some new, an unlinked name that is back, a new folder that
is gone with all that was synced in it.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECTOR: Final = 512
Tree = dict[str, bytes | None]
"""Paths below the folder with their bytes; None: a folder. Every folder is before what is in it."""
Fate = Callable[[object], float]
"""How likely each part of something unsynced is there: 0 never, 1 surely."""
_HEAD: Final = struct.Struct("<IIIIq")


@dataclass(frozen=True, slots=True)
class Change:
    """One change to the files, as disk_recorder.c records it."""

    code: str
    """O open to create or truncate, W write, T set length, S sync, Y sync all, R rename, L link, U unlink, X rmdir,
    M mkdir; ! mark."""
    path: str
    other: str
    data: bytes
    number: int
    """Offset, length, or whether it truncates."""


def read_changes(recording: Path) -> list[Change]:
    """Read what disk_recorder.c wrote."""
    data, at, found = recording.read_bytes(), 0, []
    while at < len(data):
        code, *sizes, number = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        parts = []
        for size in sizes:
            parts.append(data[at : at + size])
            at += size
        found.append(Change(chr(code), parts[0].decode(), parts[1].decode(), parts[2], number))
    return found


@dataclass(eq=False, slots=True)
class File:
    """A file's data, as it is seen and as it will surely be after power was lost."""

    content: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    sizes: list[int] = field(default_factory=list)
    """Lengths it had since it was synced."""


@dataclass(eq=False, slots=True)
class Naming:
    """A change of a folder's names that is not synced yet: `drop` goes, `name` comes."""

    drop: str | None
    name: str | None
    node: File | Folder | None

    def on(self, names: dict[str, File | Folder]) -> None:
        """Do it."""
        if self.drop is not None:
            names.pop(self.drop, None)
        if self.name is not None and self.node is not None:
            names[self.name] = self.node


@dataclass(eq=False, slots=True)
class Folder:
    """A folder's names, as they are seen and as they will surely be."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    synced: dict[str, File | Folder] = field(default_factory=dict)
    unsynced: list[Naming] = field(default_factory=list)

    def change(self, naming: Naming) -> None:
        """Change names; they are not synced."""
        naming.on(self.names)
        self.unsynced.append(naming)


class Disk:
    """A folder whose own name and whose content when it was first seen are on disk."""

    def __init__(self, root: Path) -> None:
        """Begin with what is there, all of it synced."""
        self._root = str(root)
        self.top = _there(root)

    def apply(self, change: Change) -> None:
        """Do what was recorded; raises ValueError for what this model has no place for."""
        if change.code == "!":
            return
        folder, name = self._place(change.path)
        node = folder.names.get(name) if name else folder
        match change.code, node:
            case "O", None:
                folder.change(Naming(None, name, File()))
            case "O", File():
                if change.number:
                    _cut(node, 0)
            case "W", File():
                _write(node, change.number, change.data)
            case "T", File():
                _cut(node, change.number)
            case "S", File():
                node.synced, node.sizes = bytes(node.content), []
            case "S", Folder():
                node.synced, node.unsynced = dict(node.names), []
            case "Y", _:
                self._sync_all()
            case "R", File() | Folder():
                other, new = self._place(change.other)
                if other is not folder or change.number:
                    raise ValueError(f"a rename to another folder, or one with flags: {change}")
                folder.change(Naming(name, new, node))
            case "L", File():
                other, new = self._place(change.other)
                other.change(Naming(None, new, node))
            case ("U", File()) | ("X", Folder()):
                folder.change(Naming(name, None, None))
            case "M", None:
                folder.change(Naming(None, name, Folder()))
            case _:
                raise ValueError(f"nothing this can be done to: {change}")

    def _sync_all(self) -> None:
        for node in self._nodes():
            if isinstance(node, File):
                node.synced, node.sizes = bytes(node.content), []
            else:
                node.synced, node.unsynced = dict(node.names), []

    def _place(self, path: str) -> tuple[Folder, str]:
        """Return the folder of a path, and its name there; for the top itself no name."""
        folder = self.top
        *above, name = path.removeprefix(self._root).removeprefix("/").split("/")
        for part in above:
            node = folder.names.get(part)
            if not isinstance(node, Folder):
                raise TypeError(f"{path}: no folder {part!r} was recorded")
            folder = node
        if ".." in (*above, name):
            raise ValueError(f"{path}: not a plain path")
        return folder, name

    def unsynced(self) -> list[File | Naming]:
        """Return all that may or may not be there after power was lost."""
        found: list[File | Naming] = []
        for node in self._nodes():
            if isinstance(node, Folder):
                found += node.unsynced
            elif node.sizes:
                found.append(node)
        return found

    def _nodes(self) -> list[File | Folder]:
        """Return every file and folder that has a name or may have one after power was lost."""
        found: dict[File | Folder, None] = {}
        waiting: list[File | Folder] = [self.top]
        while waiting:
            node = waiting.pop()
            if node not in found:
                found[node] = None
                if isinstance(node, Folder):
                    waiting += [*node.names.values(), *node.synced.values()]
                    waiting += [one.node for one in node.unsynced if one.node is not None]
        return list(found)

    def now(self) -> Tree:
        """Return the files as the process sees them."""
        return self.after(lambda _: 1, random.Random(0))

    def after(self, fate: Fate, rng: random.Random) -> Tree:
        """Return the files as they may be after power was lost."""
        tree: Tree = {}
        _collect(self.top, "", fate, rng, tree)
        return tree


def fates(rng: random.Random, unsynced: list[File | Naming]) -> Iterator[Fate]:
    """Yield ways in which power may be lost, those first that crash bugs are most often found by."""
    yield lambda _: 0
    yield lambda one: isinstance(one, Naming)
    yield lambda one: isinstance(one, File)
    yield lambda one: 0.5 if isinstance(one, File) else 1
    alone = rng.choice(unsynced) if unsynced else None
    yield lambda one: one is alone
    missing = rng.choice(unsynced) if unsynced else None
    yield lambda one: one is not missing
    while True:
        chances = {one: rng.choice((0, 0.5, 1)) for one in unsynced}
        yield lambda one, chances=chances: chances.get(one, 0)  # type: ignore[misc]


def lay_out(tree: Tree, folder: Path) -> None:
    """Make files as they are in the tree."""
    folder.mkdir()
    for name, data in tree.items():
        if data is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(data)


def seen(folder: Path) -> Tree:
    """Return the files that are in a folder."""
    found: Tree = {}
    for path in sorted(folder.rglob("*")):
        found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found


def _there(folder: Path) -> Folder:
    names: dict[str, File | Folder] = {}
    for path in folder.iterdir():
        if path.is_dir():
            names[path.name] = _there(path)
        else:
            data = path.read_bytes()
            names[path.name] = File(bytearray(data), data)
    return Folder(names, dict(names))


def _write(file: File, offset: int, data: bytes) -> None:
    if offset > len(file.content):
        file.content.extend(bytes(offset - len(file.content)))
    file.content[offset : offset + len(data)] = data
    file.sizes.append(len(file.content))


def _cut(file: File, size: int) -> None:
    del file.content[size:]
    file.content.extend(bytes(size - len(file.content)))
    file.sizes.append(size)


def _collect(folder: Folder, above: str, fate: Fate, rng: random.Random, tree: Tree) -> None:
    names = dict(folder.synced)
    for naming in folder.unsynced:
        if rng.random() < fate(naming):
            naming.on(names)
    for name, node in sorted(names.items()):
        if isinstance(node, File):
            tree[above + name] = _left(node, fate(node), rng)
        else:
            tree[above + name] = None
            _collect(node, f"{above}{name}/", fate, rng, tree)


def _left(file: File, chance: float, rng: random.Random) -> bytes:
    """Return what is left of a file's data."""
    if chance in (0, 1) or not file.sizes:
        return bytes(file.content) if chance else file.synced
    # Its length is one it had, or that of as many sectors of what was being written as were done.
    size = rng.choice([len(file.synced), *file.sizes, *file.sizes])
    shortest = min(len(file.synced), *file.sizes)
    if rng.random() < chance:
        size = max(shortest, rng.randint(0, size // SECTOR) * SECTOR)
    kept = bytearray(file.synced[:size].ljust(size, b"\0"))
    for start in range(0, size, SECTOR):
        if rng.random() < chance:
            new = file.content[start : min(start + SECTOR, size)]
            kept[start : start + len(new)] = new
    return bytes(kept)
