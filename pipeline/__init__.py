"""Scans through networks: what knows both a scan and a network."""
