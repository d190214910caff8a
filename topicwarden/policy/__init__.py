"""The intended set: the policy file's models, and reading them with every problem's line."""

from topicwarden.policy.loading import load_policy, parse_policy
from topicwarden.policy.model import (
    ConsumeRule,
    ExceptionRule,
    Inventory,
    InventoryBroker,
    InventoryTool,
    MemberSelector,
    NamingRule,
    Payload,
    Policy,
    PublishRule,
    Role,
    SubscribeRule,
    Thresholds,
    Within,
)
from topicwarden.policy.values import Glob, Rate, RefusedError

__all__ = [
    "ConsumeRule",
    "ExceptionRule",
    "Glob",
    "Inventory",
    "InventoryBroker",
    "InventoryTool",
    "MemberSelector",
    "NamingRule",
    "Payload",
    "Policy",
    "PublishRule",
    "Rate",
    "RefusedError",
    "Role",
    "SubscribeRule",
    "Thresholds",
    "Within",
    "load_policy",
    "parse_policy",
]
