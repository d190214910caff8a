"""What a change of a policy newly allows and newly denies, with a name that shows each, and what else it changes."""

from __future__ import annotations

from topicwarden.compare.policies_clients import Clients
from topicwarden.compare.policies_limits import limit_changes
from topicwarden.compare.policies_model import PolicyDiff, Side
from topicwarden.compare.policies_rest import other_changes
from topicwarden.compare.policies_rights import Rights, beyond


def compare_policies(old: Side, new: Side) -> PolicyDiff:
    """Compare two policies.

    A rule newly allows something when some client of its role may, by the rule, use a name that all of the client's
    roles together did not let it use before; newly denied is what the old policy's rules so allow beyond the new one.
    Which clients are looked at, and why they suffice, is in `policies_clients`.
    """
    clients = Clients(old.policy, new.policy)
    before, after = Rights(old), Rights(new)
    allows, may_allow, gained = beyond(after, before, clients, "newly allowed")
    denies, may_deny, lost = beyond(before, after, clients, "newly denied")
    limits, may_limit = limit_changes(before, after, clients, gained | lost)
    others, may_join = other_changes(old, new, clients)
    return PolicyDiff(
        old.name, new.name, allows, denies, limits, others, [*may_allow, *may_deny, *may_limit, *may_join]
    )
