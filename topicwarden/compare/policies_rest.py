"""What else changes between two policies: roles, members, naming, payloads, thresholds, inventory, exceptions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

from topicwarden.compare.policies_clients import Clients
from topicwarden.compare.policies_model import Effect, Other, Side, Unanswered
from topicwarden.compare.policies_rights import TOO_MANY, written_at
from topicwarden.patterns import Covered, FilterUnion
from topicwarden.policy import ExceptionRule, Glob, InventoryBroker, InventoryTool, MemberSelector, NamingRule, Rate

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)


def other_changes(old: Side, new: Side, clients: Clients) -> tuple[list[Other], list[Unanswered]]:
    """Return all other changes, in the order of a policy file."""
    unanswered: list[Unanswered] = []
    changes = [
        *_roles(old, new),
        *_members(old, new, clients, unanswered),
        *_naming(old, new),
        *_payload(old, new),
        *_thresholds(old, new),
        *_brokers(old, new),
        *_tools(old, new),
        *_hosts(old, new),
        *_exceptions(old, new),
    ]
    return changes, unanswered


def _roles(old: Side, new: Side) -> Iterator[Other]:
    for name in old.policy.roles:
        if name not in new.policy.roles:
            yield Other("roles", "removed", name, name, None, Effect.NONE, written_at(old, "roles", name))
    for name in new.policy.roles:
        if name not in old.policy.roles:
            yield Other("roles", "new", name, None, name, Effect.NONE, written_at(new, "roles", name))


def _members(old: Side, new: Side, clients: Clients, unanswered: list[Unanswered]) -> Iterator[Other]:
    """Yield who is newly a member of a role that stands in both policies, and who no longer is."""
    for name, role in new.policy.roles.items():
        was = old.policy.roles.get(name)
        if was is None or was.members == role.members:
            continue
        changed = False
        for mine, here, other, what in ((new, role, was, "joins"), (old, was, role, "leaves")):
            against = clients.looked_at(other.members)
            for number, member in enumerate(here.members):
                if member in other.members:
                    continue
                written = written_at(mine, "roles", name, "members", number)
                found, complete = clients.standing_for([clients.needs(member)], against)
                outside = next((client for client in found if not other.has_member(client)), None)
                if outside is not None:
                    label = selector_text(member)
                    before, after = (None, label) if what == "joins" else (label, None)
                    yield Other("members", what, name, before, after, Effect.NONE, written, outside, member)
                    changed = True
                elif not complete:
                    unanswered.append(Unanswered("members", name, None, TOO_MANY, written))
                    changed = True
        if not changed and set(was.members) != set(role.members):
            written = written_at(new, "roles", name, "members")
            yield Other("members", "written otherwise, the same clients", name, None, None, Effect.NONE, written)


def selector_text(member: MemberSelector) -> str:
    """Return a selector on one line, much as YAML has it."""
    return ", ".join(f"{key}: {value}" for key, value in selector_items(member))


def selector_items(member: MemberSelector) -> list[tuple[str, str]]:
    """Return the keys that are written in a selector, with their values."""
    keys = ("anonymous", "user", "client", "vhost", "broker", "address", "tls_subject")
    values = ((key, getattr(member, key)) for key in keys)
    return [(key, "true" if value is True else str(value)) for key, value in values if value is not None and value != 0]


def _matched(
    old: Sequence[Item], new: Sequence[Item], key: Callable[[Item], Key]
) -> Iterator[tuple[Key, list[tuple[int, Item]], list[tuple[int, Item]]]]:
    """Yield the items of two lists that are about the same, with their places; those that are equal left out."""
    groups: dict[Key, tuple[list[tuple[int, Item]], list[tuple[int, Item]]]] = {}
    for side, items in enumerate((old, new)):
        for number, item in enumerate(items):
            groups.setdefault(key(item), ([], []))[side].append((number, item))
    for name, (before, after) in groups.items():
        was, now = [item for _, item in before], [item for _, item in after]
        if was != now:
            yield name, [(n, item) for n, item in before if item not in now], [
                (n, item) for n, item in after if item not in was
            ]  # fmt: skip


def _naming(old: Side, new: Side) -> Iterator[Other]:
    groups = _matched(old.policy.naming, new.policy.naming, lambda rule: rule.within.place)
    for place, before, after in groups:
        one_each = len(before) == len(after) == 1
        for number, rule in after:
            was = before[0][1] if one_each else None
            effect = Effect.TIGHTER if was is None else _naming_effect(was, rule)
            what = "new rule" if was is None else "changed rule"
            levels = None if was is None else _levels(was)
            yield Other("naming", what, place.label, levels, _levels(rule), effect, written_at(new, "naming", number))
        for number, rule in [] if one_each else before:
            where = written_at(old, "naming", number)
            yield Other("naming", "removed rule", place.label, _levels(rule), None, Effect.LOOSER, where)


def _naming_effect(old: NamingRule, new: NamingRule) -> Effect:
    if old.levels == new.levels:
        return Effect.LOOSER if new.more else Effect.TIGHTER
    return Effect.EITHER


def _levels(rule: NamingRule) -> str:
    return rule.within.place.space.syntax.separator.join(rule.levels) + (" and more levels" if rule.more else "")


def _payload(old: Side, new: Side) -> Iterator[Other]:
    was, now = old.policy.payload, new.policy.payload
    if was.max_entropy != now.max_entropy:
        effect = _larger_is_looser(was.max_entropy, now.max_entropy)
        yield _value(new, "payload", "max_entropy", was.max_entropy, now.max_entropy, effect)
    if was.min_size_for_entropy != now.min_size_for_entropy:
        judged = was.max_entropy is not None and now.max_entropy is not None
        sizes = was.min_size_for_entropy, now.min_size_for_entropy
        effect = _larger_is_looser(*sizes) if judged else Effect.NONE
        yield _value(new, "payload", "min_size_for_entropy", *sizes, effect)
    for key in ("text_only", "no_encoded"):
        yield from _filters(old, new, key, getattr(was, key), getattr(now, key))


def _filters(old: Side, new: Side, key: str, was: Sequence[str], now: Sequence[str]) -> Iterator[Other]:
    """Yield topics that are newly judged, or no longer; a filter that others cover makes no difference."""
    for side, mine, other, effect in ((old, was, now, Effect.LOOSER), (new, now, was, Effect.TIGHTER)):
        union = FilterUnion(other)
        for number, topic in enumerate(mine):
            if topic not in other and not isinstance(union.uncovered(topic), Covered):
                before, after = (topic, None) if side is old else (None, topic)
                yield Other("payload", key, topic, before, after, effect, written_at(side, "payload", key, number))


def _larger_is_looser(old: float | None, new: float | None) -> Effect:
    """Say what another limit does; None is none."""
    if old is None or new is None:
        return Effect.LOOSER if new is None else Effect.TIGHTER
    return Effect.LOOSER if new > old else Effect.TIGHTER


def _value(side: Side, section: str, key: str, old: object, new: object, effect: Effect) -> Other:
    before, after = (None if value is None else str(value) for value in (old, new))
    return Other(section, key, "", before, after, effect, written_at(side, section, key))


def _thresholds(old: Side, new: Side) -> Iterator[Other]:
    was, now = old.policy.thresholds, new.policy.thresholds
    for key in type(was).model_fields:
        before, after = getattr(was, key), getattr(now, key)
        if before == after:
            continue
        if isinstance(before, Rate) and isinstance(after, Rate):
            looser = _speed(after) > _speed(before) or after.default_burst > before.default_burst
            tighter = _speed(after) < _speed(before) or after.default_burst < before.default_burst
            effect = Effect.EITHER if looser and tighter else Effect.LOOSER if looser else Effect.TIGHTER
        else:
            effect = _larger_is_looser(before, after)
        yield _value(new, "thresholds", key, before, after, effect)


def _speed(rate: Rate) -> Fraction:
    return Fraction(rate.amount, rate.per_ns)


def _brokers(old: Side, new: Side) -> Iterator[Other]:
    was, now = (_ports(side.policy.inventory.brokers) for side in (old, new))
    for address in {**was, **now}:
        before, after = was.get(address, {}), now.get(address, {})
        for side, mine, other, effect in ((new, after, before, Effect.LOOSER), (old, before, after, Effect.TIGHTER)):
            ports = sorted(mine.keys() - other.keys())
            if ports:
                text = ", ".join(map(str, ports))
                texts = (None, text) if side is new else (text, None)
                where = written_at(side, "inventory", "brokers", mine[ports[0]])
                yield Other("inventory", "broker", address, texts[0], texts[1], effect, where)


def _ports(brokers: Sequence[InventoryBroker]) -> Mapping[str, dict[int, int]]:
    """Return each broker's ports, with the number of the entry that has them."""
    found: dict[str, dict[int, int]] = {}
    for number, broker in enumerate(brokers):
        for port in broker.ports:
            found.setdefault(broker.address, {}).setdefault(port, number)
    return found


