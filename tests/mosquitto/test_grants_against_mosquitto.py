"""What the grants reader says, asked of the running broker as well: thousands of questions, and never two answers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.mosquitto.acl_asking import IDS, USERS, Asker, allows, asked, random_acl, random_topics
from topicwarden.sources import SourceOptions
from topicwarden_collectors.mosquitto.grants_read import read_grants


@pytest.mark.parametrize("seed", range(24))
def test_the_reader_and_the_broker_never_differ(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    askers = [Asker(rng.choice(USERS), rng.choice(IDS)) for _ in range(8)]
    acl = random_acl(rng, askers)
    topics = random_topics(rng, acl, askers, 40)
    (tmp_path / "acl").write_text(acl)
    (grants,) = read_grants(str(tmp_path / "acl"), SourceOptions())
    count = 0
    for asker, action, topic, allowed in asked(tmp_path / "broker", acl, askers, topics):
        count += 1
        assert allows(grants.rights(asker.at()), action, topic) == allowed, (acl, asker, action.name, topic, allowed)
    assert count >= 8 * len(topics)
