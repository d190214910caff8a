"""What a policy says that no list of topics for a user can: limits, naming, payloads, exchanges and queues."""

from __future__ import annotations

from collections.abc import Iterator

from topicwarden.grants import Unsaid, unsaid_limits, unsaid_sections
from topicwarden.policy import Policy


def unsaid_of(policy: Policy) -> Iterator[Unsaid]:
    """Yield what the policy has and grants of topics cannot have, in the policy's order."""
    for name, role in policy.roles.items():
        where = f"roles.{name}"
        yield from unsaid_limits(role, where)
        for number, rule in enumerate(role.publish):
            at = f"{where}.publish[{number}]"
            if rule.topic is None:
                yield _no_topic(rule.place.label, at)
            else:
                yield from unsaid_limits(rule, at)
        for number, subscription in enumerate(role.subscribe):
            if subscription.topic is None:
                yield _no_topic(subscription.place.label, f"{where}.subscribe[{number}]")
        for number, consumption in enumerate(role.consume):
            yield _no_topic(consumption.place.label, f"{where}.consume[{number}]")
        for number, configuration in enumerate(role.configure):
            yield _no_topic(configuration.place.label, f"{where}.configure[{number}]")
    yield from unsaid_sections(policy)


def _no_topic(label: str, where: str) -> Unsaid:
    return Unsaid(f"Mosquitto has topics only, nothing like {label!r}", where)
