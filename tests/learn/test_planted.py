"""The plant whose true policy is known, in small; `python -m bench learn` has the full one."""

from __future__ import annotations

import functools

import pytest

from tests.learn.planted import ROLES, TEMPLATES, Judge, Workload, plant, roles_of, templates_of
from topicwarden.learn.draft import Draft, draft
from topicwarden.learn.observations import Gatherer
from topicwarden.learn.yaml_text import Provenance, policy_text
from topicwarden.policy import Policy, parse_policy


@functools.cache
def learnt(shown: float, poison: float) -> tuple[Workload, Draft, Policy]:
    workload = plant(3000, shown=shown, poison=poison, seed=2, tests=8000, plenty=0.4)
    gatherer = Gatherer()
    for batch in workload.batches():
        gatherer.add(batch)
    found = draft(gatherer.finish())
    return workload, found, parse_policy(policy_text(found, Provenance("learn", [], "0", "r")), "draft")


@pytest.mark.parametrize("poison", [0.0, 0.001, 0.01])
def test_the_true_policy_is_found_and_no_poison_is_granted(poison: float) -> None:
    workload, found, policy = learnt(0.8, poison)
    assert templates_of(policy) == set(TEMPLATES)
    assert set(roles_of(policy)) == {frozenset(templates) for templates in ROLES.values()}
    judge = Judge(policy)
    assert judge.share(workload, workload.held_out) >= 0.98
    assert judge.share(workload, workload.illegitimate) == 0
    assert judge.share(workload, workload.poison) == 0
    assert found.coverage.estimate > 0.75


def test_all_the_poison_is_on_the_review_list() -> None:
    workload, found, policy = learnt(0.8, 0.01)
    judge = Judge(policy)
    ungranted = sum(
        not judge.allows(workload.people[who], action, topic)
        for who, action, topic in (*workload.legitimate, *workload.poison)
    )
    assert len(workload.poison) > 300
    assert sum(item.events for item in found.review) == ungranted == workload.observed - found.granted_events


def test_the_estimate_of_coverage_is_low_where_clients_showed_half_of_what_they_do() -> None:
    workload, found, policy = learnt(0.5, 0.0)
    assert Judge(policy).share(workload, workload.held_out) < 0.85
    assert found.coverage.estimate < 0.65
