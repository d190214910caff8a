"""What of a policy no broker's grants can say: how much, which names beyond those granted, what payloads look like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from topicwarden.grants.model import Unsaid
from topicwarden.policy import Policy, PublishRule, Role

_LIMITS: Final = ("rate", "burst", "byte_rate", "byte_burst", "max_size")
_SECTIONS: Final = {
    "naming": "how names are built is not limited beyond the names granted",
    "payload": "what payloads look like is not limited",
    "thresholds": "how often a client may try is not limited",
    "inventory": "which brokers and tools are approved is no matter of grants",
    "exceptions": "an exception accepts a finding, it grants nothing",
}


def unsaid_limits(rule: Role | PublishRule, where: str) -> Iterator[Unsaid]:
    """Yield the limits of a role or rule; `where`: `roles.sensor.publish[0]`."""
    limits = [f"{key} {getattr(rule, key)}" for key in _LIMITS if getattr(rule, key, None) is not None]
    if limits:
        yield Unsaid(f"how much may be published is not limited ({', '.join(limits)})", where)


def unsaid_sections(policy: Policy) -> Iterator[Unsaid]:
    """Yield the parts of a policy besides its roles, as far as it has them."""
    for section, what in _SECTIONS.items():
        if section in policy.model_fields_set:
            yield Unsaid(what, section)


def unsaid_of(policy: Policy) -> Iterator[Unsaid]:
    """Yield all limits and all parts besides the roles, in the policy's order."""
    for name, role in policy.roles.items():
        where = f"roles.{name}"
        yield from unsaid_limits(role, where)
        for number, rule in enumerate(role.publish):
            yield from unsaid_limits(rule, f"{where}.publish[{number}]")
    yield from unsaid_sections(policy)
