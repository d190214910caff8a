"""Writes a policy in one of Mosquitto's own forms."""

from __future__ import annotations

from collections.abc import Sequence

from topicwarden.errors import ConfigurationError, Problem
from topicwarden.events import Client
from topicwarden.grants import Export
from topicwarden.policy import Policy


def export(target: str, policy: Policy, accounts: Sequence[Client]) -> Export:
    """Write the policy for these accounts and those that the policy names outright.

    Raises ConfigurationError for a target that is not Mosquitto's.
    """
    match target:
        case "mosquitto-acl":
            from topicwarden_collectors.mosquitto.export_acl import export_acl

            return export_acl(policy, accounts)
        case "mosquitto-dynsec":
            from topicwarden_collectors.mosquitto.export_dynsec import export_dynsec

            return export_dynsec(policy, accounts)
        case _:
            raise ConfigurationError(
                Problem(f"Mosquitto has no form {target!r}", hint="one of: mosquitto-acl, mosquitto-dynsec")
            )
