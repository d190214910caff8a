"""Names of the MITRE ATT&CK techniques our catalogue uses, for formats that want more than an id.

Names and tactics as in ATT&CK v18. A technique that serves several tactics is given none: a finding shows what was
done, not what for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FRAMEWORK: Final = "MITRE ATT&CK"

_TACTICS: Final = {
    "TA0001": "Initial Access",
    "TA0006": "Credential Access",
    "TA0007": "Discovery",
    "TA0009": "Collection",
    "TA0010": "Exfiltration",
    "TA0011": "Command and Control",
    "TA0040": "Impact",
    "TA0043": "Reconnaissance",
}
_TECHNIQUES: Final = {
    "T1005": ("Data from Local System", "TA0009"),
    "T1020": ("Automated Exfiltration", "TA0010"),
    "T1027": ("Obfuscated Files or Information", None),
    "T1036": ("Masquerading", None),
    "T1036.005": ("Match Legitimate Resource Name or Location", None),
    "T1040": ("Network Sniffing", None),
    "T1041": ("Exfiltration Over C2 Channel", "TA0010"),
    "T1046": ("Network Service Discovery", "TA0007"),
    "T1048": ("Exfiltration Over Alternative Protocol", "TA0010"),
    "T1048.003": ("Exfiltration Over Unencrypted Non-C2 Protocol", "TA0010"),
    "T1059": ("Command and Scripting Interpreter", None),
    "T1059.004": ("Unix Shell", None),
    "T1059.006": ("Python", None),
    "T1069": ("Permission Groups Discovery", "TA0007"),
    "T1070": ("Indicator Removal", None),
    "T1071": ("Application Layer Protocol", "TA0011"),
    "T1071.001": ("Web Protocols", "TA0011"),
    "T1071.005": ("Publish/Subscribe Protocols", "TA0011"),
    "T1078": ("Valid Accounts", None),
    "T1078.001": ("Default Accounts", None),
    "T1078.003": ("Local Accounts", None),
    "T1087": ("Account Discovery", "TA0007"),
    "T1090": ("Proxy", "TA0011"),
    "T1095": ("Non-Application Layer Protocol", "TA0011"),
    "T1098": ("Account Manipulation", None),
    "T1102": ("Web Service", "TA0011"),
    "T1105": ("Ingress Tool Transfer", "TA0011"),
    "T1110": ("Brute Force", "TA0006"),
    "T1110.001": ("Password Guessing", "TA0006"),
    "T1110.003": ("Password Spraying", "TA0006"),
    "T1110.004": ("Credential Stuffing", "TA0006"),
    "T1119": ("Automated Collection", "TA0009"),
    "T1132": ("Data Encoding", "TA0011"),
    "T1132.001": ("Standard Encoding", "TA0011"),
    "T1133": ("External Remote Services", None),
    "T1136": ("Create Account", None),
    "T1190": ("Exploit Public-Facing Application", "TA0001"),
    "T1199": ("Trusted Relationship", "TA0001"),
    "T1213": ("Data from Information Repositories", "TA0009"),
    "T1489": ("Service Stop", "TA0040"),
    "T1496": ("Resource Hijacking", "TA0040"),
    "T1498": ("Network Denial of Service", "TA0040"),
    "T1498.001": ("Direct Network Flood", "TA0040"),
    "T1499": ("Endpoint Denial of Service", "TA0040"),
    "T1499.002": ("Service Exhaustion Flood", "TA0040"),
    "T1499.003": ("Application Exhaustion Flood", "TA0040"),
    "T1550": ("Use Alternate Authentication Material", None),
    "T1552": ("Unsecured Credentials", "TA0006"),
    "T1552.001": ("Credentials In Files", "TA0006"),
    "T1556": ("Modify Authentication Process", None),
    "T1557": ("Adversary-in-the-Middle", None),
    "T1562": ("Impair Defenses", None),
    "T1562.001": ("Disable or Modify Tools", None),
    "T1562.006": ("Indicator Blocking", None),
    "T1565": ("Data Manipulation", "TA0040"),
    "T1565.001": ("Stored Data Manipulation", "TA0040"),
    "T1565.002": ("Transmitted Data Manipulation", "TA0040"),
    "T1567": ("Exfiltration Over Web Service", "TA0010"),
    "T1571": ("Non-Standard Port", "TA0011"),
    "T1572": ("Protocol Tunneling", "TA0011"),
    "T1573": ("Encrypted Channel", "TA0011"),
    "T1595": ("Active Scanning", "TA0043"),
}


@dataclass(frozen=True, slots=True)
class Technique:
    """A technique, or a sub-technique when the id has a dot."""

    id: str
    name: str
    """The id again when we have no name for it."""
    parent: Technique | None
    tactic_id: str | None
    tactic: str | None

    @property
    def url(self) -> str:
        """The technique's page."""
        return "https://attack.mitre.org/techniques/" + self.id.replace(".", "/") + "/"

    @property
    def full_name(self) -> str:
        """The name as ATT&CK writes it, a sub-technique's after its parent's."""
        return self.name if self.parent is None else f"{self.parent.name}: {self.name}"


def technique(technique_id: str) -> Technique:
    """Return what we know of a technique; one we do not know has its id for a name."""
    name, tactic = _TECHNIQUES.get(technique_id, (technique_id, None))
    parent, dot, _ = technique_id.partition(".")
    return Technique(
        technique_id, name, technique(parent) if dot else None, tactic, _TACTICS[tactic] if tactic else None
    )


def is_named(technique_id: str) -> bool:
    """Whether we have a name for this id."""
    return technique_id in _TECHNIQUES
