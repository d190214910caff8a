from __future__ import annotations

import random

from topicwarden.learn.roles import Roles, Set, find_roles

WIDTH = 40


def find(*groups: tuple[int, set[int]], shown: float = 0.9, seed: int = 1) -> tuple[Roles, dict[int, Set]]:
    """Give each group's accounts its templates, each with probability `shown`."""
    source = random.Random(seed)
    used: dict[int, Set] = {}
    for size, templates in groups:
        for _ in range(size):
            used[len(used)] = tuple(sorted(t for t in templates if source.random() < shown))
    return find_roles(used, WIDTH, 5, lambda: None), used


READ, WRITE, OTHER = {0, 1, 2}, {3, 4, 5}, {10, 11, 12, 13}


def test_groups_that_do_different_things_are_roles() -> None:
    found, _ = find((100, READ | WRITE), (8, OTHER))
    assert found.templates == [frozenset(READ | WRITE), frozenset(OTHER)]
    assert len(found.members[1]) >= 7


def test_a_shared_template_does_not_join_two_roles() -> None:
    found, _ = find((100, READ | {20}), (100, OTHER | {20}))
    assert set(found.templates) == {frozenset(READ | {20}), frozenset(OTHER | {20})}


def test_what_a_few_members_do_besides_is_not_the_roles() -> None:
    poison = {30, 31, 32}
    found, used = find((500, READ | WRITE), (40, READ | WRITE | poison))
    assert found.templates == [frozenset(READ | WRITE)]
    assert len(found.members[0]) > 0.99 * len(used)


def test_a_stray_template_spread_over_all_roles_is_none() -> None:
    found, used = find((500, READ | WRITE), (200, OTHER))
    source = random.Random(3)
    poisoned = {a: tuple(sorted({*one, 30} if source.random() < 0.1 else one)) for a, one in used.items()}
    found = find_roles(poisoned, WIDTH, 5, lambda: None)
    assert found.templates == [frozenset(READ | WRITE), frozenset(OTHER)]


def test_those_who_only_read_do_not_get_a_role_that_also_writes() -> None:
    found, used = find((500, READ | WRITE), (30, READ), shown=0.97)
    assert frozenset(READ) in found.templates
    readers = found.members[found.templates.index(frozenset(READ))]
    assert {a for a in range(500, 530) if set(used[a]) == READ} <= set(readers)


def test_an_account_that_fits_two_roles_gets_neither() -> None:
    found, used = find((100, READ | {20}), (100, OTHER | {20}), shown=1.0)
    used[999] = (0, 20)
    used[1000] = (20,)
    found = find_roles(used, WIDTH, 5, lambda: None)
    assert 1000 not in {a for members in found.members for a in members}


def test_an_account_that_also_acts_like_another_role_gets_only_its_own() -> None:
    _, used = find((100, READ | WRITE), (20, OTHER), shown=1.0)
    used[0] = tuple(sorted(READ | WRITE | OTHER))
    found = find_roles(used, WIDTH, 5, lambda: None)
    assert 0 not in found.members[1]


def test_several_accounts_with_the_same_two_roles_have_both() -> None:
    _, used = find((100, READ | WRITE), (100, OTHER), shown=1.0)
    for account in range(10):
        used[account] = tuple(sorted(READ | WRITE | OTHER))
    found = find_roles(used, WIDTH, 5, lambda: None)
    assert all(sum(account in members for members in found.members) == 2 for account in range(10))


def test_accounts_with_one_thing_in_common_only_are_a_role_of_it() -> None:
    found, _ = find((6, {7}), shown=1.0)
    assert found.templates == [frozenset({7})]
    assert found.members == [list(range(6))]


def test_too_few_are_no_role() -> None:
    found, _ = find((4, READ), shown=1.0)
    assert found.templates == []


def test_nothing_used_gives_no_roles() -> None:
    assert find_roles({}, 0, 5, lambda: None).templates == []
    assert find_roles({1: ()}, 3, 5, lambda: None).templates == []
