"""Real scanners: how much a few labelled scans teach."""