def _tools(old: Side, new: Side) -> Iterator[Other]:
    groups = _matched(old.policy.inventory.tools, new.policy.inventory.tools, lambda tool: str(tool.process))
    for process, before, after in groups:
        one_each = len(before) == len(after) == 1
        for number, tool in after:
            was = before[0][1] if one_each else None
            effect = Effect.LOOSER if was is None else _tool_effect(was, tool)
            where = written_at(new, "inventory", "tools", number)
            yield Other("inventory", "tool", process, None if was is None else _tool(was), _tool(tool), effect, where)
        for number, tool in [] if one_each else before:
            where = written_at(old, "inventory", "tools", number)
            yield Other("inventory", "tool", process, _tool(tool), None, Effect.TIGHTER, where)


def _hosts(old: Side, new: Side) -> Iterator[Other]:
    """Yield changed addresses of hosts: they say who is who, and allow nothing."""
    was, now = ({host.name: host for host in side.policy.inventory.hosts} for side in (old, new))
    for name in {**was, **now}:
        before, after = (None if host is None else ", ".join(host.addresses) for host in (was.get(name), now.get(name)))
        if before != after:
            yield Other("inventory", "host", name, before, after, Effect.NONE, written_at(new, "inventory", "hosts"))


def _tool_effect(old: InventoryTool, new: InventoryTool) -> Effect:
    """Compare hosts, users and parents as written; none given is any."""
    wider = narrower = False
    for was, now in ((old.hosts, new.hosts), (old.users, new.users), (old.parents, new.parents)):
        wider = wider or not _within(now, was)
        narrower = narrower or not _within(was, now)
    return Effect.EITHER if wider and narrower else Effect.LOOSER if wider else Effect.TIGHTER


