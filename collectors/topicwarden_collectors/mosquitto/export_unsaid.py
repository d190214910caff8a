"""What a policy says that no list of topics for a user can: limits, naming, payloads, exchanges and queues."""

from __future__ import annotations

from collections.abc import Iterator

from topicwarden.grants import Unsaid
from topicwarden.policy import Policy, PublishRule, Role

_LIMITS = ("rate", "burst", "byte_rate", "byte_burst", "max_size")
_SECTIONS = {
    "naming": "how names are built is not limited beyond the topics granted",
    "payload": "what payloads look like is not limited",
    "thresholds": "how often a client may try is not limited",
    "inventory": "which brokers and tools are approved is no matter of grants",
    "exceptions": "an exception accepts a finding, it grants nothing",
}


def unsaid_of(policy: Policy) -> Iterator[Unsaid]:
    """Yield what the policy has and grants of topics cannot have, in the policy's order."""
    for name, role in policy.roles.items():
        where = f"roles.{name}"
        yield from _limits(role, where)
        for number, rule in enumerate(role.publish):
            at = f"{where}.publish[{number}]"
            if rule.topic is None:
                yield _no_topic(rule.place.label, at)
            else:
                yield from _limits(rule, at)
        for number, subscription in enumerate(role.subscribe):
            if subscription.topic is None:
                yield _no_topic(subscription.place.label, f"{where}.subscribe[{number}]")
        for number, consumption in enumerate(role.consume):
            yield _no_topic(consumption.place.label, f"{where}.consume[{number}]")
        for number, configuration in enumerate(role.configure):
            yield _no_topic(configuration.place.label, f"{where}.configure[{number}]")
    for section, what in _SECTIONS.items():
        if section in policy.model_fields_set:
            yield Unsaid(what, section)


def _limits(rule: Role | PublishRule, where: str) -> Iterator[Unsaid]:
    limits = [f"{key} {getattr(rule, key)}" for key in _LIMITS if getattr(rule, key, None) is not None]
    if limits:
        yield Unsaid(f"how much may be published is not limited ({', '.join(limits)})", where)


def _no_topic(label: str, where: str) -> Unsaid:
    return Unsaid(f"Mosquitto has topics only, nothing like {label!r}", where)
