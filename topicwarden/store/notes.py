"""Signed notes and checkpoints, in the forms that the transparency ecosystem's tools read.

A signed note (C2SP, signed-note) is a text, a blank line, and signature lines `— NAME BASE64`; a checkpoint (C2SP,
tlog-checkpoint) is a note whose text says which log, how many leaves, and which root. Ed25519 only. Keys are written as
the Go implementation (golang.org/x/mod/sumdb/note) writes them.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519: Final = b"\x01"
MAX_NOTE: Final = 1 << 20
MAX_SIGNATURES: Final = 100
PREVIOUS: Final = "previous "
KEPT: Final = "kept"
"""Our lines in checkpoints: the size of the one kept before, and whether this one is kept too."""
_NAME: Final = re.compile(r"[^\s+\x00-\x1f\x7f]{1,255}")
_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")


class NoteError(ValueError):
    """A note, checkpoint or key that is none, or whose signature does not hold; the message says which."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A public key with its name."""

    name: str
    public: bytes
    """32 bytes."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `NAME+HASH+BASE64`; raises NoteError."""
        name, plus, rest = text.strip().partition("+")
        hashed, plus_too, encoded = rest.partition("+")
        key = _decoded(encoded)
        if not (plus and plus_too and _NAME.fullmatch(name)) or key is None:
            raise NoteError("not a verifier key: NAME+HASH+KEY")
        if len(key) != 33 or key[:1] != ED25519:
            raise NoteError("a verifier key of another kind than Ed25519")
        found = cls(name, key[1:])
        if hashed != found.key_hash.hex():
            raise NoteError("a verifier key whose hash does not fit it: it was damaged")
        return found

    def __str__(self) -> str:
        return f"{self.name}+{self.key_hash.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    @property
    def key_hash(self) -> bytes:
        """Four bytes that signature lines name the key by."""
        return sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:4]

    def verifies(self, text: bytes, signature: bytes) -> bool:
        """Whether the signature over the text is this key's."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text)
        except InvalidSignature:
            return False
        return True


class Signer:
    """A private key with its name."""

    def __init__(self, name: str, seed: bytes) -> None:
        """Raises NoteError for a name that no note can have, or a seed that is not 32 bytes."""
        if not _NAME.fullmatch(name) or len(seed) != 32:
            raise NoteError("a key's name is one word without +, its seed 32 bytes")
        self._seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls, name: str) -> Self:
        """Make a new key."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PRIVATE+KEY+NAME+HASH+BASE64`; raises NoteError, which never shows the key."""
        head, _, rest = text.strip().partition("PRIVATE+KEY+")
        name, _, hashed_and_key = rest.partition("+")
        hashed, _, encoded = hashed_and_key.partition("+")
        key = _decoded(encoded)
        if head or key is None or len(key) != 33 or key[:1] != ED25519:
            raise NoteError("not a signing key: PRIVATE+KEY+NAME+HASH+KEY")
        found = cls(name, key[1:])
        if found.verifier.key_hash.hex() != hashed:
            raise NoteError("a signing key whose hash does not fit it: it was damaged")
        return found

    def encoded(self) -> str:
        """Return the key as text that `parse` reads: a secret."""
        verifier = self.verifier
        key = base64.b64encode(ED25519 + self._seed).decode()
        return f"PRIVATE+KEY+{verifier.name}+{verifier.key_hash.hex()}+{key}"

    def sign(self, text: bytes) -> bytes:
        """Return a note of this text, which ends in a line feed, with our signature; raises NoteError otherwise."""
        if not text.endswith(b"\n") or b"\n\n" in text:
            raise NoteError("a note's text ends in a line feed and has no blank line")
        signature = base64.b64encode(self.verifier.key_hash + self._key.sign(text)).decode()
        return text + f"\n— {self.verifier.name} {signature}\n".encode()

    def __repr__(self) -> str:
        return f"Signer({self.verifier})"


def open_note(note: bytes, verifier: Verifier) -> bytes:
    """Return the text of a note that this key signed; raises NoteError when it did not, or it is no note."""
    if len(note) > MAX_NOTE:
        raise NoteError(f"longer than {MAX_NOTE} bytes")
    text, blank, tail = note.rpartition(b"\n\n")
    if not blank or not tail.endswith(b"\n"):
        raise NoteError("not a signed note")
    text += b"\n"
    lines = tail[:-1].split(b"\n")
    if len(lines) > MAX_SIGNATURES:
        raise NoteError(f"more than {MAX_SIGNATURES} signatures")
    named = False
    for line in lines:
        name, signature = _signature(line)
        if name != verifier.name or signature[:4] != verifier.key_hash:
            continue
        named = True
        if verifier.verifies(text, signature[4:]):
            return text
    if named:
        raise NoteError(f"the signature of {verifier.name} does not hold: it was changed, or signed with another key")
    raise NoteError(f"not signed by {verifier.name}")


def _signature(line: bytes) -> tuple[str, bytes]:
    try:
        words = line.decode().split(" ")
    except UnicodeDecodeError:
        raise NoteError("not a signed note: a signature line is not UTF-8") from None
    signature = _decoded(words[2]) if len(words) == 3 else None
    if words[0] != "—" or signature is None or len(signature) < 5:
        raise NoteError("not a signed note: a signature line is wrong")
    return words[1], signature


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to."""

    origin: str
    """Which log: one line of text, the same for ever."""
    size: int
    """Leaves."""
    root: bytes
    """32 bytes."""
    extensions: tuple[str, ...] = ()
    """Further lines; ours have the time, and which checkpoint was kept before this one."""

    @property
    def time_ns(self) -> int | None:
        """When it was signed, by the signer's clock."""
        return self._number("time ")

    @property
    def previous(self) -> int:
        """Size of the checkpoint kept before this one; 0: there is none."""
        return self._number(PREVIOUS) or 0

    @property
    def kept(self) -> bool:
        """Whether it stays."""
        return KEPT in self.extensions

    def _number(self, word: str) -> int | None:
        found = [line.removeprefix(word) for line in self.extensions if line.startswith(word)]
        return int(found[0]) if found and _SIZE.fullmatch(found[0]) else None

    def text(self) -> bytes:
        """Return the text that is signed."""
        root = base64.b64encode(self.root).decode()
        lines = [self.origin, str(self.size), root, *self.extensions]
        return "".join(f"{line}\n" for line in lines).encode()

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read a checkpoint's text; raises NoteError."""
        try:
            origin, size, root, *more = text.decode().removesuffix("\n").split("\n")
        except (UnicodeDecodeError, ValueError):
            raise NoteError("not a checkpoint: an origin, a size and a root") from None
        decoded = _decoded(root)
        if not origin or _SIZE.fullmatch(size) is None or decoded is None or len(decoded) != 32:
            raise NoteError("not a checkpoint: an origin, a size and a root")
        return cls(origin, int(size), decoded, tuple(more))


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
