"""The plain, obvious engine: one event after the other, no classes, no arrays. What the fast one must equal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from topicwarden.engine.payload import entropy_threshold
from topicwarden.engine.subscribes import everything
from topicwarden.events import Action, Certainty, Client, EventBatch, Identity, Outcome, Resource, ResourceKind, Shape
from topicwarden.findings import Catalogue, Ledger
from topicwarden.patterns import (
    Covered,
    KeyUnion,
    bind,
    bind_key,
    filter_problem,
    key_matches,
    key_overlap,
    literal_key,
    matches,
    overlap,
    parse,
    parse_binding,
    skeleton,
    strip_share,
    uncovered,
    unsafe_characters,
)
from topicwarden.policy import Payload, Policy, PublishRule, Rate, SubscribeRule, Thresholds, Within

SECOND = 1_000_000_000
ACTING = (Action.PUBLISH, Action.SUBSCRIBE, Action.CONFIGURE)


class Oracle:
    """Judges single events and keeps a ledger."""

    def __init__(self, catalogue: Catalogue, policy: Policy | None) -> None:
        self.ledger = Ledger(catalogue)
        self.policy = policy
        self.payload = policy.payload if policy else Payload()
        self.thresholds = policy.thresholds if policy else Thresholds()
        self.buckets: dict[object, int] = {}
        self.newest: int | None = None
        self.added = 0
        self.first: int | None = None
        self.topics: set[str] = set()
        self.registered: set[str] = set()
        self.skeletons: dict[object, tuple[str, object]] = {}

    def run(self, batches: Iterable[EventBatch]) -> Ledger:
        for batch in batches:
            for row in range(len(batch)):
                client = batch.tables.clients.entries[int(batch.client[row])]
                resource = batch.tables.resources.entries[int(batch.resource[row])]
                assert client is not None
                assert resource is not None
                self.event = {
                    name: getattr(batch, name)[row].item() for name in ("time_ns", "size", "entropy", "count")
                }
                self.client, self.resource = client, resource
                self.outcome, self.shape = Outcome(int(batch.outcome[row])), Shape(int(batch.shape[row]))
                self.certainty = Certainty(int(batch.certainty[row]))
                self.judge(Action(int(batch.action[row])))
        return self.ledger

    # -- reporting and metering ---------------------------------------------------------------------------------------

    def report(
        self, code: str, scope: tuple[str, ...] = (), count: int | None = None, about: bool = True, **evidence: Any
    ) -> None:
        time = self.event["time_ns"]
        kind = self.ledger.catalogue[code]
        accepted = None
        if self.policy:
            covering = [e for e in self.policy.exceptions if e.covers(code, kind.name, self.client, self.resource)]
            holding = [e for e in covering if time < e.until_ns]
            if holding:
                accepted = f"{holding[0].reason} (until {holding[0].until.isoformat()})"
            elif covering:
                e = covering[0]
                self.ledger.record(
                    "TW910",
                    broker=self.client.broker,
                    scope=e.scope,
                    first_ns=time,
                    last_ns=time,
                    count=self.event["count"] if count is None else count,
                )
        times = self.event["count"] if count is None else count
        self.ledger.record(
            code,
            broker=self.client.broker,
            client=self.client if about else None,
            scope=scope,
            first_ns=time,
            last_ns=time,
            count=times,
            certainty=Certainty.UNKNOWN if self.outcome is Outcome.UNKNOWN else self.certainty,
            witnesses={self.resource.label: times} if self.resource.label and about else None,
            evidence=evidence,
            accepted=accepted,
        )

    def over(self, key: object, cost: int, limit: int, times: int) -> int:
        """How many of `times` equal events a token bucket does not let pass."""
        over = 0
        for _ in range(times):
            level = max(self.buckets.get(key, 0), self.steady)
            if level + cost <= self.steady + limit:
                self.buckets[key] = level + cost
            else:
                over += 1
        return over

    def above(self, key: object, rate: Rate, times: int, factor: int = 1) -> int:
        interval = rate.emission_interval_ns
        return self.over(key, interval, factor * rate.amount * interval, times)

    def tick(self) -> None:
        time = self.event["time_ns"]
        steady = time + self.added
        if self.newest is not None:
            if self.newest - steady > SECOND:
                step = self.newest - steady
                self.ledger.record(
                    "TW904",
                    broker=self.client.broker,
                    first_ns=time,
                    last_ns=time,
                    evidence={"max_step_seconds": round(step / SECOND, 3)},
                )
                self.added += step
                steady = self.newest
            elif self.added and steady - self.newest > 3600 * SECOND:
                self.added = max(0, self.newest - time)
                steady = time + self.added
        self.newest = steady if self.newest is None else max(self.newest, steady)
        self.first = steady if self.first is None else self.first
        self.steady = steady

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self, action: Action) -> None:
        self.tick()
        denied = self.outcome is Outcome.DENIED
        roles = self.policy.roles_of(self.client) if self.policy else []
        known = (
            self.policy is None
            or self.client.user is not None
            or self.client.identity is not Identity.UNKNOWN
            or not self.asks_user()
        )
        if self.policy and not denied and not known and action in ACTING:
            self.report("TW901", ("user name not known",))
        if self.policy and known and not roles and not denied and action in (Action.CONNECT, *ACTING):
            self.report("TW230")
        if denied and action in ACTING:
            over = self.above(("denied", self.client.principal), self.thresholds.denials, self.event["count"])
            if over:
                self.report("TW301", count=over)
        if denied and action in (Action.AUTHENTICATE, Action.CONNECT):
            pair = (self.client.address, self.client.user)
            over = self.above(("login", pair), self.thresholds.login_failures, self.event["count"])
            if over:
                user = "" if self.client.user is None else f"={self.client.user}"
                self.report("TW302", (self.client.address or "an unknown address", user), count=over, about=False)
        if action is Action.PUBLISH:
            self.publish(denied, roles, known)
        elif action in (Action.SUBSCRIBE, Action.CONFIGURE):
            self.subscribe(action, denied, roles, known)

    def asks_user(self) -> bool:
        assert self.policy
        roles = self.policy.roles.values()
        members = [m for role in roles for m in role.members]
        rules: list[Any] = [rule for role in roles for rule in (*role.publish, *role.subscribe)]
        written = [rule.topic or "" for rule in rules]
        dotted = [rule.key or "" for rule in rules]
        dotted += [rule.queue for role in roles for rule in role.consume]
        dotted += [rule.queue or rule.exchange or "" for role in roles for rule in role.configure]
        return (
            any(m.user is not None or m.anonymous for m in members)
            or any("%u" in text.split("/") for text in written)
            or any("%u" in text.split(".") for text in dotted)
        )

    def rules(self, roles: list[str]) -> list[tuple[str, PublishRule]]:
        assert self.policy
        return [
            (role, rule)
            for role in roles
            for rule in self.policy.roles[role].publish
            if self.is_for(rule) and hits(self.resource, pattern(rule), self.client.user, self.client.client_id)
        ]

    def is_for(self, rule: PublishRule | SubscribeRule | Within) -> bool:
        """Whether the rule is about names of the event's kind."""
        if is_topic(self.resource):
            return rule.topic is not None
        return rule.exchange is not None and rule.exchange == self.resource.within

    def publish(self, denied: bool, roles: list[str], known: bool) -> None:
        resource = self.resource
        judged = bool(roles) and known and not resource.truncated
        allowing = self.rules(roles) if judged else []
        if denied:
            if allowing:
                self.report("TW303", ("publish",))
            return
        self.names(resource)
        self.novelty()
        if roles and known:
            if judged and not allowing:
                self.report("TW201")
            if allowing:
                self.limits(allowing)
            self.role_limits(roles)
        self.look_alike(allowed=bool(allowing), outside=judged and not allowing)
        self.payloads()

    def names(self, resource: Resource) -> None:
        if resource.truncated:
            self.report("TW206", ("cut",))
            return
        name = strip_share(resource.name)[1]
        if resource.length > self.thresholds.max_name_length:
            self.report("TW206", ("length",))
        elif len(levels(resource, name)) > self.thresholds.max_levels:
            self.report("TW206", ("levels",))
        elif resource.kind is ResourceKind.BINDING and name.split(".").count("#") > 3:
            self.report("TW206", ("wildcards",))
        elif unsafe_characters(resource.name):
            self.report("TW206", ("characters",))

    def novelty(self) -> None:
        if self.resource.label in self.topics or self.resource.made_up:
            return
        self.topics.add(self.resource.label)
        assert self.first is not None
        factor = 10 if self.steady - self.first < 600 * SECOND else 1
        if self.above(("new", self.client.principal), self.thresholds.new_topics, 1, factor):
            self.report("TW213", count=1)

    def limits(self, allowing: list[tuple[str, PublishRule]]) -> None:
        rules = [rule for _, rule in allowing]
        who, times, size = self.client.principal, self.event["count"], self.event["size"]
        if all(rule.rate for rule in rules):
            role, rule = min(allowing, key=lambda r: _generosity(r[1].rate, r[1].effective_burst))
            interval = _rate(rule.rate).emission_interval_ns
            key = ("messages", who, role, self.place(role, rule), tuple(self.policy_roles()))
            if over := self.over(key, interval, interval * (rule.effective_burst or 0), times):
                self.report("TW211", (role, shown(rule)), count=over)
        if all(rule.byte_rate for rule in rules) and size > 0:
            role, rule = min(allowing, key=lambda r: _byte_generosity(r[1]))
            rate = _rate(rule.byte_rate)
            key = ("bytes", who, role, self.place(role, rule), tuple(self.policy_roles()))
            cost, limit = max(1, rate.cost_ns(size)), rate.cost_ns(rule.effective_byte_burst or 0)
            if over := self.over(key, cost, limit, times):
                self.report("TW212", (role, shown(rule)), count=over)
        if all(rule.max_size is not None for rule in rules):
            most = max(rule.max_size or 0 for rule in rules)
            if size > most:
                self.report("TW221", (str(most),))

    def place(self, role: str, rule: PublishRule) -> int:
        assert self.policy
        return next(i for i, other in enumerate(self.policy.roles[role].publish) if other is rule)

    def policy_roles(self) -> list[str]:
        assert self.policy
        return self.policy.roles_of(self.client)

    def role_limits(self, roles: list[str]) -> None:
        assert self.policy
        publishing = [self.policy.roles[role] for role in roles if self.policy.roles[role].publish]
        if not publishing:
            return
        who, times, size = self.client.principal, self.event["count"], self.event["size"]
        scope = (", ".join(roles), "all its publishes")
        if all(role.rate for role in publishing):
            best = min(publishing, key=lambda r: _generosity(r.rate, r.effective_burst))
            interval = _rate(best.rate).emission_interval_ns
            if over := self.over(("all", who, scope), interval, interval * (best.effective_burst or 0), times):
                self.report("TW211", scope, count=over)
        if all(role.byte_rate for role in publishing) and size > 0:
            best = min(publishing, key=lambda r: _byte_generosity(r))
            rate = _rate(best.byte_rate)
            cost, limit = max(1, rate.cost_ns(size)), rate.cost_ns(best.effective_byte_burst or 0)
            if over := self.over(("all bytes", who, scope), cost, limit, times):
                self.report("TW212", scope, count=over)

    def payloads(self) -> None:
        size, entropy = self.event["size"], self.event["entropy"]
        self.naming()
        if (
            self.payload.max_entropy is not None
            and entropy > 0
            and size >= self.payload.min_size_for_entropy
            and self.shape in (Shape.UNKNOWN, Shape.BINARY)
            and np.float32(entropy) > entropy_threshold(np.array([size]), self.payload.max_entropy)[0]
        ):
            self.report("TW222")
        if self.resource.truncated:
            return
        if self.shape in (Shape.BASE64, Shape.HEX) and self.in_topics(self.payload.no_encoded):
            self.report("TW223", (self.shape.name.lower(),))
        if self.shape is Shape.BINARY and self.in_topics(self.payload.text_only):
            self.report("TW224")

    def in_topics(self, filters: Iterable[str]) -> bool:
        return is_topic(self.resource) and any(matches(f, self.resource.name) for f in filters)

    def within(self, branch: Within) -> bool:
        if branch.queue is not None:
            return self.resource.kind is ResourceKind.QUEUE and key_matches(branch.queue, self.resource.name)
        if self.resource.kind in (ResourceKind.QUEUE, ResourceKind.EXCHANGE):
            return False
        return self.is_for(branch) and hits(self.resource, pattern(branch), None, "")

    def naming(self) -> None:
        if self.policy and not self.resource.truncated:
            for rule in self.policy.naming:
                if self.within(rule.within) and (wrong := self.misnamed(rule)) is not None:
                    self.report("TW204", (shown(rule.within), str(wrong)))
                    break

    def misnamed(self, rule: Any) -> int | None:
        given = levels(self.resource)
        for number, (level, regex) in enumerate(zip(given, rule.levels, strict=False), 1):
            if not re.fullmatch(regex, level):
                return number
        if len(given) < len(rule.levels) or (len(given) > len(rule.levels) and not rule.more):
            return 0
        return None

    # -- look-alikes --------------------------------------------------------------------------------------------------

    def look_alike(self, *, allowed: bool, outside: bool) -> None:
        topic = self.resource.name
        if self.resource.truncated:
            return
        folded = skeleton(topic)
        where = (self.resource.kind, self.resource.within, folded)
        seen = self.skeletons.get(where)
        if self.policy is None:
            accused = seen is not None and seen[0] != topic and self.imitates(seen[0], seen[1])
        else:
            accused = outside and (
                self.imitates_policy(folded)
                or (seen is not None and seen[0] != topic and not self.spelled(self.different(topic, seen[0])))
            )
        if accused:
            self.report("TW205", (self.resource.label,))
        if (allowed or self.policy is None) and seen is None:
            self.skeletons[where] = (topic, self.client.principal)

    def imitates(self, other: str, principal: object) -> bool:
        given, others = levels(self.resource), levels(self.resource, other)
        if principal == self.client.principal:
            return False
        if len(given) != len(others):
            return True
        differing = [(a, b) for a, b in zip(given, others, strict=True) if a != b]
        if all(a in (self.client.user, self.client.client_id) for a, _ in differing):
            return False
        return all(
            not (a + b).isascii() or not (a + b).isprintable() or (a.lower() == b.lower() and not re.search(r"\d", a))
            for a, b in differing
        )

    def imitates_policy(self, folded: str) -> bool:
        assert self.policy
        user = None if self.client.user is None else skeleton(self.client.user)
        for role in self.policy.roles.values():
            for rule in role.publish:
                if not self.is_for(rule):
                    continue
                written = levels(self.resource, pattern(rule))
                special = specials(self.resource)
                one, rest = special[:2]
                looks = separator(self.resource).join(
                    level if level in special else skeleton(level) for level in written
                )
                if all(level in special for level in written) or rest in written[:-1]:
                    continue
                if len(levels(self.resource, folded)) != len(levels(self.resource)):
                    continue
                if hits(self.resource, looks, user, skeleton(self.client.client_id), folded):
                    given = levels(self.resource)
                    own = {"%u": self.client.user, "%c": self.client.client_id}
                    different = [
                        i
                        for i, level in enumerate(written)
                        if level not in (one, rest) and own.get(level, level) != given[i]
                    ]
                    if different and not self.spelled(different):
                        return True
        return False

    def spelled(self, different: list[int]) -> bool:
        """Whether some rule, with `%u` and `%c` standing for anybody, matches the topic and spells out these levels."""
        assert self.policy
        for role in self.policy.roles.values():
            for rule in role.publish:
                if not self.is_for(rule):
                    continue
                written = levels(self.resource, pattern(rule))
                if any_identity(written, self.resource) and all(
                    i < len(written) and written[i] not in specials(self.resource) for i in different
                ):
                    return True
        return False

    def different(self, one: str, other: str) -> list[int]:
        a, b = levels(self.resource, one), levels(self.resource, other)
        return [i for i in range(len(a)) if len(a) != len(b) or a[i] != b[i]]

    # -- subscriptions ------------------------------------------------------------------------------------------------

    def subscribe(self, action: Action, denied: bool, roles: list[str], known: bool) -> None:
        resource = self.resource
        if not denied:
            self.names(resource)
            if action is Action.CONFIGURE:
                self.naming()
        if self.policy is None:
            if not denied and action is Action.SUBSCRIBE and everything(resource):
                self.report("TW240")
            return
        if not roles or not known or resource.truncated:
            return
        if resource.kind is ResourceKind.TOPIC:
            wanted: Any = strip_share(resource.name)[1]
            if filter_problem(wanted):
                return
        elif resource.kind is ResourceKind.BINDING:
            wanted = parse_binding(resource.name)
        else:
            wanted = literal_key(resource.name)
        user, client_id = self.client.user, self.client.client_id
        allowed: list[Any] = []
        for role in (self.policy.roles[name] for name in roles):
            binds = any(rule.exchange for rule in role.subscribe)
            if resource.kind is ResourceKind.TOPIC:
                allowed += [bind(rule.topic, user, client_id) for rule in role.subscribe if rule.topic]
            elif resource.kind in (ResourceKind.BINDING, ResourceKind.KEY):
                keys = [rule.key for rule in role.subscribe if rule.exchange == resource.within]
                allowed += [bind_key(key or "", user, client_id) for key in keys]
            elif resource.kind is ResourceKind.QUEUE:
                rules = role.consume if action is Action.SUBSCRIBE else role.configure
                allowed += [bind_key(rule.queue, user, client_id) for rule in rules if rule.queue]
                allowed += [parse_binding("amq.*")] * binds
            else:
                allowed += [bind_key(rule.exchange, user, client_id) for rule in role.configure if rule.exchange]
        if resource.kind is ResourceKind.TOPIC:
            covered = isinstance(uncovered(wanted, allowed), Covered)
            touching = any(overlap(parse(wanted), one) is not None for one in allowed)
        else:
            covered = isinstance(KeyUnion(allowed).uncovered(wanted), Covered)
            touching = any(key_overlap(wanted, one) is not None for one in allowed)
        if covered:
            if denied:
                self.report("TW303", (action.name.lower(),))
        elif not denied:
            if action is Action.CONFIGURE:
                self.report("TW208")
            elif touching:
                self.report("TW203", (resource.label,))
            else:
                self.report("TW202")


