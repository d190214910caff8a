"""Which permissions of one policy go beyond another policy, for whom, and with a name that shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from topicwarden.compare.policies_clients import ACTIONS, Clients
from topicwarden.compare.policies_model import Difference, Example, Permission, Side, Unanswered, Written
from topicwarden.events import Action, Client
from topicwarden.patterns import Answer, Covered, Pattern, Witness, key_matches, literal_key
from topicwarden.patterns import matches as topic_matches
from topicwarden.patterns.syntax import Union
from topicwarden.policy import MemberSelector, Place, Policy, Role, Space

_MOST_UNIONS: Final = 4096
TOO_MANY: Final = "too many kinds of clients: the members' patterns overlap in too many ways"


def permissions(name: str, role: Role) -> list[Permission]:
    """Return all permissions of a role in the order written, and what comes with them: the same as `Role.places`."""
    found = [
        *(Permission(name, "publish", i, Action.PUBLISH, r.place, r) for i, r in enumerate(role.publish)),
        *(Permission(name, "subscribe", i, Action.SUBSCRIBE, r.place) for i, r in enumerate(role.subscribe)),
        *(Permission(name, "consume", i, Action.SUBSCRIBE, r.place) for i, r in enumerate(role.consume)),
        *(Permission(name, "configure", i, Action.CONFIGURE, r.place) for i, r in enumerate(role.configure)),
    ]
    written = {(one.action, one.place) for one in found}
    binding = next((i for i, rule in enumerate(role.subscribe) if rule.exchange is not None), 0)
    return found + [
        Permission(name, "subscribe", binding, action, place, implied=True)
        for action in ACTIONS
        for place in role.places(action)
        if (action, place) not in written
    ]


def written_at(side: Side, *path: str | int) -> Written:
    """Return where a part of a policy stands."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return Written(side.name, None if side.lines is None else side.lines.of(*path), text)


def allowing(policy: Policy, client: Client, action: Action, space: Space, name: str) -> list[Permission]:
    """Return the permissions by which a policy lets a client use a name: the plain definition, without any index."""
    return [
        one
        for role_name, role in policy.roles.items()
        if role.has_member(client)
        for one in permissions(role_name, role)
        if one.action is action and one.place.space == space and place_matches(one.place, name, client)
    ]


def place_matches(place: Place, name: str, client: Client) -> bool:
    """Whether a place holds a name for this client."""
    match place.space.family:
        case "topic":
            return topic_matches(place.pattern, name, client.user, client.client_id)
        case "key":
            return key_matches(bound(place, client), name)
        case _:
            return name != "" and key_matches(bound(place, client), name)


def bound(place: Place, client: Client) -> Pattern:
    """Return a place's pattern with this client's names in it."""
    return place.space.syntax.bind(place.pattern, client.user, client.client_id)


class Rights:
    """What one policy lets clients do, as unions of patterns that are built once."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.permissions = {name: permissions(name, role) for name, role in side.policy.roles.items()}
        self._plain = {
            (member, one.action, one.place)
            for name, role in side.policy.roles.items()
            for member in role.members
            for one in self.permissions[name]
        }
        self._unions: dict[tuple[object, ...], Union] = {}
        self._members: dict[str | None, list[tuple[int, str, MemberSelector]]] = {}
        """The selectors by the one user name that they spell out; under None those that do not."""
        for number, (name, role) in enumerate(side.policy.roles.items()):
            for member in role.members:
                user = None if member.user is None or {"*", "?"} & set(member.user.text) else member.user.text
                self._members.setdefault(user, []).append((number, name, member))

    @property
    def selectors(self) -> Iterator[MemberSelector]:
        """All selectors of all roles."""
        return (member for role in self.side.policy.roles.values() for member in role.members)

    def roles_of(self, client: Client) -> tuple[str, ...]:
        """Return the names of a client's roles, as `Policy.roles_of` does, without a look at every selector."""
        could = [*self._members.get(None, ()), *(self._members.get(client.user, ()) if client.user is not None else ())]
        found = {number: name for number, name, member in could if member.matches(client)}
        return tuple(found[number] for number in sorted(found))

    def says(self, member: MemberSelector, permission: Permission) -> bool:
        """Whether some role gives this permission to just this selector."""
        return (member, permission.action, permission.place) in self._plain

    def of(self, roles: Sequence[str], action: Action, space: Space) -> Iterator[Permission]:
        """Yield what these roles permit in a space."""
        for role in roles:
            for one in self.permissions[role]:
                if one.action is action and one.place.space == space:
                    yield one

    def union(self, roles: tuple[str, ...], action: Action, space: Space, client: Client) -> Union:
        """Return all that these roles let a client do in a space."""
        key = (roles, action, space, client.user, client.client_id)
        found = self._unions.get(key)
        if found is None:
            if len(self._unions) >= _MOST_UNIONS:
                self._unions.clear()
            found = self._unions[key] = union_of(space, [bound(p.place, client) for p in self.of(roles, action, space)])
        return found


def union_of(space: Space, patterns: Sequence[Pattern]) -> Union:
    """Return a union; of queues and exchanges, which have a name, the empty one is nobody's difference."""
    nameless = [] if space.family in ("topic", "key") else [literal_key("")]
    return space.syntax.union([*patterns, *nameless])


Standing = tuple[object, ...]


def standing(clients: Clients, client: Client) -> Standing:
    """Return what tells a client from others of the same roles: names that some pattern spells out, or odd ones."""
    return (
        *(name if clients.stands_alone(name) else "*" for name in (client.user, client.client_id)),
        client.user == client.client_id,
    )


def beyond(
    mine: Rights, other: Rights, clients: Clients, question: str
) -> tuple[list[Difference], list[Unanswered], set[tuple[MemberSelector, Permission]]]:
    """Return what `mine` permits and `other` does not, what could not be decided, and who gains by what.

    Each permission comes once, with the selectors of its role through which somebody gains.
    """
    against = clients.looked_at(other.selectors)
    differences: list[Difference] = []
    unanswered: list[Unanswered] = []
    gained: set[tuple[MemberSelector, Permission]] = set()
    for name, role in mine.side.policy.roles.items():
        found: dict[Permission, tuple[Example, list[MemberSelector]]] = {}
        doubts: dict[Permission, str] = {}
        known: dict[tuple[Permission, tuple[str, ...], Standing], Answer] = {}
        for member in role.members:
            open_questions = [one for one in mine.permissions[name] if not other.says(member, one)]
            if not open_questions:
                continue
            representatives, complete = clients.standing_for([clients.needs(member)], against)
            for client in representatives:
                roles = other.roles_of(client)
                who = standing(clients, client)
                for one in open_questions:
                    if (member, one) in gained:
                        continue
                    answer = known.get((one, roles, who))
                    if answer is None:
                        union = other.union(roles, one.action, one.place.space, client)
                        answer = known[one, roles, who] = union.uncovered(bound(one.place, client))
                    if isinstance(answer, Witness):
                        gained.add((member, one))
                        found.setdefault(one, (Example(client, answer.topic), []))[1].append(member)
                    elif not isinstance(answer, Covered):
                        doubts.setdefault(one, answer.reason)
            if not complete:
                for one in open_questions:
                    if (member, one) not in gained:
                        doubts.setdefault(one, TOO_MANY)
        for one in mine.permissions[name]:
            written = written_at(mine.side, "roles", name, one.kind, one.number)
            if one in found:
                example, members = found[one]
                differences.append(Difference(one, written, tuple(members), example))
            if one in doubts:
                unanswered.append(Unanswered(question, name, one, doubts[one], written))
    return differences, unanswered, gained
