"""Benchmarks: each a script that prints JSON; nothing imports them."""
