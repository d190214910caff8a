"""Traffic of a made-up plant whose true policy is known: 31 templates, 7 roles; what learning finds is held against it.

Each client shows each template of its role with probability `shown`; where a template has open levels, it uses several
values. Held out are names of legitimate behaviour that was not observed. Illegitimate are other clients' names, other
roles' behaviour, the wrong direction, and names nobody may use; `poison` is a share of the observed pairs that are
illegitimate and observed all the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from topicwarden.events import (
    Action,
    Certainty,
    Client,
    EventBatch,
    EventBuilder,
    Identity,
    Outcome,
    Resource,
    ResourceKind,
    Tables,
)
from topicwarden.patterns import matches
from topicwarden.policy import Policy

START_NS = 1_780_272_000_000_000_000
SITES = 60
_KINDS = ("temp", "hum", "pres", "vib")
Template = tuple[Action, str]
PUBLISH, SUBSCRIBE = Action.PUBLISH, Action.SUBSCRIBE
ROLES: Mapping[str, Sequence[Template]] = {
    "sensor": [
        *((PUBLISH, f"site/+/dev/%c/telemetry/{kind}") for kind in _KINDS),
        (SUBSCRIBE, "site/+/dev/%c/cmd"),
        (PUBLISH, "status/%c"),
    ],
    "gateway": [
        (PUBLISH, "gw/%c/+/up"),
        (SUBSCRIBE, "gw/%c/+/down"),
        (PUBLISH, "status/%c"),
        (PUBLISH, "logs/gateway/info"),
        (PUBLISH, "logs/gateway/error"),
    ],
    "dash": [
        *((SUBSCRIBE, f"site/+/dev/+/telemetry/{kind}") for kind in _KINDS),
        (SUBSCRIBE, "status/+"),
        (SUBSCRIBE, "users/%u/inbox"),
    ],
    "billing": [
        (PUBLISH, "billing/invoice/+"),
        (SUBSCRIBE, "orders/+/created"),
        (SUBSCRIBE, "orders/+/cancelled"),
        (PUBLISH, "logs/billing/info"),
        (PUBLISH, "logs/billing/error"),
    ],
    "order": [
        (PUBLISH, "orders/+/created"),
        (PUBLISH, "orders/+/cancelled"),
        (SUBSCRIBE, "billing/invoice/+"),
        (PUBLISH, "users/%u/outbox"),
    ],
    "ota": [
        (PUBLISH, "site/+/dev/+/cmd"),
        (SUBSCRIBE, "status/+"),
        (PUBLISH, "fw/release/stable"),
        (PUBLISH, "fw/release/beta"),
    ],
    "app": [
        (SUBSCRIBE, "users/%u/inbox"),
        (PUBLISH, "users/%u/outbox"),
        (SUBSCRIBE, "news/de"),
        (SUBSCRIBE, "news/en"),
        (SUBSCRIBE, "news/fr"),
    ],
}
TEMPLATES = sorted({template for templates in ROLES.values() for template in templates})
_SHARES = {"sensor": 0.6, "gateway": 0.12, "dash": 0.02, "billing": 0.01, "order": 0.02, "ota": 0.005, "app": 0.225}
_VALUES = {"gw": 25, "billing": 150, "orders": 150, "site": 40, "status": 40}
"""How many names a client uses of a template with open levels, by its first level; a client's own has one."""

Use = tuple[int, Action, str]
"""Client number, action, topic."""


@dataclass(frozen=True)
class Person:
    """A client of the plant; user names are unique, so that a user has one true role."""

    client_id: str
    user: str
    role: str
    site: str


@dataclass(frozen=True)
class Workload:
    """What is observed, and what is not."""

    people: Sequence[Person]
    legitimate: Sequence[Use]
    poison: Sequence[Use]
    held_out: Sequence[Use]
    illegitimate: Sequence[Use]

    @property
    def observed(self) -> int:
        """How many different pairs are observed."""
        return len(self.legitimate) + len(self.poison)

    def batches(self, size: int = 1 << 15) -> Iterator[EventBatch]:
        """Yield the observed traffic as events, a millisecond apart."""
        builder = EventBuilder(Tables())
        clients = [
            Client("plant", "mqtt", person.client_id, person.user, identity=Identity.VERIFIED) for person in self.people
        ]
        for number, (who, action, topic) in enumerate(sorted([*self.legitimate, *self.poison])):
            resource = Resource(ResourceKind.TOPIC, topic)
            time_ns = START_NS + number * 1_000_000
            builder.add(time_ns, action, clients[who], resource, Outcome.ALLOWED, Certainty.EXACT, size=40)
            if len(builder) >= size or builder.tables.must_flush:
                yield builder.take()
        if not builder.empty:
            yield builder.take()


def truly_allowed(person: Person, action: Action, topic: str) -> bool:
    """Whether the plant's true policy allows it."""
    return any(
        action is wanted and matches(template, topic, person.user, person.client_id)
        for wanted, template in ROLES[person.role]
    )


