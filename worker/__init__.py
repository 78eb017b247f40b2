"""Celery workers: the queue on one side, the device on the other."""
