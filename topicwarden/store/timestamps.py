"""Has an authority timestamp the checkpoints that stay, and verifies its tokens (RFC 3161).

A token shows that a checkpoint, and so every row below it, was there at that time, by somebody else's clock and key.
Needs the extra `timestamp`. Asking is done in a thread of its own, and never keeps the writer waiting.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.store.log import write_whole
from topicwarden.store.verify_model import Damage, Found

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

SUFFIX: Final = ".tsr"
MAX_TOKEN: Final = 1 << 16
MAX_ROOTS: Final = 1 << 20
MAX_WAITING: Final = 48
"""Checkpoints that wait for a token; older ones get none."""
TIMEOUT_SECONDS: Final = 10.0
AGAIN_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 12.0
"""How long the last checkpoint's token is waited for at the end."""
_EXTRA: Final = "pip install 'topicwarden[timestamp]'"


class Timestamper:
    """Asks an authority for tokens."""

    def __init__(self, url: str, folder: Path) -> None:
        """`folder`: that of the checkpoints. Raises ConfigurationError for no http address, or without the extra."""
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ConfigurationError(
                Problem(f"--timestamp-url {url!r} is no http address", hint="such as http://timestamp.example/tsr")
            )
        if not available():
            raise ConfigurationError(Problem("--timestamp-url needs rfc3161-client", hint=_EXTRA))
        self.error: str | None = None
        """Why the last attempt failed; None: it did not."""
        self._url = url
        self._folder = folder
        self._waiting: deque[int] = deque(_without_token(folder)[-MAX_WAITING:], maxlen=MAX_WAITING)
        self._guard = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="timestamps", daemon=True)
        self._thread.start()

    def kept(self, size: int) -> None:
        """Note that the checkpoint of this size stays."""
        with self._guard:
            if size not in self._waiting:
                self._waiting.append(size)
            self._guard.notify()

    def close(self) -> None:
        """Try what waits once more, within a bounded time."""
        with self._guard:
            self._closing = True
            self._guard.notify()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        failed_at: float | None = None
        while True:
            with self._guard:
                while not self._closing and (not self._waiting or not _due(failed_at)):
                    self._guard.wait(AGAIN_SECONDS if self._waiting else None)
                if not self._waiting:
                    return
                # The newest first: it stands for all before it.
                size = self._waiting[-1]
            try:
                self._ask(size)
                self.error, failed_at = None, None
            except (OSError, ValueError) as error:
                self.error, failed_at = str(error) or type(error).__name__, time.monotonic()
                if self._closing:
                    return
                continue
            with self._guard:
                self._waiting.remove(size)

    def _ask(self, size: int) -> None:
        from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

        note = (self._folder / str(size)).read_bytes()
        asked = TimestampRequestBuilder().data(note).hash_algorithm(HashAlgorithm.SHA256).build()
        request = urllib.request.Request(  # noqa: S310 - http and https only, see above
            self._url, asked.as_bytes(), {"Content-Type": "application/timestamp-query"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
            token = response.read(MAX_TOKEN + 1)
        answered = decoded(token)
        if not is_over(answered, note) or answered.tst_info.nonce != asked.nonce:
            raise ValueError("the authority's answer is to another question")
        write_whole(self._folder / f"{size}{SUFFIX}", token)


def _due(failed_at: float | None) -> bool:
    return failed_at is None or time.monotonic() - failed_at >= AGAIN_SECONDS


def _without_token(folder: Path) -> list[int]:
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return sorted(int(name) for name in names if name.isdecimal() and f"{name}{SUFFIX}" not in names)


def available() -> bool:
    """Whether the extra is installed."""
    try:
        import rfc3161_client  # noqa: F401
    except ImportError:
        return False
    return True


def decoded(token: bytes) -> TimeStampResponse:
    """Read an authority's answer; raises ValueError for what is none, or a refusal."""
    from rfc3161_client import PKIStatus, decode_timestamp_response

    if len(token) > MAX_TOKEN:
        raise ValueError(f"longer than {MAX_TOKEN} bytes")
    answer = decode_timestamp_response(token)
    if PKIStatus(answer.status) not in (PKIStatus.GRANTED, PKIStatus.GRANTED_WITH_MODS):
        raise ValueError(f"the authority refused: {', '.join(answer.status_string) or answer.status}")
    return answer


def is_over(answer: TimeStampResponse, note: bytes) -> bool:
    """Whether a token is over this note, whoever made it."""
    return bytes(answer.tst_info.message_imprint.message) == sha256(note).digest()


def roots_of(path: Path) -> list[Certificate]:
    """Read certificates of authorities that are trusted, in PEM; raises ConfigurationError."""
    from cryptography.x509 import load_pem_x509_certificates

    if not available():
        raise ConfigurationError(Problem("--timestamp-root needs rfc3161-client", hint=_EXTRA))
    try:
        with path.open("rb") as file:
            return load_pem_x509_certificates(file.read(MAX_ROOTS))
    except OSError as error:
        raise ConfigurationError(Problem(f"cannot be read: {error.strerror}", str(path))) from error
    except ValueError as error:
        raise ConfigurationError(Problem("no certificates in PEM", str(path))) from error


def verify_tokens(folder: Path, notes: Mapping[int, bytes], roots: Sequence[Certificate]) -> Iterator[Found | bool]:
    """Yield what is wrong with each token, or whether it was made by an authority of `roots` (True) or by anybody.

    `folder`: that of the checkpoints; `notes`: those whose signatures hold, by their size.
    """
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
        place = f"log/checkpoints/{path.name}"
        stem = path.name.removesuffix(SUFFIX)
        note = notes.get(int(stem)) if stem.isdecimal() else None
        if note is None:
            continue  # that one is named already, or has no such name
        try:
            with path.open("rb") as file:
                answer = decoded(file.read(MAX_TOKEN + 1))
            if not is_over(answer, note):
                raise ValueError("it is over something else than this checkpoint")  # noqa: TRY301
            if roots:
                _verified(answer, note, roots)
        except (ValueError, OSError) as error:
            yield Found(Damage.FORGED, place, f"this timestamp token: {' '.join(str(error).split())[:200]}")
            continue
        yield bool(roots)


def _verified(answer: TimeStampResponse, note: bytes, roots: Sequence[Certificate]) -> None:
    from rfc3161_client import VerificationError, VerifierBuilder

    builder = VerifierBuilder()
    for root in roots:
        builder = builder.add_root_certificate(root)
    try:
        builder.build().verify_message(answer, note)
    except VerificationError as error:
        raise ValueError(str(error)) from error
