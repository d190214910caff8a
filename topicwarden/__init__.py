"""Audits publish/subscribe brokers: granted, observed and intended access, and every difference with proof."""

__version__ = "0.1.0"
