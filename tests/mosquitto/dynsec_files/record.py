"""What is read from a dynamic-security.json, as text: run as a program, it writes the golden files anew."""

from __future__ import annotations

from pathlib import Path

from topicwarden_collectors.mosquitto.dynsec import DynsecGrants, parse_dynsec

FOLDER = Path(__file__).parent


def recorded(name: str) -> str:
    """Return accounts with their rules, origins, faults and blind spots of one file."""
    file = f"{name}.json"
    grants = DynsecGrants("plant", parse_dynsec(file, (FOLDER / file).read_bytes()))
    lines = [grants.title, f"closed: {grants.closed}"]
    for account in grants.accounts:
        lines += ["", f"{account.user!r} id {account.client_id!r} {account.identity}"]
        rights = grants.rights(account)
        assert rights is not None
        for (action, _), rules in rights.by.items():
            for rule in rules.rules:
                word = "allow" if rule.allow else "deny"
                lines.append(
                    f"  {action.name} {word} {rule.names} ({rule.certainty.name}) from {rule.origin.where}:"
                    f" {rule.origin.text}, of {rule.origin.holder}"
                )
    lines += ["", *(f"origin {one.where} {one.text}, of {one.holder}" for one in grants.origins), ""]
    for fault in grants.faults:
        whom = "" if fault.client is None else f" of {fault.client.user!r}"
        origin = fault.origin
        lines.append(f"{fault.code} {origin.where} {origin.text}, {origin.holder}{whom}: {fault.evidence['reason']}")
    lines += ["", *(f"not seen: {one}" for one in grants.blind_spots), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    for path in FOLDER.glob("*.json"):
        path.with_suffix(".grants").write_text(recorded(path.stem))
