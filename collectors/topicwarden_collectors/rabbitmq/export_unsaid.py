"""What a policy says that no permission can: limits, naming, payloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from topicwarden.grants import Unsaid
from topicwarden.policy import Policy, PublishRule, Role

_LIMITS: Final = ("rate", "burst", "byte_rate", "byte_burst", "max_size")
_SECTIONS: Final = {
    "naming": "how names are built is not limited beyond the names granted",
    "payload": "what payloads look like is not limited",
    "thresholds": "how often a client may try is not limited",
    "inventory": "which brokers and tools are approved is no matter of permissions",
    "exceptions": "an exception accepts a finding, it grants nothing",
}


def unsaid_of(policy: Policy) -> Iterator[Unsaid]:
    """Yield what the policy has and permissions cannot have, in the policy's order."""
    for name, role in policy.roles.items():
        where = f"roles.{name}"
        yield from _limits(role, where)
        for number, rule in enumerate(role.publish):
            yield from _limits(rule, f"{where}.publish[{number}]")
    for section, what in _SECTIONS.items():
        if section in policy.model_fields_set:
            yield Unsaid(what, section)


def _limits(rule: Role | PublishRule, where: str) -> Iterator[Unsaid]:
    limits = [f"{key} {getattr(rule, key)}" for key in _LIMITS if getattr(rule, key, None) is not None]
    if limits:
        yield Unsaid(f"how much may be published is not limited ({', '.join(limits)})", where)
