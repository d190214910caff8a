"""Writes a policy in the broker's own syntax."""

from __future__ import annotations

from collections.abc import Sequence

from topicwarden.events import Client
from topicwarden.grants import Export
from topicwarden.policy import Policy


def export(target: str, policy: Policy, accounts: Sequence[Client]) -> Export:
    """Write the policy for these accounts and those that the policy names outright."""
    raise NotImplementedError
