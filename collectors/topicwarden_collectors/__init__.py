"""Collectors: one package a broker, loaded by entry point; see docs/collector.md."""
