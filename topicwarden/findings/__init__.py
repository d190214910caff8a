"""Findings: their catalogue, and the ledger that counts them."""

from topicwarden.findings.catalogue import Catalogue, FindingType, Severity, data_dir, load_catalogue
from topicwarden.findings.detection import Detection, Regular
from topicwarden.findings.model import MAX_BEHIND, MAX_WITNESSES, Change, Finding, Ledger, Scalar
from topicwarden.findings.topic_words import TopicWords, load_topic_words

__all__ = [
    "MAX_BEHIND",
    "MAX_WITNESSES",
    "Catalogue",
    "Change",
    "Detection",
    "Finding",
    "FindingType",
    "Ledger",
    "Regular",
    "Scalar",
    "Severity",
    "TopicWords",
    "data_dir",
    "load_catalogue",
    "load_topic_words",
]
