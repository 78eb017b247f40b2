"""What keeps the launcher from starting, as one line for a person."""

from __future__ import annotations

from normbank.errors import NormbankError


class LaunchError(NormbankError):
    """The service cannot be started, kept alive or found; the message says why."""

    code = "launch"


class EmbeddedServerError(NormbankError):
    """An embedded server is not installed or did not start."""

    code = "embedded_server"
