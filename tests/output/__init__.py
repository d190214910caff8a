"""Tests of everything a finding looks like on its way out."""
