"""What the studies share: stored stages, scans, scoring, learning, tables, pictures."""