def _within(globs: Sequence[Glob], other: Sequence[Glob]) -> bool:
    return not other or (bool(globs) and set(globs) <= set(other))


def _tool(tool: InventoryTool) -> str:
    hosts, users = (", ".join(map(str, globs)) or "any" for globs in (tool.hosts, tool.users))
    parents = ", ".join(map(str, tool.parents))
    return f"on hosts {hosts}, by users {users}" + (f", started by {parents}" if parents else "")


def _exceptions(old: Side, new: Side) -> Iterator[Other]:
    """Yield exceptions by whom and what they are about; of several about the same, the longest counts."""
    was, now = (_by_scope(side.policy.exceptions) for side in (old, new))
    for key in {**was, **now}:
        before, after = was.get(key), now.get(key)
        if before is None and after is not None:
            where = written_at(new, "exceptions", after[0])
            yield Other("exceptions", "new", _about(after[1]), None, _told(after[1]), Effect.LOOSER, where)
        elif after is None and before is not None:
            where = written_at(old, "exceptions", before[0])
            yield Other("exceptions", "removed", _about(before[1]), _told(before[1]), None, Effect.TIGHTER, where)
        elif before is not None and after is not None and _told(before[1]) != _told(after[1]):
            until = before[1].until, after[1].until
            effect = Effect.NONE if until[0] == until[1] else Effect.LOOSER if until[0] < until[1] else Effect.TIGHTER
            where = written_at(new, "exceptions", after[0])
            texts = _told(before[1]), _told(after[1])
            yield Other("exceptions", "changed", _about(after[1]), *texts, effect, where)


def _by_scope(rules: Sequence[ExceptionRule]) -> dict[Hashable, tuple[int, ExceptionRule]]:
    found: dict[Hashable, tuple[int, ExceptionRule]] = {}
    for number, rule in enumerate(rules):
        key = (rule.finding.lower(), tuple(rule.about.items()), rule.place)
        known = found.get(key)
        if known is None or known[1].until < rule.until:
            found[key] = (number, rule)
    return found


def _about(rule: ExceptionRule) -> str:
    words = {"holder": "for", "file": "in", "change": "change of"}
    parts = [rule.finding, *(f"{words.get(key, key)} {value}" for key, value in rule.about.items())]
    parts += [rule.place.label] if rule.place is not None else []
    return ", ".join(parts)


def _told(rule: ExceptionRule) -> str:
    return f"until {rule.until.isoformat()}: {rule.reason}"
