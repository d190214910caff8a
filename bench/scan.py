"""Scans of large configurations against a policy: 1 000 grants each.

Run: python -m bench.scan
"""

from __future__ import annotations

import json
import random
import tempfile
import time
from collections import Counter
from pathlib import Path

from topicwarden.compare.scan import Scan, Scanned
from topicwarden.findings import Ledger, load_catalogue
from topicwarden.grants import Grants
from topicwarden.policy import Policy, parse_policy
from topicwarden.sources import SourceOptions, load_brokers

CATALOGUE = load_catalogue()
GRANTS = 1_000
RULES = 200
ROLES = 10


def policy_of(publish: list[str], receive: list[str], kind: str, *, roles: int) -> Policy:
    """Return a policy that spreads its rules over some roles, by the last digit of the user's name."""
    lines = ["topicwarden: 1", "roles:"]
    for role in range(roles):
        lines.append(f"  role-{role}:")
        lines.append(f'    members: [{{user: "{"*" if roles == 1 else f"*{role}"}"}}]')
        for action, rules in (("publish", publish), (kind, receive)):
            lines.append(f"    {action}:")
            lines += [f"      - {{{rule}}}" for rule in rules[role::roles]]
    return parse_policy("\n".join(lines) + "\n", "policy.yaml")


def scanned(grants: Grants, policy: Policy) -> tuple[float, Scanned, Ledger]:
    """Return the processor seconds one scan takes, and what it found."""
    ledger = Ledger(CATALOGUE)
    start = time.process_time()
    result = Scan(ledger, policy, 0).run(grants)
    return time.process_time() - start, result, ledger


def mosquitto(folder: Path, source: random.Random) -> tuple[Path, list[Policy]]:
    """Write an acl_file of 1 000 lines for 250 users, and a policy of 200 rules."""
    lines = []
    for number in range(250):
        lines.append(f"user device-{number}")
        for _ in range(4):
            levels = [f"site{source.randrange(20)}", f"line{source.randrange(20)}", f"device-{number}"]
            levels[source.randrange(2)] = source.choice(["+", levels[0]])
            lines.append(f"topic {source.choice(['read', 'write', 'readwrite'])} {'/'.join(levels)}/#")
    path = folder / "acl"
    path.write_text("\n".join(lines) + "\n")
    ends = [source.choice(["state", "#", "+"]) for _ in range(RULES // 2)]
    rules = [f'topic: "site{n % 20}/line{n // 20}/%u/{end}"' for n, end in enumerate(ends)]
    return path, [policy_of(rules, rules, "subscribe", roles=roles) for roles in (ROLES, 1)]


def rabbitmq(folder: Path, source: random.Random) -> tuple[Path, list[Policy]]:
    """Write definitions with 1 002 permissions (of 334 users, three each), and a policy of 200 rules."""
    users, permissions = [], []
    for number in range(GRANTS // 3 + 1):
        users.append({"name": f"service-{number}", "tags": []})
        names = [f"ex-{source.randrange(300)}" for _ in range(3)]
        write = source.choice([f"^({'|'.join(names)})$", f"^{names[0]}", ".*", f"^ex-{number % 10}[0-9]*$", names[1]])
        read = source.choice([f"^q-{number}\\..*$", f"^(q-{number}|q-shared)\\.[a-z]+$", "^$", f"q-{number}"])
        permissions.append(
            {"user": f"service-{number}", "vhost": "/", "configure": f"^q-{number}\\..*$", "write": write, "read": read}
        )
    path = folder / "definitions.json"
    empty: dict[str, list[object]] = {
        key: [] for key in ("topic_permissions", "parameters", "policies", "queues", "exchanges", "bindings")
    }
    path.write_text(
        json.dumps(
            {"rabbit_version": "3.10.8", "users": users, "vhosts": [{"name": "/"}], "permissions": permissions, **empty}
        )
    )
    rules = [f'exchange: ex-{n}, key: "a.*.b"' for n in range(RULES // 2)]
    queues = [f'queue: "q-{n}.#"' for n in range(RULES // 2)]
    return path, [policy_of(rules, queues, "consume", roles=roles) for roles in (ROLES, 1)]


def main() -> None:
    """Print the figures."""
    brokers = load_brokers()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, build, aim in (("mosquitto", mosquitto, 1.0), ("rabbitmq", rabbitmq, 2.0)):
            path, policies = build(folder, random.Random(1))
            start = time.process_time()
            (grants,) = brokers[kind].grants(str(path), SourceOptions(broker="bench"))
            read = time.process_time() - start
            for roles, policy in zip((ROLES, 1), policies, strict=True):
                seconds, result, ledger = scanned(grants, policy)
                codes = Counter(finding.type.code for finding in ledger.findings())
                print(
                    f"{kind}: {result.grants} grants of {result.accounts} accounts against {RULES} rules in {roles} "
                    f"roles: {seconds:.2f} s (aim {aim:.0f} s), read in {read:.2f} s; {result.undecided} undecided; "
                    f"{dict(codes)}"
                )


if __name__ == "__main__":
    main()
