"""Scans on disk, in the network's space, and exactly back."""
