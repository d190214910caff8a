"""Notes and checkpoints are those of the C2SP specifications, and nothing forged passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topicwarden.store.merkle import EMPTY
from topicwarden.store.notes import Checkpoint, NoteError, Signer, Verifier, open_note

# The example of golang.org/x/mod/sumdb/note's documentation.
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PUBLIC = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = b"If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    TEXT.decode()
    + "\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def test_the_published_example_is_signed_and_opened_byte_for_byte() -> None:
    signer = Signer.parse(PRIVATE)
    assert str(signer.verifier) == PUBLIC
    assert signer.encoded() == PRIVATE
    assert signer.sign(TEXT) == NOTE
    assert open_note(NOTE, Verifier.parse(PUBLIC)) == TEXT


def test_every_changed_byte_is_noticed() -> None:
    verifier = Verifier.parse(PUBLIC)
    for place in range(len(NOTE)):
        changed = bytearray(NOTE)
        changed[place] ^= 1
        with pytest.raises(NoteError):
            open_note(bytes(changed), verifier)


def test_signatures_of_others_beside_ours_do_no_harm_and_are_none() -> None:
    ours, other = Signer.generate("ours"), Signer.generate("other")
    text = b"x\n"
    both = ours.sign(text) + other.sign(text).rpartition(b"\n\n")[2]
    assert open_note(both, ours.verifier) == open_note(both, other.verifier) == text
    with pytest.raises(NoteError, match="not signed by ours"):
        open_note(other.sign(text), ours.verifier)
    impostor = Signer.generate("ours")
    with pytest.raises(NoteError, match="not signed by ours"):
        open_note(impostor.sign(text), ours.verifier)


@pytest.mark.parametrize("text", ["", "a+b", PUBLIC.replace("c74f", "c74e"), PUBLIC[:-4], "a b+c74f20a3+AR"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(text)
    with pytest.raises(NoteError):
        Signer.parse("PRIVATE+KEY+" + text)


def test_a_key_is_never_shown_where_an_object_is() -> None:
    signer = Signer.parse(PRIVATE)
    assert "AYEKF" not in repr(signer)
    with pytest.raises(NoteError) as caught:
        Signer.parse(PRIVATE.replace("c74f", "c74e"))
    assert "AYEKF" not in str(caught.value)


def test_a_checkpoint_has_the_lines_of_the_specification() -> None:
    checkpoint = Checkpoint("topicwarden.example/store", 0, EMPTY, ("time 1",))
    assert checkpoint.text() == (
        b"topicwarden.example/store\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\ntime 1\n"
    )
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


@pytest.mark.parametrize("text", [b"", b"a\n1\n", b"a\n01\nAA==\n", b"a\n-1\nAA==\n", b"\n1\nAA==\n", b"\xff\n1\n2\n"])
def test_what_is_no_checkpoint_is_refused(text: bytes) -> None:
    with pytest.raises(NoteError):
        Checkpoint.parse(text)


@given(st.binary(max_size=300))
def test_nothing_is_a_note_by_accident(data: bytes) -> None:
    with pytest.raises(NoteError):
        open_note(data, Verifier.parse(PUBLIC))
    with pytest.raises(NoteError):
        open_note(b"text\n\n" + data, Verifier.parse(PUBLIC))