# -- names -----------------------------------------------------------------------------------------------------------


def is_topic(resource: Resource) -> bool:
    return resource.kind is ResourceKind.TOPIC


def separator(resource: Resource) -> str:
    return "/" if is_topic(resource) else "."


def specials(resource: Resource) -> tuple[str, str, str, str]:
    return ("+" if is_topic(resource) else "*", "#", "%u", "%c")


def levels(resource: Resource, name: str | None = None) -> list[str]:
    return (resource.name if name is None else name).split(separator(resource))


def pattern(rule: PublishRule | SubscribeRule | Within) -> str:
    return rule.topic if rule.topic is not None else rule.key or ""


def shown(rule: PublishRule | Within) -> str:
    if isinstance(rule, Within) and rule.queue is not None:
        return f"queue {rule.queue}"
    return rule.topic if rule.topic is not None else f"exchange {rule.exchange}, key {rule.key}"


def hits(resource: Resource, text: str, user: str | None, client_id: str, name: str | None = None) -> bool:
    name = resource.name if name is None else name
    if is_topic(resource):
        return matches(text, name, user, client_id)
    return key_matches(bind_key(text, user, client_id), name)


def any_identity(written: list[str], resource: Resource) -> bool:
    """Whether a pattern matches for some user and client id."""
    given = levels(resource)
    users: set[str | None] = {*given, None}
    return any(
        hits(resource, separator(resource).join(written), user, client or "") for user in users for client in users
    )


def _rate(rate: Rate | None) -> Rate:
    assert rate is not None
    return rate


def _generosity(rate: Rate | None, burst: int | None) -> tuple[float, int]:
    rate = _rate(rate)
    return rate.per_ns / rate.amount, -(burst or 0) * rate.emission_interval_ns


def _byte_generosity(limits: Any) -> tuple[float, int]:
    rate = _rate(limits.byte_rate)
    return rate.per_ns / rate.amount, -rate.cost_ns(limits.effective_byte_burst)


def summary(ledger: Ledger) -> dict[tuple[object, ...], tuple[object, ...]]:
    """Everything about the findings that must be equal, by cause."""
    return {
        (f.type.code, f.broker, f.client.principal if f.client else None, f.scope, f.accepted): (
            f.count,
            f.first_ns,
            f.last_ns,
            f.certainty,
            tuple(f.witnesses.items()),
            f.more_witnesses,
        )
        for f in ledger.findings()
    }


__all__ = ["Client", "Oracle", "summary"]
