"""What the reference says of learning is true of the code, and leaves out nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from topicwarden.learn.draft import SUPPORT
from topicwarden.learn.leftover import MAX_ITEMS
from topicwarden.learn.members import GLOB_MEMBERS
from topicwarden.learn.observations import MAX_PAIRS_OF_ONE
from topicwarden.learn.review import MEANING, Reason, ReviewItem, document
from topicwarden.learn.roles import SHARE, SHOWN
from topicwarden.learn.templates import PER_ACCOUNT, SAVED, SIBLINGS, UNSEEN

TEXT = (Path(__file__).parents[2] / "docs" / "learn.md").read_text("utf-8")


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    assert f"`{reason.value}`" in TEXT
    assert reason in MEANING


@pytest.mark.parametrize("key", document(ReviewItem(Reason.WIDE)))
def test_every_key_of_the_review_list_is_explained(key: str) -> None:
    assert f"`{key}`" in TEXT


def test_the_thresholds_in_the_reference_are_the_codes() -> None:
    assert (SUPPORT, SIBLINGS, UNSEEN, SAVED, PER_ACCOUNT) == (5, 8, 0.05, 40, 1.5)
    assert (SHARE, SHOWN, GLOB_MEMBERS, MAX_ITEMS, MAX_PAIRS_OF_ONE) == (0.25, 1 / 3, 10, 5000, 16_384)
    for said in (
        "at least 8 values",
        "from 0.05 on",
        "40 names or more",
        "at most 1.5",
        "a quarter",
        "a third",
        "16 384",
    ):
        assert said in TEXT
