"""Everything a finding looks like on its way out: text, JSON lines, ECS, OCSF, a live terminal, metrics."""

from topicwarden.output.escape import quoted, shorten, visible, well_formed
from topicwarden.output.live import Live, Status
from topicwarden.output.metrics import Metrics, MetricsServer
from topicwarden.output.origin import Origin
from topicwarden.output.sinks import FORMATS, REPORT_FORMATS, Sink, TextSink, make_sink
from topicwarden.output.summary import InventoryRow, Kept, ScannedGrants, SourceSummary, Summary
from topicwarden.output.text import brief, explain, full, grew

__all__ = [
    "FORMATS",
    "REPORT_FORMATS",
    "InventoryRow",
    "Kept",
    "Live",
    "Metrics",
    "MetricsServer",
    "Origin",
    "ScannedGrants",
    "Sink",
    "SourceSummary",
    "Status",
    "Summary",
    "TextSink",
    "brief",
    "explain",
    "full",
    "grew",
    "make_sink",
    "quoted",
    "shorten",
    "visible",
    "well_formed",
]
