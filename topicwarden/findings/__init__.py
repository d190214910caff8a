"""Findings: their catalogue, and the ledger that counts them."""

from topicwarden.findings.catalogue import Catalogue, FindingType, Severity, data_dir, load_catalogue
from topicwarden.findings.model import MAX_WITNESSES, Change, Finding, Ledger, Scalar

__all__ = [
    "MAX_WITNESSES",
    "Catalogue",
    "Change",
    "Finding",
    "FindingType",
    "Ledger",
    "Scalar",
    "Severity",
    "data_dir",
    "load_catalogue",
]
