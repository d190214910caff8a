"""Grants against policy, against observation, and policies against each other: pure, no I/O, no clock."""
