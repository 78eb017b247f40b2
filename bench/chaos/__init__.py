"""Faults on purpose, again and again, against a `normbank up` that each script starts itself."""
