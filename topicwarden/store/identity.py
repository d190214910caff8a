"""What a store says of itself in `store.json`, and the lock of its one writer."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from topicwarden.errors import ConfigurationError, ObservationError, Problem
from topicwarden.store.log import sync_folder, write_whole
from topicwarden.store.model import FORMAT
from topicwarden.store.notes import Signer, Verifier

INFO: Final = "store.json"
LOCK: Final = "lock"
STORE_DIGEST: Final = "store_sha256"
"""What entries of writers that begin call the digest of `store.json`."""
_BEGUN: Final = (LOCK, f".{INFO}.new")
"""What a crash at the very beginning may leave."""


@dataclass(frozen=True, slots=True)
class StoreInfo:
    """What `store.json` says."""

    id: str
    salt: bytes
    """Keys the numbers of clients and resources."""
    created_ns: int
    verifier: Verifier
    format: int

    @property
    def origin(self) -> str:
        """The log's name in its checkpoints."""
        return f"topicwarden/store/{self.id}"


def read_info(folder: Path) -> StoreInfo:
    """Read `store.json`; raises ObservationError for what is no store, or one that this version cannot read."""
    path = folder / INFO
    try:
        row = json.loads(path.read_bytes())
        if row["format"] > FORMAT:
            raise ObservationError(
                Problem(
                    f"a store of format {row['format']}, this topicwarden reads {FORMAT}",
                    str(folder),
                    hint="use the newer topicwarden that wrote it",
                )
            )
        key = Verifier.parse(row["key"])
        return StoreInfo(row["id"], bytes.fromhex(row["salt"]), int(row["created_ns"]), key, int(row["format"]))
    except FileNotFoundError:
        raise ObservationError(
            Problem("not a store: it has no store.json", str(folder), hint="check the path")
        ) from None
    except OSError as error:
        raise ObservationError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ObservationError(Problem(f"damaged: {error}", str(path), hint="restore it from a copy")) from error


def info_digest(folder: Path) -> str:
    """Return the SHA-256 of `store.json`, which every writer puts into the log; raises OSError."""
    return sha256((folder / INFO).read_bytes()).hexdigest()


def locked(folder: Path) -> int:
    """Take the store's lock; raises ConfigurationError when another has it, or the folder cannot be written."""
    try:
        _make_lasting(folder)
        if not (folder / INFO).exists() and not all(_of_beginning(one) for one in folder.iterdir()):
            raise ConfigurationError(Problem("neither a store nor empty", str(folder), hint="name a new folder"))
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be written: {error.strerror}", str(folder))) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ConfigurationError(
            Problem("another topicwarden writes to this store", str(folder), hint="stop it, or name another folder")
        ) from error
    return descriptor


def _of_beginning(path: Path) -> bool:
    """Whether it is what a crash at the very beginning may leave."""
    if path.name == "log" and path.is_dir():
        return all(below.name == "checkpoints" for below in path.rglob("*"))
    return path.name in _BEGUN


def _make_lasting(folder: Path) -> None:
    """Make a folder and those above it, with names that outlast a loss of power."""
    missing = [one for one in folder.parents if not one.is_dir()]
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    # Always the folder's own: who made it may have died before.
    for one in [*missing, folder]:
        # Where we may go through but not look, we made nothing.
        with contextlib.suppress(PermissionError):
            sync_folder(one.resolve().parent)


def settle(folder: Path) -> None:
    """Make all of it last that a writer who was killed had not synced, before anything is built on it; raises OSError.

    Otherwise, power lost later, what it wrote could be gone and what it deleted be back.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)


def begun(folder: Path, signer: Signer, now_ns: int) -> StoreInfo:
    """Return what the store says of itself, or begin it; raises ConfigurationError when its key is another."""
    if (folder / INFO).exists():
        info = read_info(folder)
        if info.verifier != signer.verifier:
            raise ConfigurationError(
                Problem(
                    f"the store's key is {info.verifier}, not {signer.verifier}",
                    str(folder),
                    hint="give the key it was begun with, or begin a new store",
                )
            )
        # Who began it may have died before its name was on disk.
        sync_folder(folder)
        return info
    info = StoreInfo(secrets.token_hex(16), secrets.token_bytes(16), now_ns, signer.verifier, FORMAT)
    row = {
        "format": info.format,
        "id": info.id,
        "salt": info.salt.hex(),
        "created_ns": info.created_ns,
        "key": str(info.verifier),
    }
    # Whoever says that it is a store has a log.
    (folder / "log" / "checkpoints").mkdir(parents=True, exist_ok=True)
    sync_folder(folder / "log")
    sync_folder(folder)
    write_whole(folder / INFO, json.dumps(row, indent=1).encode())
    return info


def is_at_work(folder: Path) -> bool:
    """Whether a writer has the store open now."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, and given back at once: a writer that begins meanwhile is told to try again at most.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
