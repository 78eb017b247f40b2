"""Scanners learnt one after another: what is left of the earlier ones."""
