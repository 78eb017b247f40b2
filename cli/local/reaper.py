"""Reaper: a process that ends what `normbank up` started when `up` cannot.

`up` starts this in a session of its own and holds the other end of its
standard input. Each line names something: `group PID`, `ended PID`,
`server PID SIGNAL`. When the input ends without `done`, even because of a
`kill -9`, what was named and has not ended is ended here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress

from cli.local.processes import python


def reap(lines: Iterable[str]) -> None:
    """Collect process ids until the input ends, then kill those that have not ended."""
    groups: set[int] = set()
    servers: dict[int, int] = {}
    for line in lines:
        match line.split():
            case ["group", pid]:
                groups.add(int(pid))
            case ["ended", pid]:
                groups.discard(int(pid))
                servers.pop(int(pid), None)
            case ["server", pid, number]:
                servers[int(pid)] = int(number)
            case ["done"]:
                return
    for leader in groups:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
    for server, stop_signal in servers.items():
        with suppress(ProcessLookupError):
            os.kill(server, stop_signal)


class Reaper:
    """Handle of the reaper process, held by `up`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            python("cli.local.reaper"),
            stdin=subprocess.PIPE,
            env=dict(environment),
            text=True,
            start_new_session=True,
        )

    def send(self, line: str) -> None:
        """Write one line of the protocol; a reaper that has gone hears nothing."""
        pipe = self._process.stdin
        assert pipe is not None
        with suppress(BrokenPipeError):
            pipe.write(line + "\n")
            pipe.flush()

    def close(self) -> None:
        """Say that everything has ended as it should, and wait for the reaper to leave."""
        self.send("done")
        self._process.communicate()


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    reap(sys.stdin)