def plant(
    clients: int, *, shown: float = 0.8, poison: float = 0.0, seed: int = 7, tests: int = 50_000, plenty: float = 1.0
) -> Workload:
    """Return a workload.

    `tests`: about how many illegitimate uses to hold out, four kinds in equal parts; `plenty`: how many values of open
    levels each client uses, as a multiple of what a full workload has.
    """
    source = random.Random(seed)
    users = source.sample(range(10 * clients), clients)
    roles = source.choices(list(_SHARES), list(_SHARES.values()), k=clients)
    people = [
        Person(f"{role[:3]}-{n:06d}", f"u{user:07d}", role, f"s{source.randrange(SITES):02d}")
        for n, (role, user) in enumerate(zip(roles, users, strict=True))
    ]
    sensors = [person.client_id for person in people if person.role == "sensor"]

    def instance(person: Person, template: str) -> str:
        levels = template.split("/")
        for place, level in enumerate(levels):
            if level == "%c":
                levels[place] = person.client_id
            elif level == "%u":
                levels[place] = person.user
            elif level == "+" and levels[0] == "site" and place == 1:
                levels[place] = person.site if "%c" in template else f"s{source.randrange(SITES):02d}"
            elif level == "+" and levels[0] in ("site", "status"):
                levels[place] = source.choice(sensors)
            elif level == "+":
                levels[place] = f"n{source.randrange(100_000)}" if levels[0] == "gw" else str(source.randrange(10**7))
        return "/".join(levels)

    observed: set[Use] = set()
    held_out: set[Use] = set()
    for number, person in enumerate(people):
        for action, template in ROLES[person.role]:
            first = template.split("/")[0]
            is_open = "+" in template and not (first == "site" and "%c" in template)
            values = max(1, round(plenty * _VALUES[first])) if is_open else 1
            if source.random() > shown:
                held_out.add((number, action, instance(person, template)))
                continue
            observed.update((number, action, instance(person, template)) for _ in range(values))
            if "+" in template:
                held_out.add((number, action, instance(person, template)))
    bad = list(dict.fromkeys(_illegitimate(source, people, instance, tests)))
    poisoned = bad[: round(poison * len(observed))]
    assert len(poisoned) == round(poison * len(observed)), "ask for more tests"
    return Workload(people, sorted(observed), poisoned, sorted(held_out - observed), bad[len(poisoned) :])


def _illegitimate(source: random.Random, people: Sequence[Person], instance: object, tests: int) -> Iterator[Use]:
    assert callable(instance)
    for _ in range(tests):
        number = source.randrange(len(people))
        person, other = people[number], source.choice(people)
        action, template = source.choice(ROLES[other.role])
        match source.randrange(4):
            case 0:  # another client's own name
                topic = instance(other, template)
            case 1:  # another role's behaviour
                topic = instance(person, template)
            case 2:  # the wrong direction
                action, template = source.choice(ROLES[person.role])
                action, topic = SUBSCRIBE if action is PUBLISH else PUBLISH, instance(person, template)
            case _:  # a name nobody may use
                action = source.choice((PUBLISH, SUBSCRIBE))
                branch = source.choice(("admin", "$SYS", "site/x", "billing", "fw/release"))
                topic = f"{branch}/z{source.randrange(1000)}"
        if not truly_allowed(person, action, topic):
            yield number, action, topic


class Judge:
    """What a policy allows, by its own words: globs and filters, and no part of what learnt it."""

    def __init__(self, policy: Policy) -> None:
        self._roles = list(policy.roles.values())
        self._by_name: dict[str, set[int]] = {}
        self._globs: list[tuple[int, object]] = []
        for number, role in enumerate(self._roles):
            for member in role.members:
                assert member.user is not None
                if "*" in str(member.user):
                    self._globs.append((number, member.user))
                else:
                    self._by_name.setdefault(str(member.user), set()).add(number)

    def allows(self, person: Person, action: Action, topic: str) -> bool:
        """Whether some role of the user allows it."""
        mine = self._by_name.get(person.user, set()) | {
            number
            for number, glob in self._globs
            if glob.matches(person.user)  # type: ignore[attr-defined]
        }
        for number in mine:
            role = self._roles[number]
            for rule in role.publish if action is PUBLISH else role.subscribe:
                if rule.topic is not None and matches(rule.topic, topic, person.user, person.client_id):
                    return True
        return False

    def share(self, workload: Workload, uses: Sequence[Use]) -> float:
        """Return the share of these uses that it allows; 0 of none."""
        allowed = sum(self.allows(workload.people[who], action, topic) for who, action, topic in uses)
        return allowed / len(uses) if uses else 0.0


def templates_of(policy: Policy) -> set[Template]:
    """Return all templates of a policy's roles."""
    return {
        (action, rule.topic)
        for role in policy.roles.values()
        for action, rules in ((PUBLISH, role.publish), (SUBSCRIBE, role.subscribe))
        for rule in rules
        if rule.topic is not None
    }


def roles_of(policy: Policy) -> list[frozenset[Template]]:
    """Return each role as the set of its templates."""
    return [
        frozenset(
            (action, rule.topic)
            for action, rules in ((PUBLISH, role.publish), (SUBSCRIBE, role.subscribe))
            for rule in rules
            if rule.topic is not None
        )
        for role in policy.roles.values()
    ]
